"""Train a small Llama-architecture language model and its tokenizer from scratch, with TRL's SFTTrainer.

For worlds and corpora that must run without a download. Everyone else names a model they have.
"""

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from palm.data.schema import Text, plain_text
from palm.lm.tokens import encode
from palm.progress import Track, silent
from palm.seeds import isolated_rng

logger = logging.getLogger(__name__)

_CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer: any text can be encoded, and decoded to the same text.

    Args:
        texts: what to learn merges from.
        vocabulary: number of tokens, at least 260 (256 bytes and the special tokens).

    Raises:
        ValueError: `vocabulary` is too small.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if vocabulary < 260:
        raise ValueError(f"vocabulary: expected at least 260 tokens, got {vocabulary}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def check_architecture(options: Mapping[str, Any]) -> None:
    """See that every option is a field of transformers' LlamaConfig, which itself takes any name without a word.

    Raises:
        ValueError: an option is no field of it, or palm sets it itself.
    """
    from transformers import LlamaConfig

    fields = {field.name for field in dataclasses.fields(LlamaConfig)}
    for option in options:
        if option in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"):
            raise ValueError(f"architecture.{option}: palm sets this itself; leave it out")
        if option not in fields:
            close = get_close_matches(option, fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"architecture.{option}: transformers.LlamaConfig has no such option{hint}")
    try:
        LlamaConfig(**{**_ARCHITECTURE, **options})
    except Exception as error:  # huggingface_hub's validation errors are of its own kinds
        raise ValueError(f"architecture: {' '.join(str(error).split())}") from error


_ARCHITECTURE = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
_SFT = {
    "learning_rate": 4e-3,
    "per_device_train_batch_size": 32,
    "num_train_epochs": 2,
    "warmup_steps": 20,
    "lr_scheduler_type": "cosine",
    "completion_only_loss": True,  # TRL does not infer it from a completion_mask column
}


def train_from_scratch(
    texts: list[tuple[Text, Text]],
    folder: Path,
    *,
    work: Path,
    vocabulary: int = 1024,
    architecture: Mapping[str, Any] | None = None,
    sft: Mapping[str, Any] | None = None,
    max_length: int = 256,
    seed: int = 0,
    track: Track = silent,
) -> dict[str, float]:
    """Train tokenizer and model on (prompt, response) texts and save both in `folder`.

    Args:
        texts: n prompts with responses; the loss is on the responses.
        folder: where model and tokenizer are saved (safetensors, tokenizer.json).
        work: a folder for the trainer's own files; checkpoints in it are taken up again.
        vocabulary: size of the tokenizer, at least 260.
        architecture: fields of transformers' LlamaConfig.
        sft: fields of TRL's SFTConfig; learning rate, steps, batch size and so on.
        max_length: longest text in tokens; longer ones are cut.
        seed: of initial weights and order of texts.
        track: for a progress bar of the steps.

    Returns:
        parameters (their number), tokens (of the training texts) and loss (mean over the last tenth of the log).

    Raises:
        ValueError: `texts` is empty, a size is out of range, an option is unknown, or several processes do this together.
    """
    import transformers
    from datasets import Dataset
    from transformers import LlamaForCausalLM
    from trl import SFTTrainer

    from palm.lm.training import quieten, train_to_end, training_arguments

    if not texts:
        raise ValueError("texts: expected at least one text to train on, got none")
    check_architecture(architecture or {})
    _check_alone()
    tokenizer = train_tokenizer((part for text in texts for part in map(plain_text, text)), vocabulary)
    encoded = [encode(tokenizer, prompt, response, max_length=max_length) for prompt, response in texts]
    rows = Dataset.from_dict(
        {
            "input_ids": [prompt + response for prompt, response in encoded],
            "completion_mask": [[0] * len(prompt) + [1] * len(response) for prompt, response in encoded],
        }
    )
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = scratch_config(architecture or {}, vocabulary=len(tokenizer), max_length=max_length, **special)
    with isolated_rng(seed):
        model = LlamaForCausalLM(config)
        arguments = training_arguments(
            "SFTConfig",
            {
                **_SFT,
                "max_length": max_length,
                **dict(sft or {}),
            },
            folder=work,
            seed=seed,
        )
        trainer = SFTTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
        quieten(trainer, "training the base model", track)
        train_to_end(trainer, work)
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tail = losses[-max(1, len(losses) // 10) :] if losses else []
    return {
        "parameters": float(sum(parameter.numel() for parameter in model.parameters())),
        "tokens": float(sum(len(prompt) + len(response) for prompt, response in encoded)),
        "loss": sum(tail) / len(tail) if tail else float("nan"),
    }


def _check_alone() -> None:
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        raise ValueError(  # its trainer would wait for ranks that do not train
            f"model: a model from scratch is trained by one process, this is one of {torch.distributed.get_world_size()}; "
            "do `palm base` alone first"
        )


def scratch_config(architecture: Mapping[str, Any], *, vocabulary: int, max_length: int, **special: int) -> Any:
    """transformers' LlamaConfig of a model trained here: about a million parameters unless told otherwise.

    Args:
        architecture: fields of LlamaConfig.
        vocabulary: tokens.
        max_length: longest text in tokens.
        special: ids of special tokens.
    """
    from transformers import LlamaConfig

    return LlamaConfig(
        **{**_ARCHITECTURE, "max_position_embeddings": max_length, **architecture, "vocab_size": vocabulary, **special}
    )
