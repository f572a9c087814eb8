"""How different policies' texts are, within each policy and between them, with intervals over prompts.

Distinct-n falls, and the Vendi score rises, with the number of texts, so policies are compared on equally many responses to the
same prompts. Intervals leave one group of prompts out after the other (`jackknife`), all of one size for the same reason: a
bootstrap would repeat texts and take repetition for sameness. Policies must have written independently of each other, not with one
seed for all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from palm.evaluation.diversity import References, distinct_n, self_bleu
from palm.evaluation.intervals import Estimate, check_level, jackknife
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
        bleu: mean BLEU-4 of a policy's text, of its first 30, against all of the other policies'; low where policies differ.
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
        responses: by policy, P prompts' responses. Of each prompt as many of every policy's are looked at as all have.
        kernel: how alike texts are; by default by their words (TF-IDF).
        most: texts of each policy to look at, at least one prompt's: the first prompts. BLEU is quadratic, the score cubic in them.
        groups: of prompts that are left out in turn, at most. Where no number from half of it divides the prompts, the last few
            are not looked at.
        level: of the intervals.
        seed: of dealing texts at random.

    Raises:
        ValueError: there are no policies, they answer different numbers of prompts, or no prompt has a text of every policy.
    """
    answered = {name: len(rows) for name, rows in responses.items()}
    if not answered or len(set(answered.values())) != 1 or not min(answered.values()):
        raise ValueError(f"responses: expected equally many prompts of every policy, at least one, got {answered}")
    for name, value, least in (("most", most, 1), ("groups", groups, 2)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    check_level(level)
    counts = _common(responses, most)
    if not counts.any():
        raise ValueError(f"responses: expected a prompt that every policy answered, found none of {len(counts)}")
    parts = _parts(np.flatnonzero(counts), groups)
    looked_at = parts.ravel().tolist()
    everything = [text for rows in responses.values() for number in looked_at for text in rows[number][: counts[number]]]
    prompt = np.tile(np.repeat(looked_at, counts[looked_at]), len(responses))
    policy = np.repeat(np.arange(len(responses)), counts[looked_at].sum())
    similar = kernel(everything)
    without = [~np.isin(prompt, part) for part in parts]
    words = [text.split() for text in everything]

    def estimate(statistic: Callable[[np.ndarray], float], of: np.ndarray, least: float, greatest: float) -> Estimate:
        left = [np.flatnonzero(keep & of) for keep in without]
        found = [statistic(rows) for rows in left] if min(map(len, left)) > 1 else []  # a single text says nothing of variety
        return jackknife(statistic(np.flatnonzero(of)), np.array(found), parts.size, level=level, least=least, most=greatest)

    rows = []
    for number, name in enumerate(responses):
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
    if len(responses) < 2:
        return WritingFound(tuple(rows), None)
    everyone = np.ones(len(policy), dtype=bool)
    same = as_if_same(similar, policy, prompt, seed=seed)
    between = Between(
        estimate(lambda at: vendi(similar[np.ix_(at, at)]), everyone, 1, float(len(policy))),
        estimate(lambda at: different_policies(similar[np.ix_(at, at)], policy[at]), everyone, 1, float(len(responses))),
        float(same.mean()),
        float(same.max()),
        estimate(lambda at: _between_bleu([words[row] for row in at], policy[at]), everyone, 0, 1),
    )
    return WritingFound(tuple(rows), between)


def _common(responses: Mapping[str, Sequence[Sequence[str]]], most: int) -> np.ndarray:
    """(P,) how many of each prompt's texts to look at: what all policies have, of the first prompts that `most` allows."""
    counts = np.array([[len(row) for row in rows] for rows in responses.values()]).min(axis=0)
    first = counts[counts > 0][:1].sum()  # looked at, however many they are
    counts[counts.cumsum() > max(most, first)] = 0
    return counts


def _parts(prompts: np.ndarray, groups: int) -> np.ndarray:
    """(g, size) prompts in equal groups, at most `groups`, and as many as leave the fewest prompts out."""
    numbers = range(min(groups, len(prompts)), groups // 2, -1) or [len(prompts)]
    count = min(numbers, key=lambda number: len(prompts) % number)
    return prompts[: len(prompts) - len(prompts) % count].reshape(count, -1)


def _between_bleu(words: Sequence[list[str]], policy: np.ndarray, *, of_each: int = 30) -> float:
    found = []
    for one in np.unique(policy):
        others = References([words[row] for row in np.flatnonzero(policy != one).tolist()])
        found += [others.bleu(words[row]) for row in np.flatnonzero(policy == one)[:of_each].tolist()]
    return float(np.mean(found))
