"""A world that a tiny model learns in a second: answers are colours, and rewards are how much of each there is in them."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

COLOURS = ("red", "green", "blue")
NUMBERS = ("one", "two", "three", "four")
WORDS = ("<s>", "</s>", "<pad>", *COLOURS, *NUMBERS)

YAML = """\
output: {output}
data: {{source: {source}, unseen: 2, shots: 3}}
base: {{model: {base}, name: colours}}
features: {{functions: ["colour_world:red", "colour_world:green", "colour_world:blue"]}}
rewards: {{method: Given, options: {{}}, compare: []}}
candidates: {{prompts: 22, held_out: 56, per_prompt: 4, max_new_tokens: 4, batch_size: 512}}
plan: {{kl: 0.2, size: 1, curve: 0}}
train:
  baselines: false
  max_length: 16
  group: 4
  dpo: {{max_steps: 25, per_device_train_batch_size: 8, learning_rate: 5e-3}}
measure: {{samples: 12, draws: 40}}
report: {{plots: false}}
"""


def _share(responses: list[str], colour: str) -> list[float]:
    return [float(np.mean([word == colour for word in response.split()] or [0.0])) for response in responses]


def red(prompts: list[str], responses: list[str]) -> list[float]:
    return _share(responses, "red")


def green(prompts: list[str], responses: list[str]) -> list[float]:
    return _share(responses, "green")


def blue(prompts: list[str], responses: list[str]) -> list[float]:
    return _share(responses, "blue")


def write_base(folder: Path) -> None:
    """A model that says anything, and its tokenizer."""
    vocabulary = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    vocabulary.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=len(WORDS), bos_token_id=0, eos_token_id=1, pad_token_id=2))
    model.generation_config.max_length = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_pairs(path: Path) -> None:
    """Twelve users who each like one colour, on every prompt of two or three numbers."""
    rng = np.random.default_rng(0)
    prompts = [" ".join(words) for length in (2, 3) for words in product(NUMBERS, repeat=length)]
    rows = []
    for user in range(12):
        for prompt in rng.permutation(prompts)[:24]:
            one, other = (" ".join(rng.choice(COLOURS, size=3)) for _ in range(2))
            chosen, rejected = sorted((one, other), key=lambda text: -text.count(COLOURS[user % 3]))
            if chosen != rejected:
                rows.append({"user": user, "prompt": prompt, "chosen": chosen, "rejected": rejected})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_config(folder: Path) -> Path:
    """Everything of a run but the run; returns the YAML file."""
    write_base(folder / "base")
    write_pairs(folder / "pairs.jsonl")
    path = folder / "colours.yaml"
    path.write_text(YAML.format(output=folder / "run", source=folder / "pairs.jsonl", base=folder / "base"))
    return path
