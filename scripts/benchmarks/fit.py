"""fit: time to fit LoRe, against the published full-batch procedure, on features that are memory-mapped float16.

The published procedure (arXiv 2504.14439, preset `joint`) is written from its description: V, W ~ N(0, 1), 1000 full-batch steps of
Adam, learning rate 0.5, no penalty, float32; each pair's features are differences in memory, multiplied by V and then weighed by
its user. Where texts repeat, the same procedure is also given the arithmetic of ours, one product per distinct text: "by texts".
A step is timed with torch (its products by NumPy's BLAS where that is faster) and as palm's preset in NumPy; the faster counts.

Two things can be compared. *The same training loss*: `ratio` is the time at which the published procedure first has the training
loss that a row ends with, over the row's time (its whole time where it never gets there). Penalised fits and Adam do not pass the
same losses at the same quality: without penalty Adam passes the loss of a penalised fit early, on its way to learning its pairs
by heart. So one row is ours with (nearly) no penalty, for as many rounds as it takes to be where the published procedure ends:
there both minimise the same thing. *The whole fit*: `whole` is the time of the 1000 published steps over the row's time. Beside
either, `held_out` is the accuracy on pairs of the same users that nothing was fitted on; for the published procedure the best along
its way is `best_held_out`. Training losses are taken with every user's most likely weight for the bases found.

Times are processor seconds, reading the features included, of a process of its own (on a machine that others use, the clock counts
these too). Where `steps_timed` is below the number of steps, a step's time is multiplied.
"""

import tempfile
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.apart import apart
from benchmarks.fit_world import read_world, write_world

from palm.features.pairs import PairFeatures
from palm.rewards import LoRe
from palm.rewards.logistic import Standardised, column_scales, log_loss
from palm.rewards.lore_published import STEPS, fit_published
from palm.rewards.simplex_users import Population, infer_weights

_FREE = 0.1  # a penalty that hardly matters for features of unit variance
_ROUNDS = (1, 2, 5, 10, 20, 40)  # of the fit without penalty: the first that gets there counts
_TIMED = 20  # steps that are timed where the rest is known


def published(folder: str, *, rank: int, steps: int, by_texts: bool, seed: int = 0) -> dict[str, Any]:
    """The published procedure with torch.

    Returns:
        seconds to read and of a step; the mean loss before every step and at the end; the held-out accuracy at the end and the
        best of 20 times on the way.
    """
    import torch

    torch.optim.Adam([torch.zeros(1, requires_grad=True)]).step()  # torch's first use is not the procedure's
    torch.set_flush_denormal(True)  # chances to be wrong of pairs known by heart; products with them take five times as long
    start = time.process_time()
    pairs, held_out = read_world(folder)
    scale = column_scales(pairs)[1]
    texts = pairs.items.rows(np.arange(len(pairs.items))) / scale.astype(np.float32) if by_texts else _differences(pairs, scale)
    items, rows = torch.from_numpy(texts), [torch.from_numpy(side) for side in (pairs.chosen_row, pairs.rejected_row)]
    code = torch.from_numpy(pairs.code.copy())
    share, divisor = 1 / torch.bincount(code)[code], 100 * np.sqrt(pairs.width / 4096)
    rng = np.random.default_rng(seed)  # draws as palm's preset does: the two can be compared step by step
    bases = torch.tensor(rng.standard_normal((pairs.width, rank)).T, dtype=torch.float32).requires_grad_()
    logits = torch.tensor(rng.standard_normal((len(pairs.ids), rank)), dtype=torch.float32).requires_grad_()
    adam = torch.optim.Adam([logits, bases], lr=0.5)
    reading, stepping = time.process_time() - start, 0.0

    product = _fastest_product(items, bases)

    def nll() -> torch.Tensor:
        scores = product(items, bases)
        if by_texts:
            scores = torch.index_select(scores, 0, rows[0]) - torch.index_select(scores, 0, rows[1])
        margin = (scores / divisor * torch.index_select(torch.softmax(logits, dim=1), 0, code)).sum(dim=1)
        return torch.nn.functional.softplus(-margin)

    def right() -> float:
        found = bases.detach().numpy().T / divisor / scale[:, None]
        return _accuracy(found, torch.softmax(logits.detach(), dim=1).numpy(), held_out)

    losses, best = [], 0.0
    for step in range(steps):
        start = time.process_time()
        loss = nll()
        losses.append(float(loss.detach().mean()))
        adam.zero_grad()
        (share * loss).sum().backward()  # type: ignore[no-untyped-call]
        adam.step()
        stepping += time.process_time() - start
        if (step + 1) % max(1, steps // 20) == 0:
            best = max(best, right())
    with torch.no_grad():
        losses.append(float(nll().mean()))
    return {"reading": reading, "step": stepping / steps, "losses": losses, "held_out": right(), "best_held_out": best}


def _fastest_product(items: Any, bases: Any) -> Any:
    """torch's linear layer, or the same by NumPy's BLAS where that is faster, as it is on some processors."""
    import torch

    class ByNumPy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, items: torch.Tensor, bases: torch.Tensor) -> torch.Tensor:
            ctx.items = items.numpy()
            return torch.from_numpy(ctx.items @ bases.detach().numpy().T)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, torch.Tensor]:  # type: ignore[override]
            return None, torch.from_numpy(np.ascontiguousarray(grad.numpy().T) @ ctx.items)

    def seconds(product: Any) -> float:
        copy = bases.detach().clone().requires_grad_()
        start = time.process_time()
        product(items, copy).sum().backward()
        return time.process_time() - start

    return min((torch.nn.functional.linear, ByNumPy.apply), key=lambda product: min(seconds(product) for _ in range(2)))


def published_numpy(folder: str, *, rank: int, steps: int) -> dict[str, Any]:
    """Seconds of a step of palm's preset, in NumPy."""
    pairs, _ = read_world(folder)
    data = Standardised.of(pairs)
    start = time.process_time()
    fit_published(data, rank, "joint", np.ones(pairs.width), steps=steps)
    return {"step": (time.process_time() - start) / steps}


def ours(folder: str, options: dict[str, Any], *, free: bool = False, users: int | None = None) -> dict[str, Any]:
    """Our fit with some options: its seconds, pairs, training loss, held-out accuracy and penalties.

    Args:
        folder: of the world.
        options: of LoRe.
        free: the problem is that of the published procedure, without a prior, so most likely weights are part of the fit.
        users: how many of them; all unless given.
    """
    start = time.process_time()
    pairs, held_out = read_world(folder, users)
    model = LoRe(**options).fit(pairs)
    taken = time.process_time() - start
    scores = model.pair_scores(pairs)
    likely = infer_weights(scores, pairs.code, len(pairs.ids), Population.flat(scores.shape[1], 1e-3))[0]
    return {
        "pairs": len(pairs),
        "seconds": time.process_time() - start if free else taken,
        "train_loss": float(log_loss(np.einsum("nk,nk->n", scores, likely[pairs.code])).mean()),
        "held_out": _accuracy(model.directions, likely if free else model.users.mean, held_out),
        "penalties": [model.details["penalty"], model.details["personal_penalty"]],
    }


@dataclass(frozen=True)
class Opponent:
    """The published procedure with one arithmetic: seconds to read and of a step, and the loss before each step and at the end."""

    reading: float
    step: float
    losses: np.ndarray

    @property
    def whole(self) -> float:
        """Seconds of all steps."""
        return self.reading + self.step * (len(self.losses) - 1)

    def until(self, loss: float) -> float:
        """Seconds until a training loss is first reached; all if it never is."""
        reached = self.losses <= loss
        return self.reading + self.step * int(reached.argmax()) if reached.any() else self.whole


def bench_fit(
    *, users: int, pairs: int, width: int, rank: int, texts: int, worlds: list[str], steps: int = STEPS["joint"]
) -> list[dict[str, Any]]:
    """Rows for pairs that have texts of their own ("own") and for pairs of a few texts ("repeated")."""
    rows = []
    for world in worlds:
        name, count = ("own texts", None) if world == "own" else (f"{texts} texts", texts)
        with tempfile.TemporaryDirectory() as folder:
            size = {"users": users, "pairs": pairs, "width": width, "rank": rank}
            oracle = apart(write_world, folder, **size, texts=count)["oracle"]
            theirs, opponents = _published_rows(folder, rank, steps, repeats=count is not None)
            for row in theirs + _our_rows(folder, rank, users, opponents):
                short = {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in row.items()}
                rows.append({"world": name, **short, "oracle": round(oracle, 3)})
    return rows


def _published_rows(folder: str, rank: int, steps: int, *, repeats: bool) -> tuple[list[dict[str, Any]], list[Opponent]]:
    """Rows and times of the published procedure, pair by pair and, where texts repeat, by texts; the latter is run to the end."""
    run = apart(published, folder, rank=rank, steps=steps, by_texts=repeats)
    preset = apart(published_numpy, folder, rank=rank, steps=min(steps, _TIMED))
    fast = Opponent(run["reading"], min(run["step"], preset["step"]), np.array(run["losses"]))
    runs = [("published, by texts" if repeats else "published", fast, run)]
    if repeats:
        timed = apart(published, folder, rank=rank, steps=min(steps, _TIMED), by_texts=False)
        runs.insert(0, ("published", Opponent(timed["reading"], timed["step"], fast.losses), timed))
    rows = []
    for way, opponent, timed in runs:
        rows.append(
            {
                "way": way,
                "pairs": len(read_world(folder)[0]),
                "seconds": opponent.whole,
                "train_loss": float(opponent.losses.min()),
                "held_out": run["held_out"],
                "best_held_out": run["best_held_out"],
                "steps_timed": len(timed["losses"]) - 1,
                "peak_gib": timed["peak_gib"],
            }
        )
    return rows, [opponent for _, opponent, _ in runs]


def _our_rows(folder: str, rank: int, users: int, opponents: list[Opponent]) -> list[dict[str, Any]]:
    target = opponents[0].losses.min()
    for rounds in _ROUNDS:
        options = {"rank": rank, "penalty": _FREE, "personal_penalty": _FREE, "restarts": 0, "rounds": rounds}
        free = apart(ours, folder, options, free=True)
        if free["train_loss"] <= target:
            break
    chosen = apart(ours, folder, {"rank": rank})
    penalty, personal = chosen["penalties"]
    given = {"rank": rank, "penalty": penalty, "personal_penalty": np.inf if personal is None else personal}
    found = [("ours, no penalty", free), ("ours, penalties cross-validated", chosen)]
    found += [("ours, penalties given", apart(ours, folder, given, users=part)) for part in (users, users // 2, users // 4)]
    rows = []
    for way, run in found:
        row = {"way": way, **{name: run[name] for name in ("pairs", "seconds", "train_loss", "held_out", "peak_gib")}}
        row["us_per_pair"] = 1e6 * run["seconds"] / run["pairs"]
        if run["pairs"] == chosen["pairs"]:  # opponents were fitted on all users
            for suffix, opponent in zip(("", "_by_texts"), opponents, strict=False):
                row[f"ratio{suffix}"] = opponent.until(run["train_loss"]) / run["seconds"]
                row[f"whole{suffix}"] = opponent.whole / run["seconds"]
        rows.append(row)
    return rows


def _differences(pairs: PairFeatures, scale: np.ndarray) -> np.ndarray:
    """(n, d) float32 chosen minus rejected, as the published procedure holds them."""
    found, factor = np.empty((len(pairs), pairs.width), dtype=np.float32), (1 / scale).astype(np.float32)
    for start in range(0, len(pairs), 256):
        part = slice(start, start + 256)
        found[part] = (pairs.items.rows(pairs.chosen_row[part]) - pairs.items.rows(pairs.rejected_row[part])) * factor
    return found


def _accuracy(directions: np.ndarray, weights: np.ndarray, held_out: PairFeatures) -> float:
    margin = np.einsum("nk,nk->n", held_out.difference(held_out.items.project(directions)), weights[held_out.code])
    return float(((margin > 0) + 0.5 * (margin == 0)).mean())
