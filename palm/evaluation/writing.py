"""How different policies' texts are, within each policy and between them, with intervals over prompts.

Every number is of the texts that were given: distinct-n falls, and the Vendi score rises, with the number of texts, so policies are
to be compared on equally many. Intervals leave one group of prompts out after the other (`jackknife`): a bootstrap would repeat
texts and take repetition for sameness. Policies must have written independently of each other, not with one seed for all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from palm.evaluation.diversity import References, distinct_n, self_bleu
from palm.evaluation.intervals import Estimate, jackknife
from palm.evaluation.vendi import as_if_same, different_policies, vendi, word_kernel

Kernel = Callable[[Sequence[str]], np.ndarray]
"""Takes n texts, gives (n, n) similarities: symmetric, positive semi-definite, 1 on the diagonal."""


@dataclass(frozen=True)
class PolicyTexts:
    """One policy's texts.

    Attributes:
        policy: its id.
        texts: how many were looked at.
        distinct_1, distinct_2: share of different words, and of different pairs of words, among all.
        self_bleu: mean BLEU-4 of a text against the policy's others; high where it repeats itself.
        vendi: number of different texts, in effect.
    """

    policy: str
    texts: int
    distinct_1: Estimate
    distinct_2: Estimate
    self_bleu: Estimate
    vendi: Estimate

    def record(self) -> dict[str, object]:
        """JSON form, and a row of a table."""
        names = ("distinct_1", "distinct_2", "self_bleu", "vendi")
        return {"policy": self.policy, "texts": self.texts} | {name: getattr(self, name).record() for name in names}


@dataclass(frozen=True)
class Between:
    """The policies' texts against each other.

    Attributes:
        vendi: of all texts together, policies counted equally.
        policies: how many of them write differently, in effect: 1 to m.
        if_same: mean of that number if the same texts had been dealt to the policies at random; what is above it is real.
        if_same_most: its largest in the draws.
        bleu: mean BLEU-4 of a policy's text against the other policies'; low where policies differ.
    """

    vendi: Estimate
    policies: Estimate
    if_same: float
    if_same_most: float
    bleu: Estimate

    def record(self) -> dict[str, object]:
        """JSON form, and a row of a table."""
        estimates = {name: getattr(self, name).record() for name in ("vendi", "policies", "bleu")}
        return {**estimates, "if_same": self.if_same, "if_same_most": self.if_same_most}


@dataclass(frozen=True)
class WritingFound:
    """What `writing` found: a row for each policy, and all of them against each other (None for fewer than two)."""

    policies: tuple[PolicyTexts, ...]
    between: Between | None

    def record(self) -> dict[str, object]:
        """JSON form."""
        between = None if self.between is None else self.between.record()
        return {"policies": [row.record() for row in self.policies], "between": between}


def writing(
    responses: Mapping[str, Sequence[Sequence[str]]],
    *,
    kernel: Kernel = word_kernel,
    most: int = 120,
    groups: int = 12,
    level: float = 0.95,
    seed: int = 0,
) -> WritingFound:
    """Measure what policies wrote to the same prompts.

    Args:
        responses: by policy, P prompts' responses.
        kernel: how alike texts are; by default by their words (TF-IDF).
        most: texts of each policy to look at, at least one prompt's: the first prompts. BLEU is quadratic, the score cubic in them.
        groups: of prompts that are left out in turn.
        level: of the intervals.
        seed: of dealing texts at random.

    Raises:
        ValueError: there are no policies, they answer different numbers of prompts, or one wrote nothing.
    """
    counts = {name: len(rows) for name, rows in responses.items()}
    if not counts or len(set(counts.values())) != 1 or not min(counts.values()):
        raise ValueError(f"responses: expected equally many prompts of every policy, at least one, got {counts}")
    for name, value, least in (("most", most, 1), ("groups", groups, 2)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    kept = {name: _first(rows, most) for name, rows in responses.items()}
    for name, (texts, _) in kept.items():
        if not texts:
            raise ValueError(f"responses: expected texts of every policy, policy {name!r} has none")
    everything = [text for texts, _ in kept.values() for text in texts]
    prompt = np.concatenate([rows for _, rows in kept.values()])
    policy = np.repeat(np.arange(len(kept)), [len(texts) for texts, _ in kept.values()])
    similar = kernel(everything)
    prompts = np.unique(prompt)
    without = [~np.isin(prompt, part) for part in np.array_split(prompts, min(groups, len(prompts)))] if len(prompts) > 1 else []
    words = [text.split() for text in everything]

    def estimate(statistic: Callable[[np.ndarray], float], of: np.ndarray, least: float, greatest: float) -> Estimate:
        left = [statistic(rows) for keep in without if len(rows := np.flatnonzero(keep & of))]
        return jackknife(statistic(np.flatnonzero(of)), np.array(left), len(prompts), level=level, least=least, most=greatest)

    rows = []
    for number, name in enumerate(kept):
        own = policy == number
        rows.append(
            PolicyTexts(
                policy=name,
                texts=int(own.sum()),
                distinct_1=estimate(lambda at: distinct_n([everything[row] for row in at], 1), own, 0, 1),
                distinct_2=estimate(lambda at: distinct_n([everything[row] for row in at], 2), own, 0, 1),
                self_bleu=estimate(lambda at: self_bleu([words[row] for row in at]), own, 0, 1),
                vendi=estimate(lambda at: vendi(similar[np.ix_(at, at)]), own, 1, float(own.sum())),
            )
        )
    if len(kept) < 2:
        return WritingFound(tuple(rows), None)
    everyone = np.ones(len(policy), dtype=bool)
    same = as_if_same(similar, policy, prompt, seed=seed)
    between = Between(
        estimate(lambda at: vendi(similar[np.ix_(at, at)], _equal(policy[at])), everyone, 1, float(len(policy))),
        estimate(lambda at: different_policies(similar[np.ix_(at, at)], policy[at]), everyone, 1, float(len(kept))),
        float(same.mean()),
        float(same.max()),
        estimate(lambda at: _between_bleu([words[row] for row in at], policy[at]), everyone, 0, 1),
    )
    return WritingFound(tuple(rows), between)


def _first(rows: Sequence[Sequence[str]], most: int) -> tuple[list[str], np.ndarray]:
    """The texts of the first prompts, as many whole prompts as `most` allows, and each text's prompt."""
    texts: list[str] = []
    prompt: list[int] = []
    for number, row in enumerate(rows):
        if texts and len(texts) + len(row) > most:
            break
        texts += row
        prompt += [number] * len(row)
    return texts, np.array(prompt, dtype=np.int64)


def _equal(policy: np.ndarray) -> np.ndarray:
    """Shares of texts with which all policies count equally."""
    counts = np.bincount(policy)
    return np.asarray(1.0 / (counts[policy] * (counts > 0).sum()))


def _between_bleu(words: Sequence[list[str]], policy: np.ndarray, *, of_each: int = 30) -> float:
    found = []
    for one in np.unique(policy):
        others = References([words[row] for row in np.flatnonzero(policy != one).tolist()])
        found += [others.bleu(words[row]) for row in np.flatnonzero(policy == one)[:of_each].tolist()]
    return float(np.mean(found))
