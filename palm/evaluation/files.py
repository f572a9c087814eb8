"""Policies' samples from plain files: JSON lines that any tool writes, instead of a run's folder.

One file a policy, one line a prompt:

    {"prompt": "...", "responses": ["...", "..."], "rewards": [[0.2, 0.9], [0.4, 0.7]], "kl": [3.1, 2.8]}

`rewards` are K calibrated basis rewards of each response, `kl` is each response's estimate of the KL divergence from the reference
in nats (its log-ratio log pi(y|x) - log pi_ref(y|x) is one); both are wanted for coverage, neither for texts alone. The reference's
file has its candidates and no `kl`. Prompts are the same, in the same order, in every file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palm.artifacts import ArtifactError
from palm.data.schema import Text
from palm.portfolio.on_prompts import OnPrompts
from palm.rewards.tensor import RewardTensor, reward_tensor
from palm.simplex import check_weights

_ROUNDING = 1e-6
_ADJUSTED = 0.5  # how far an estimate of a mean reward, adjusted by a control variate, may lie outside the rewards' range


@dataclass(frozen=True)
class Samples:
    """What one policy wrote.

    Attributes:
        prompts: P prompts.
        responses: each prompt's responses, at least one.
        rewards: (P, N, K) of them with a mask, or None if the file has none.
        kl: (P,) mean of the responses' KL estimates, or None.
    """

    prompts: list[Text]
    responses: list[list[Text]]
    rewards: RewardTensor | None
    kl: np.ndarray | None


def read_samples(path: Path) -> Samples:
    """Read one policy's file.

    Raises:
        ArtifactError: it is missing or empty, or a line is not what is expected; the message names file and line.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: expected JSON lines: {error}") from error
    if not lines:
        raise ArtifactError(f"{path}: expected a line for every prompt, got an empty file")
    prompts: list[Text] = []
    responses: list[list[Text]] = []
    rewards: list[np.ndarray] = []
    kl: list[float] = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ArtifactError(f"{where}: not complete JSON: {error}") from error
        if not isinstance(row, dict) or not {"prompt", "responses"} <= set(row) or not isinstance(row["responses"], list):
            raise ArtifactError(f"{where}: expected the keys prompt and responses (a list), got {line:.60}")
        if not row["responses"]:
            raise ArtifactError(f"{where}: responses: expected at least one, got none")
        for text in (row["prompt"], *row["responses"]):
            if not isinstance(text, str | list) or not all(isinstance(part, str | dict) for part in text):
                raise ArtifactError(f"{where}: expected prompt and responses as text or messages, got {text!r:.60}")
        prompts.append(row["prompt"])
        responses.append(row["responses"])
        if "rewards" in row:
            rewards.append(_numbers(row["rewards"], (len(row["responses"]), None), "rewards", where))
        if "kl" in row:
            kl.append(float(_numbers(row["kl"], (len(row["responses"]),), "kl", where).mean()))
    for name, found in (("rewards", rewards), ("kl", kl)):
        if found and len(found) != len(lines):
            raise ArtifactError(f"{path}: {name}: expected on every line or on none, got on {len(found)} of {len(lines)}")
    if len({values.shape[1] for values in rewards}) > 1:
        raise ArtifactError(f"{path}: rewards: expected equally many bases on every line, got others")
    tensor = reward_tensor(np.vstack(rewards), [len(row) for row in responses]) if rewards else None
    return Samples(prompts, responses, tensor, np.array(kl) if kl else None)


def _numbers(value: object, shape: tuple[int | None, ...], name: str, where: str) -> np.ndarray:
    try:
        array = np.array(value)
        array = array.astype(np.float64) if array.dtype.kind in "iuf" else np.zeros(0)
    except (TypeError, ValueError):
        array = np.zeros(0)
    fits = array.ndim == len(shape) and all(want is None or want == have for want, have in zip(shape, array.shape, strict=True))
    if not fits or not array.size or not np.isfinite(array).all():
        wanted = " x ".join("K" if size is None else str(size) for size in shape)
        raise ArtifactError(f"{where}: {name}: expected {wanted} finite numbers, got {value!r:.60}")
    return array


def check_same_prompts(samples: Mapping[str, Samples]) -> None:
    """See that all files answer the same prompts.

    Raises:
        ValueError: one does not; the message names it.
    """
    first = next(iter(samples))
    for name, found in samples.items():
        if found.prompts != samples[first].prompts:
            raise ValueError(f"{name}: expected the same prompts in the same order as in {first}, got others")


def prompts_of(reference: Samples, policies: Mapping[str, Samples], *, kl: float) -> OnPrompts:
    """Reference and policies, prompt by prompt, for `palm.evaluation.gaps`.

    Raises:
        ValueError: prompts or numbers of bases differ, a file lacks rewards or has some that are not from 0 to 1, a policy's file
            lacks KL or has one that is clearly below 0, or kl is not positive.
    """
    if not 0 < kl < np.inf:
        raise ValueError(f"kl: expected a positive number, got {kl}")
    check_same_prompts({"reference": reference, **policies})
    if reference.rewards is None:
        raise ValueError("reference: expected rewards of its responses, got none")
    _check_scale("reference", reference.rewards, _ROUNDING)
    bases = reference.rewards.rewards.shape[2]
    value, cost = np.empty((len(policies), len(reference.prompts), bases)), np.empty((len(policies), len(reference.prompts)))
    for number, (name, samples) in enumerate(policies.items()):
        if samples.rewards is None or samples.kl is None:
            raise ValueError(f"{name}: expected rewards and kl on every line, got {'no kl' if samples.rewards else 'no rewards'}")
        if samples.rewards.rewards.shape[2] != bases:
            raise ValueError(f"{name}: expected {bases} rewards as of the reference, got {samples.rewards.rewards.shape[2]}")
        _check_scale(name, samples.rewards, _ADJUSTED)
        error = samples.kl.std(ddof=1) / np.sqrt(len(samples.kl)) if len(samples.kl) > 1 else 0.0
        if samples.kl.mean() < min(-4 * error, -1e-6):
            raise ValueError(
                f"{name}: kl: expected estimates of a KL divergence, log pi - log pi_ref of the policy's own text, with a mean of "
                f"at least 0, got {samples.kl.mean():.3g}; is the sign turned?"
            )
        value[number] = samples.rewards.rewards.sum(axis=1) / samples.rewards.mask.sum(axis=1)[:, None]
        cost[number] = kl * samples.kl
    return OnPrompts(reference.rewards.rewards, reference.rewards.mask, kl, value, cost)


def _check_scale(name: str, rewards: RewardTensor, room: float) -> None:
    found = rewards.rewards[rewards.mask]
    if not -room <= found.min() <= found.max() <= 1 + room:
        raise ValueError(
            f"{name}: rewards: expected numbers from 0 to 1, on one scale in all files, got {found.min():.4g} to "
            f"{found.max():.4g}: a gap is a share of what is served, which depends on where 0 is"
        )


def read_users(path: Path, bases: int) -> np.ndarray:
    """(U, K) users' weights from JSON lines, each a list of K numbers or {"user": ..., "weight": [...]}.

    Raises:
        ArtifactError: the file is missing or not that.
        ValueError: a weight is not on the simplex.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        weights = [row["weight"] if isinstance(row, dict) else row for row in rows]
        if not weights:
            raise ValueError("got an empty file")
        array = np.array(weights)
        if array.dtype.kind not in "iuf":
            raise ValueError(f"got {weights[0]!r:.60}")
        array = array.astype(np.float64)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: expected a user's weight on every line, such as [0.2, 0.8]: {error}") from error
    return check_weights(array, bases=bases, name=str(path))
