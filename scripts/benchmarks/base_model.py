"""Base models that benchmarks of training and writing run on: random weights, since speed does not depend on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIZES: dict[str, dict[str, int]] = {
    "small": {"intermediate_size": 448},  # the embedded world's
    "big": {
        "hidden_size": 384,
        "intermediate_size": 1152,
        "num_hidden_layers": 9,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
    },
    "half": {  # of the size, the shape and the vocabulary of Qwen3-0.6B
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
    },
}
LORA = {"r": 16, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "o_proj", "down_proj"], "lora_dropout": 0.0}
LONGEST = 1024
_TOKENS = 900


def make_base(folder: str, size: str) -> dict[str, Any]:
    """A Llama with random weights of one of SIZES, saved in `folder`/base with a tokenizer of 900 tokens."""
    import torch
    from transformers import GenerationConfig, LlamaForCausalLM

    from palm.data.planted import write_corpus
    from palm.lm.pretrain import scratch_config, train_tokenizer
    from palm.seeds import isolated_rng

    texts = write_corpus(800, np.random.default_rng(0))
    tokenizer = train_tokenizer((part for text in texts for part in text), _TOKENS)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    architecture = dict(SIZES[size])
    vocabulary = architecture.pop("vocab_size", len(tokenizer))
    config = scratch_config(architecture, vocabulary=vocabulary, max_length=LONGEST, **special)
    with isolated_rng(0), torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**special)
    model.to(torch.bfloat16 if torch.cuda.is_available() else torch.float32).save_pretrained(Path(folder, "base"))
    tokenizer.save_pretrained(Path(folder, "base"))
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def make_adapters(folder: str, names: Sequence[str]) -> dict[str, Any]:
    """One adapter of random weights per name, in `folder`/NAME."""
    from peft import get_peft_model

    from palm.lm.load import load_language_model
    from palm.policies.adapters import lora_config, publish_adapter
    from palm.seeds import isolated_rng

    base = load_language_model(Path(folder, "base"))
    for number, name in enumerate(names):
        with isolated_rng(number):
            model = get_peft_model(base.model, lora_config(LORA))
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    parameter.data.normal_(std=0.02)
        model.save_pretrained(Path(folder, f"saved-{name}"))
        model.unload()
        publish_adapter(Path(folder, f"saved-{name}"), Path(folder, name), base_model="bench")
    return {}


def device_facts() -> dict[str, Any]:
    """The name of the GPU, if there is one."""
    import torch

    return {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}


def peak_of(run: dict[str, Any]) -> float:
    """Most memory of a run that was measured apart: of the GPU, if it told `device_peak_gib`, else of its process, in GiB."""
    return float(run["device_peak_gib"] or run["peak_gib"])


def device_peak_gib() -> float | None:
    """Most memory of the GPU that this process's tensors have held, in GiB; None without a GPU."""
    import torch

    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None
