"""How different a portfolio's policies are: in what they write, and in whom they serve."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from palm.portfolio.portfolio import Portfolio
from palm.simplex import sample_simplex


@dataclass(frozen=True)
class Diversity:
    """Diversity of a portfolio.

    Attributes:
        distinct: by policy, the share of different n-grams among all n-grams, for n = 1 and 2.
        self_bleu: by policy, the mean BLEU-4 of a response against the policy's others, 0 (all different) to 1.
        between_bleu: mean BLEU-4 of a policy's responses against the other policies'; low where policies differ.
        serving_perplexity: exp of the entropy of which member serves best, over weights uniform on the simplex: how many
            members are used, in effect. The reference counts as a member.
        serving_share: (m + 1,) share of those weights that each member serves best; the reference last.
        user_perplexity, user_share: the same over the users' weights, if there are any.
    """

    distinct: dict[str, tuple[float, float]]
    self_bleu: dict[str, float]
    between_bleu: float
    serving_perplexity: float
    serving_share: np.ndarray
    user_perplexity: float | None
    user_share: np.ndarray | None

    def record(self) -> dict[str, object]:
        """JSON form."""
        return {
            "distinct": {name: list(values) for name, values in self.distinct.items()},
            "self_bleu": self.self_bleu,
            "between_bleu": self.between_bleu,
            "serving_perplexity": self.serving_perplexity,
            "serving_share": self.serving_share.tolist(),
            "user_perplexity": self.user_perplexity,
            "user_share": None if self.user_share is None else self.user_share.tolist(),
        }


def diversity(
    portfolio: Portfolio,
    responses: Mapping[str, Sequence[str]],
    *,
    users: np.ndarray | None = None,
    weights: int = 20_000,
    most: int = 200,
    seed: int = 0,
) -> Diversity:
    """Measure a portfolio's diversity.

    Args:
        portfolio: planned or measured.
        responses: by policy, texts that it wrote; may be empty.
        users: (U, K) weights of actual users.
        weights: how many weights to draw from the simplex.
        most: responses per policy that BLEU looks at (its cost is quadratic); the first ones.
        seed: of the weights.
    """
    drawn = sample_simplex(weights, len(portfolio.reference), np.random.default_rng(seed))
    share = _share(portfolio, drawn)
    user_share = _share(portfolio, users) if users is not None and len(users) else None
    tokens = {name: [text.split() for text in texts[:most]] for name, texts in responses.items()}
    between = []
    for name, own in tokens.items():
        others = [text for other, texts in tokens.items() if other != name for text in texts]
        if own and others:
            references = References(others)
            between += [references.bleu(text) for text in own[:50]]
    return Diversity(
        distinct={name: (distinct_n(texts, 1), distinct_n(texts, 2)) for name, texts in responses.items()},
        self_bleu={name: self_bleu(texts) for name, texts in tokens.items()},
        between_bleu=float(np.mean(between)) if between else 0.0,
        serving_perplexity=perplexity(share),
        serving_share=share,
        user_perplexity=None if user_share is None else perplexity(user_share),
        user_share=user_share,
    )


def perplexity(share: np.ndarray) -> float:
    """exp of the entropy of (m,) shares that sum to 1: from 1 (one has all) to m (all have equally much)."""
    positive = share[share > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Number of different n-grams of words over the number of n-grams; 0 if there are none.

    Source: J. Li et al., "A diversity-promoting objective function for neural conversation models", NAACL 2016.
    """
    grams = [gram for text in texts for gram in _grams(text.split(), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """Mean BLEU-4 of each text against all others; 0 for fewer than two texts.

    Source: Y. Zhu et al., "Texygen: a benchmarking platform for text generation models", SIGIR 2018.
    """
    if len(texts) < 2:
        return 0.0
    references = References(texts)
    return float(np.mean([references.bleu(text, without=place) for place, text in enumerate(texts)]))


def bleu(text: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of one text; see `References.bleu`."""
    return References(references).bleu(text)


class References:
    """Texts that others are compared with; counted once, O(words), then a comparison costs as much as its own text.

    For every n-gram its two largest counts in a text are kept, and where the largest is: so any one text can be left out.
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        """Count the texts' n-grams up to n = 4."""
        self._lengths = np.array([len(text) for text in texts], dtype=np.int64)
        self._largest: dict[tuple[str, ...], tuple[int, int, int]] = {}  # count, text that has it, largest of the others
        for place, text in enumerate(texts):
            for n in range(1, 5):
                for gram, count in Counter(_grams(text, n)).items():
                    most, holder, second = self._largest.get(gram, (0, -1, 0))
                    if count > most:
                        self._largest[gram] = count, place, most
                    elif count > second:
                        self._largest[gram] = most, holder, count

    def bleu(self, text: Sequence[str], *, without: int | None = None) -> float:
        """BLEU-4 with uniform weights, add-one smoothing above unigrams, and brevity penalty: 0 to 1.

        Args:
            text: words.
            without: place of a text to leave out.

        Sources: K. Papineni et al., "BLEU", ACL 2002; smoothing: C.-Y. Lin, F. Och, "ORANGE", COLING 2004.
        """
        lengths = self._lengths if without is None else np.delete(self._lengths, without)
        if not text or len(lengths) == 0:
            return 0.0
        total = 0.0
        for n in range(1, 5):
            matched = 0
            for gram, count in Counter(_grams(text, n)).items():
                most, holder, second = self._largest.get(gram, (0, -1, 0))
                matched += min(count, second if holder == without else most)
            smooth = int(n > 1)
            if matched + smooth == 0:
                return 0.0
            total += math.log((matched + smooth) / (max(len(text) - n + 1, 0) + smooth)) / 4
        closest = lengths[np.lexsort((lengths, np.abs(lengths - len(text))))[0]]
        return math.exp(total + min(0.0, 1.0 - float(closest) / len(text)))


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def _share(portfolio: Portfolio, weights: np.ndarray) -> np.ndarray:
    best = portfolio.utilities(weights).argmax(axis=1)
    return np.bincount(best, minlength=len(portfolio) + 1) / len(best)
