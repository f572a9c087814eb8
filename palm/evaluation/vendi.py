"""Vendi score: how many different texts there are in effect, and how many different policies wrote them.

Texts have unit feature vectors x_i; with shares p_i that sum to 1, rho = sum p_i x_i x_i' has eigenvalues that sum to 1, and the
score is exp of their entropy: 1 where all texts are alike, n where no two have anything in common. Its non-zero eigenvalues are
those of the matrix sqrt(p_i p_j) k(i, j) of the kernel k(i, j) = x_i.x_j, which is all that is needed.

Pooling m policies equally, rho = mean of rho_j, the entropy of rho exceeds the mean entropy of the rho_j by between 0 and log m
(the quantum Jensen-Shannon divergence). Its exponential is the number of policies that write differently, in effect: 1 where all
write the same, m where no two share a word. It is biased upward on finitely many texts; `as_if_same` says by how much, by dealing
each prompt's texts to the policies anew. Policies must have written independently: samples drawn with one seed for all resemble
each other text by text, and hide differences.

Sources: D. Friedman, A. B. Dieng, "The Vendi score", TMLR 2023; A. P. Majtey, P. W. Lamberti, D. P. Prato, "Jensen-Shannon
divergence as a measure of distinguishability between mixed quantum states", Physical Review A 72 (2005).
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array


def word_kernel(texts: Sequence[str]) -> np.ndarray:
    """(n, n) cosine of the texts' words, each counted 1 + log(count) times log((1 + n) / (1 + texts with it)) + 1.

    Texts without words are alike, and like no other.
    """
    if not texts:
        raise ValueError("texts: expected at least one, got none")
    counts = [Counter(text.lower().split()) for text in texts]
    place = {word: number for number, word in enumerate(sorted({word for count in counts for word in count}))}
    rows = np.repeat(np.arange(len(texts)), [len(count) for count in counts])
    columns = np.array([place[word] for count in counts for word in count], dtype=np.int64)
    often = np.array([number for count in counts for number in count.values()], dtype=np.float64)
    within = np.bincount(columns, minlength=len(place))
    values = (1 + np.log(often)) * (np.log((1 + len(texts)) / (1 + within)) + 1)[columns]
    matrix = csr_array((values, (rows, columns)), shape=(len(texts), max(len(place), 1)))
    return _cosine(matrix @ matrix.T)


def feature_kernel(features: np.ndarray) -> np.ndarray:
    """(n, n) cosine of (n, d) features around their mean: hidden states share a large part that says nothing of the text.

    Raises:
        ValueError: the features are not finite numbers of that shape.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or not len(features) or not np.isfinite(features).all():
        raise ValueError(f"features: expected finite numbers in the shape (n, d), n at least 1, got {features!r:.80}")
    centred = features - features.mean(axis=0)
    return _cosine(csr_array(centred @ centred.T))


def _cosine(products: csr_array) -> np.ndarray:
    kernel: np.ndarray = products.toarray()
    length: np.ndarray = np.sqrt(np.maximum(kernel.diagonal(), 0.0))
    kernel /= np.where(length > 0, length, 1.0)[:, None] * np.where(length > 0, length, 1.0)[None, :]
    kernel[np.ix_(length == 0, length == 0)] = 1.0  # what has nothing in it is alike, and like nothing else
    np.fill_diagonal(kernel, 1.0)
    return kernel


def vendi(kernel: np.ndarray, share: np.ndarray | None = None) -> float:
    """The Vendi score of n texts, 1 to n. O(n^3).

    Args:
        kernel: (n, n) symmetric, positive semi-definite, 1 on the diagonal.
        share: (n,) how much each text counts, sum 1; equally by default.

    Raises:
        ValueError: the kernel is not of that kind, or the shares do not fit.
    """
    return float(np.exp(_entropy(*_checked(kernel, share))))


def different_policies(kernel: np.ndarray, policy: np.ndarray) -> float:
    """How many policies write differently, in effect: 1 to m.

    Args:
        kernel: (n, n) of all texts together.
        policy: (n,) who wrote each; policies count equally, however many texts they have.
    """
    policy = np.asarray(policy)
    owned = [np.flatnonzero(policy == one) for one in np.unique(policy).tolist()]
    share = np.empty(len(policy))
    for own in owned:
        share[own] = 1.0 / (len(owned) * len(own))
    kernel, share = _checked(kernel, share)
    apart = [_entropy(kernel[np.ix_(own, own)], np.full(len(own), 1.0 / len(own))) for own in owned]
    return float(np.exp(max(_entropy(kernel, share) - float(np.mean(apart)), 0.0)))


def as_if_same(kernel: np.ndarray, policy: np.ndarray, prompt: np.ndarray, *, draws: int = 20, seed: int = 0) -> np.ndarray:
    """(draws,) `different_policies` of texts dealt to the policies at random, within each prompt: what no difference gives."""
    rng = np.random.default_rng(seed)
    policy, prompt = np.asarray(policy), np.asarray(prompt)
    found = np.empty(draws)
    for draw in range(draws):
        dealt = policy.copy()
        for one in np.unique(prompt):
            rows = np.flatnonzero(prompt == one)
            dealt[rows] = policy[rng.permutation(rows)]
        found[draw] = different_policies(kernel, dealt)
    return found


def _checked(kernel: np.ndarray, share: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    kernel = np.asarray(kernel, dtype=np.float64)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not len(kernel) or not np.isfinite(kernel).all():
        raise ValueError(f"kernel: expected finite numbers in the shape (n, n), n at least 1, got the shape {kernel.shape}")
    if not np.allclose(kernel.diagonal(), 1.0):
        raise ValueError(f"kernel: expected 1 on the diagonal, got {kernel.diagonal().min():g} to {kernel.diagonal().max():g}")
    if not np.allclose(kernel, kernel.T):
        raise ValueError("kernel: expected a symmetric one, got another")
    share = np.full(len(kernel), 1.0 / len(kernel)) if share is None else np.asarray(share, dtype=np.float64)
    if share.shape != (len(kernel),) or not (share >= 0).all() or not np.isclose(share.sum(), 1.0):
        raise ValueError(f"share: expected {len(kernel)} numbers of at least 0 that sum to 1, got {share!r:.80}")
    return kernel, share


def _entropy(kernel: np.ndarray, share: np.ndarray) -> float:
    root = np.sqrt(share)
    eigenvalues = np.linalg.eigvalsh(kernel * root[:, None] * root[None, :])
    positive = eigenvalues[eigenvalues > 1e-14]
    positive = positive / positive.sum()
    return float(-(positive * np.log(positive)).sum())
