"""steps: forward and backward of one group of responses in soft-label training of the embedded world's model.

Layouts: every response in one padded tensor (the obvious way), in buckets by length, in packs behind one copy of the prompt; heads:
TRL's fused one, and plain logits. Alternatives take turns, so that a busy machine slows all of them.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from benchmarks.base_model import LORA, make_base
from trl.trainer.utils import add_fused_lm_head

from palm.data.planted import prompt_texts, write_response
from palm.lm.load import LanguageModel, load_language_model
from palm.lm.tokens import encode
from palm.policies import trainer
from palm.policies.adapters import lora_config
from palm.policies.groups import Buckets, Packs

OBVIOUS = "one tensor, fused head"


def _groups(model: LanguageModel, count: int, responses: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    rows = []
    for prompt in rng.choice(prompt_texts(), size=count, replace=False):
        texts = [encode(model.tokenizer, str(prompt), write_response(str(prompt), rng), max_length=192) for _ in range(responses)]
        rows.append({"prompt_ids": texts[0][0], "responses": [response for _, response in texts]})
    return rows


def _alternatives(model: LanguageModel, policy: Any, responses: int) -> dict[str, Callable[[dict[str, Any]], torch.Tensor]]:
    """Log-probabilities of a group's responses, each way."""
    pad, vocabulary = model.tokenizer.pad_token_id, len(model.tokenizer)
    layouts = {"one tensor": Buckets(pad, 1), "buckets": Buckets(pad, responses), "packs": Packs(pad)}

    def way(layout: Any, fused: bool) -> Callable[[dict[str, Any]], torch.Tensor]:
        read = trainer._pack_logprobs if isinstance(layout, Packs) else trainer._bucket_logprobs
        return lambda row: read(policy, layout([row]), 2**40 if fused else vocabulary)

    return {f"{name}, {head} head": way(layout, head == "fused") for name, layout in layouts.items() for head in ("fused", "plain")}


def bench_steps(responses: list[int], rounds: int) -> list[dict[str, Any]]:
    """Median milliseconds of each alternative for each size of group."""
    with tempfile.TemporaryDirectory() as folder:
        make_base(folder, "small")
        model = load_language_model(Path(folder, "base"))
        add_fused_lm_head(model.model)
        policy = peft.get_peft_model(model.model, lora_config(LORA)).train()
        found = []
        for size in responses:
            ways = _alternatives(model, policy, size)
            times: dict[str, list[float]] = {name: [] for name in ways}
            for number, row in enumerate(_groups(model, rounds + 1, size)):
                for name, logprobs in ways.items():
                    start = time.perf_counter()
                    logprobs(row).sum().backward()
                    policy.zero_grad()
                    if number:  # the first round warms up
                        times[name].append(1e3 * (time.perf_counter() - start))
            middle = {name: float(np.median(values)) for name, values in times.items()}
            found += [
                {"responses": size, "way": name, "ms": round(value, 1), "of_obvious": round(value / middle[OBVIOUS], 2)}
                for name, value in middle.items()
            ]
    return found
