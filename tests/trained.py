"""What several tests of trained policies count with: texts, an adapter's bytes, and the documented loss, written once more."""

from pathlib import Path
from typing import Any

import numpy as np

from palm.policies.adapters import CONFIG, WEIGHTS


def texts_of(task: Any) -> list[tuple[list[int], list[int]]]:
    return [(p, r) for p, row in zip(task.candidates.prompts, task.candidates.responses, strict=True) for r in row]


def bytes_of(folder: Path) -> tuple[bytes, bytes]:
    return (folder / CONFIG).read_bytes(), (folder / WEIGHTS).read_bytes()


class Killed(BaseException):
    """What no handler of errors takes for one."""


def killing(totals: list[int | None], at: int | None) -> Any:
    """A track for progress bars that is killed at its step `at`, if any; `totals` takes the bar's length at every step."""

    class Bar:
        def __init__(self, total: int | None) -> None:
            self.total, self.done = total, 0

        def __enter__(self) -> Any:
            return self.advance

        def __exit__(self, *_: object) -> None:
            return None

        def advance(self, count: int) -> None:
            self.done += count
            totals.append(self.total)
            if self.done == at:
                raise Killed

    return lambda label, total: Bar(total)


def pairs_of(values: np.ndarray) -> list[tuple[int, int]]:
    return [(a, b) for a in range(len(values)) for b in range(a + 1, len(values))]


def soft_loss(targets: list[np.ndarray], ratios: list[np.ndarray], listwise: float) -> float:
    """The documented loss: pair by pair with label sigmoid(t_a - t_b) and logit r_a - r_b, and cross-entropy over each group."""
    total = 0.0
    for target, ratio in zip(targets, ratios, strict=True):
        pairs = pairs_of(target)
        for a, b in pairs:
            label, logit = 1 / (1 + np.exp(-(target[a] - target[b]))), ratio[a] - ratio[b]
            surprise = label * np.log1p(np.exp(-logit)) + (1 - label) * np.log1p(np.exp(logit))
            total += (1 - listwise) * surprise / len(pairs) / len(targets)
        likely = np.exp(target - target.max()) / np.exp(target - target.max()).sum()
        total -= listwise * (likely @ (ratio - np.log(np.exp(ratio).sum()))) / len(targets)
    return total
