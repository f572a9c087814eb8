"""train: k members together, against k separate TRL runs of the same optimiser steps on the same pairs.

Separate is DPOTrainer as anyone would write it, from the base model and texts on disk: load, tokenise, train LoRA with the
reference's forward pass at every step, save. Together is `palm.policies.train` with objective dpo: the same pairs in the same
batches, losses and learning rates, so that the members are the same policies. Each run is a process of its own; starting Python
and importing libraries is not counted, though separate runs do it k times. Separate runs are independent, so that a few are
timed, before and after those together, and their mean counts k times. Beside whole runs, single steps are compared.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.apart import apart
from benchmarks.base_model import LONGEST, LORA, device_facts, device_peak_gib, make_base, peak_of

from palm.data.planted import basis_rewards, prompt_texts, write_response
from palm.lm.training import quieten
from palm.policies.pairs import scalarise
from palm.progress import Advance
from palm.seeds import derive_seed

_BASES = ("expert", "friend", "brief")
_PROMPTS, _RESPONSES, _PER_PROMPT = 64, 8, 16


def _trainer_options(steps: int, batch: int) -> dict[str, Any]:
    return {
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "lr_scheduler_type": "cosine",
        "beta": 0.1,
        "logging_steps": 10,
    }


def _world(pieces: int) -> tuple[list[str], list[list[str]], np.ndarray]:
    """Prompts, responses of that many pieces of about 35 tokens, and (P, N, K) rewards; the same in every process."""
    rng = np.random.default_rng(1)
    prompts = [str(prompt) for prompt in rng.choice(prompt_texts(), size=_PROMPTS, replace=False)]
    responses = [[" ".join(write_response(prompt, rng) for _ in range(pieces)) for _ in range(_RESPONSES)] for prompt in prompts]
    rewards = basis_rewards([text for row in responses for text in row], _BASES)
    return prompts, responses, rewards.reshape(_PROMPTS, _RESPONSES, -1)


def _weights(count: int) -> np.ndarray:
    return np.random.default_rng(2).dirichlet(np.ones(len(_BASES)), size=count)


class _Clock:
    """A `palm.progress.Track` that times steps but a run's first five, in which kernels are compiled and caches filled."""

    def __init__(self) -> None:
        """No runs yet."""
        self._runs: list[list[float]] = []

    @contextlib.contextmanager
    def __call__(self, label: str, total: int | None) -> Iterator[Advance]:
        """One run."""
        times: list[float] = []
        self._runs.append(times)
        yield lambda done: times.append(time.perf_counter())

    @property
    def step(self) -> float:
        """Mean seconds of a step."""
        return float(np.mean(np.concatenate([np.diff(times[5:]) for times in self._runs])))


def _told(run: dict[str, Any], what: str) -> dict[str, Any]:
    print(f"{what}: {run['seconds']:.1f} s, {1e3 * run['step']:.0f} ms a step, {peak_of(run)} GiB", file=sys.stderr, flush=True)
    return run


def separate(folder: str, number: int, steps: int, batch: int, pieces: int) -> dict[str, Any]:
    """One policy by TRL alone."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    prompts, responses, rewards = _world(pieces)
    pairs = scalarise(rewards, _weights(number + 1)[number], per_prompt=_PER_PROMPT, seed=derive_seed(0, "pairs"))
    rows = zip(pairs.prompt, pairs.chosen, pairs.rejected, strict=True)
    data = Dataset.from_list(
        [{"prompt": prompts[p] + "\n", "chosen": responses[p][c], "rejected": responses[p][r]} for p, c, r in rows]
    )
    start, worked = time.perf_counter(), time.process_time()
    cuda = torch.cuda.is_available()
    arguments = DPOConfig(
        output_dir=f"{folder}/separate-{number}",
        **_trainer_options(steps, batch),
        max_length=LONGEST,
        bf16=cuda,
        use_cpu=not cuda,
        gradient_checkpointing=False,
        dataloader_pin_memory=cuda,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        log_level="error",
        seed=0,
        data_seed=0,
    )
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(f"{folder}/base", dtype="bfloat16" if cuda else "float32"),
        args=arguments,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(f"{folder}/base"),
        peft_config=LoraConfig(**LORA, task_type="CAUSAL_LM"),
    )
    clock = _Clock()
    quieten(trainer, "", clock)
    trainer.train()
    trainer.save_model()
    seconds, cpu = time.perf_counter() - start, time.process_time() - worked
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"seconds": seconds, "cpu": cpu, "step": clock.step, "losses": losses, "device_peak_gib": device_peak_gib()}


def together(folder: str, count: int, steps: int, batch: int, pieces: int) -> dict[str, Any]:
    """Several policies by palm."""
    import shutil

    import datasets
    import peft  # noqa: F401  imports are not counted
    import trl  # noqa: F401

    import palm.policies.trainer  # noqa: F401
    from palm.lm.load import load_language_model
    from palm.policies.candidates import tokenise_candidates
    from palm.policies.options import TrainingOptions
    from palm.policies.train import Member, train_members
    from palm.rewards.tensor import RewardTensor

    datasets.disable_progress_bars()
    prompts, responses, rewards = _world(pieces)
    place = Path(folder, f"together-{count}")
    shutil.rmtree(place, ignore_errors=True)
    clock = _Clock()
    start, worked = time.perf_counter(), time.process_time()
    model = load_language_model(Path(folder, "base"))
    candidates = tokenise_candidates(model, prompts, responses, place / "reference", max_length=LONGEST)
    logs = train_members(
        model,
        [Member(f"m{number}", weight) for number, weight in enumerate(_weights(count))],
        candidates,
        RewardTensor(rewards, np.ones(rewards.shape[:2], dtype=bool)),
        place,
        kl=0.1,
        base_model="bench",
        options=TrainingOptions(
            objective="dpo", pairs_per_prompt=_PER_PROMPT, max_length=LONGEST, lora=LORA, dpo=_trainer_options(steps, batch)
        ),
        track=clock,
    )
    seconds, cpu = time.perf_counter() - start, time.process_time() - worked
    losses = [entry["loss"] for entry in logs["m0"]["losses"]]
    pairs = scalarise(rewards, _weights(1)[0], per_prompt=_PER_PROMPT, seed=derive_seed(0, "pairs"))
    tokens = [
        [len(prompt) + len(response) for response in row]
        for prompt, row in zip(candidates.prompts, candidates.responses, strict=True)
    ]
    read = np.mean([tokens[p][n] for sides in (pairs.chosen, pairs.rejected) for p, n in zip(pairs.prompt, sides, strict=True)])
    measured = {"seconds": seconds, "cpu": cpu, "step": clock.step, "device_peak_gib": device_peak_gib()}
    return {**measured, "losses": losses, "tokens": 2 * float(read)}


def bench_train(
    size: str, members: list[int], steps: int, batch: int, separate_runs: int, pieces: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Seconds and peak memory for every number of members, and what the table's heading must say.

    Memory is the GPU's where there is one. Tokens a second are those of both sides of the pairs, over everything that is timed.
    """
    with tempfile.TemporaryDirectory() as folder:
        facts = apart(make_base, folder, size)
        alone, found = [], {}
        order = [None, *sorted(members)]
        order += [None] * (separate_runs - 1)
        for count in order:
            if count is None:
                alone.append(_told(apart(separate, folder, len(alone), steps, batch, pieces), "separate"))
            else:
                found[count] = _told(apart(together, folder, count, steps, batch, pieces), f"{count} together")
    mean, worked, step = (float(np.mean([run[name] for run in alone])) for name in ("seconds", "cpu", "step"))
    first = found[min(found)]
    gap = float(np.abs(np.subtract(alone[0]["losses"], first["losses"])).max())
    tokens = steps * batch * first["tokens"]
    rows = [
        {
            "k": count,
            "together, s": round(run["seconds"], 1),
            "separate, s": round(count * mean, 1),
            "together/separate": round(run["seconds"] / (count * mean), 3),
            "of CPU time": round(run["cpu"] / (count * worked), 3),
            "of a step": round(run["step"] / step, 3),
            "tokens/s": round(count * tokens / run["seconds"]),
            "peak, GiB": peak_of(run),
            "of one member's": round(peak_of(run) / peak_of(first), 2),
        }
        for count, run in found.items()
    ]
    return rows, {
        "size": size,
        "parameters": int(facts["parameters"]),
        "steps": steps,
        "pairs_per_step": batch,
        "tokens_per_pair": round(first["tokens"], 1),
        **device_facts(),
        "separate_seconds": [round(run["seconds"], 2) for run in alone],
        "separate_cpu_seconds": [round(run["cpu"], 2) for run in alone],
        "separate_step_ms": round(1e3 * step, 1),
        "step_ms": {count: round(1e3 * run["step"], 1) for count, run in found.items()},
        "separate_tokens_per_second": round(tokens / mean),
        "separate_peak_gib": max(map(peak_of, alone)),
        "largest_difference_of_losses": round(gap, 5),
        **{f"together_over_separate_k{row['k']}": row["together/separate"] for row in rows},
        **{f"together_over_separate_cpu_k{row['k']}": row["of CPU time"] for row in rows},
    }
