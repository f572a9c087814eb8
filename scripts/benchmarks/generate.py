"""generate: texts of k members, every row of a batch through its own member's adapter, against one member after another.

The same number of texts is wanted of every way. One after another is PEFT's `set_adapter` and transformers' `generate`, a batch for
each member, as anyone would write it; that the reference writes them all in one batch says what the adapters cost.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.apart import apart
from benchmarks.base_model import device_facts, device_peak_gib, make_adapters, make_base, peak_of


def _write(folder: str, count: int, texts: int, longest: int, rounds: int) -> dict[str, Any]:
    """Tokens a second of every way; ways take turns."""
    from palm.data.planted import prompt_texts
    from palm.lm.generate import sample_encoded
    from palm.lm.load import load_language_model
    from palm.lm.tokens import encode_prompt
    from palm.lm.writers import Row
    from palm.policies.adapters import Members
    from palm.policies.mixed import MixedWriter

    rng = np.random.default_rng(0)
    prompts = [str(prompt) for prompt in rng.choice(prompt_texts(), size=texts)]
    adapters = {f"m{number}": Path(folder, f"m{number}") for number in range(count)}
    owners = [f"m{row % count}" for row in range(texts)]
    base = load_language_model(Path(folder, "base"))
    members = Members(load_language_model(Path(folder, "base")), adapters)
    own = {name: [encode_prompt(base.tokenizer, prompt) for prompt in prompts[place::count]] for place, name in enumerate(adapters)}

    def batch(writer: MixedWriter, policies: Sequence[str | None], seed: int) -> int:
        rows = [Row(prompt, policy, 1000 * seed + row) for row, (prompt, policy) in enumerate(zip(prompts, policies, strict=True))]
        return sum(written.tokens or 0 for written in writer.write(rows))

    def after_another(seed: int) -> int:
        tokens = 0
        for name, encoded in own.items():
            with members.policy(name) as policy:
                samples = sample_encoded(policy, encoded, count=1, max_new_tokens=longest, seed=seed)
            tokens += sum(len(sample.token_ids) for row in samples for sample in row)
        return tokens

    mixed = MixedWriter(load_language_model(Path(folder, "base")), adapters, max_new_tokens=longest)
    plain = MixedWriter(base, {}, max_new_tokens=longest)
    ways: dict[str, Callable[[int], int]] = {
        "mixed": lambda seed: batch(mixed, owners, seed),
        "after another": after_another,
        "reference": lambda seed: batch(plain, [None] * texts, seed),
    }
    found: dict[str, list[tuple[int, float]]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, write in ways.items():
            start = time.perf_counter()
            tokens = write(number)
            if number:  # the first round warms up
                found[way].append((tokens, time.perf_counter() - start))
    speeds = {way: sum(tokens for tokens, _ in each) / sum(seconds for _, seconds in each) for way, each in found.items()}
    return {**speeds, "device_peak_gib": device_peak_gib()}


def bench_generate(
    size: str, members: list[int], texts: int, longest: int, rounds: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Tokens a second for every number of members, and what its heading must say. Memory is the GPU's where there is one."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        facts = apart(make_base, folder, size)
        apart(make_adapters, folder, [f"m{number}" for number in range(max(members))])
        for count in members:
            found = apart(_write, folder, count, max(texts, count), longest, rounds)
            rows.append(
                {
                    "k": count,
                    "texts": max(texts, count),
                    "mixed, tokens/s": round(found["mixed"]),
                    "after another, tokens/s": round(found["after another"]),
                    "mixed/after another": round(found["mixed"] / found["after another"], 2),
                    "of the reference's": round(found["mixed"] / found["reference"], 2),
                    "peak, GiB": peak_of(found),
                }
            )
    return rows, {"size": size, "parameters": facts["parameters"], "new_tokens": longest, **device_facts()}
