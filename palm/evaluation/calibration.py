"""Whether stated chances and regions hold: of judgements, and of users' weights."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, norm

from palm.evaluation.accuracy import Accuracy
from palm.evaluation.intervals import Estimate, bootstrap_mean
from palm.features.pairs import PairFeatures
from palm.rewards.base import RewardModel
from palm.rewards.users import UserWeights
from palm.simplex import tangent_basis


@dataclass(frozen=True)
class Reliability:
    """Stated against observed chances of judgements.

    Attributes:
        stated: (B,) mean chance, 0.5 to 1, that the model gave to the side it thought likelier.
        observed: (B,) how often that side was chosen.
        count: (B,) pairs in the bin.
        error: expected calibration error, the mean over pairs of |stated - observed| of their bin.
    """

    stated: np.ndarray
    observed: np.ndarray
    count: np.ndarray
    error: float

    def record(self) -> dict[str, object]:
        """JSON form."""
        return {
            "stated": self.stated.tolist(),
            "observed": self.observed.tolist(),
            "count": self.count.tolist(),
            "error": self.error,
        }


def reliability(model: RewardModel, pairs: PairFeatures, users: UserWeights, *, bins: int = 10) -> Reliability:
    """Sort held-out pairs by the chance that the model gave to its own guess, into bins of equal size.

    Args:
        model: fitted on other pairs.
        pairs: held out.
        users: their users' weights, inferred from other pairs.
        bins: at least 1; fewer where there are fewer pairs.

    Raises:
        ValueError: there are no pairs, or `bins` is out of range.
    """
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    if len(pairs) == 0:
        raise ValueError("pairs: expected at least one held-out pair, got none")
    margin = model.margin(pairs, users)
    chance = 0.5 * (1.0 + np.tanh(0.5 * np.abs(margin)))
    right = (margin > 0) + 0.5 * (margin == 0)
    order = np.argsort(chance, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    stated, observed = np.array([chance[part].mean() for part in parts]), np.array([right[part].mean() for part in parts])
    count = np.array([len(part) for part in parts])
    return Reliability(stated, observed, count, float(count @ np.abs(stated - observed) / count.sum()))


def accuracy_by_uncertainty(found: Accuracy, users: UserWeights, *, parts: int = 3, seed: int = 0) -> tuple[Estimate, ...]:
    """Accuracy of the users whose weights are known best, less, and least: the posterior's total variance decides.

    Args:
        found: of held-out pairs.
        users: the posteriors that it was measured with.
        parts: of about equal size, at least 1; fewer where there are fewer users.
        seed: of the bootstrap.

    Returns:
        accuracies of the parts, best known first.

    Raises:
        ValueError: `parts` is out of range, or a user has no weight.
    """
    if parts < 1:
        raise ValueError(f"parts: expected at least 1, got {parts}")
    variance = np.trace(users.select(found.ids).covariance, axis1=1, axis2=2)
    order = np.argsort(variance, kind="stable")
    return tuple(bootstrap_mean(found.per_user[part], seed=seed) for part in np.array_split(order, min(parts, len(order))))


def region_coverage(users: UserWeights, truth: np.ndarray, *, level: float = 0.9) -> float:
    """Share of users whose true weight lies in their posterior's region of that level (an ellipse on the simplex's plane).

    Args:
        users: posteriors of geometry "simplex".
        truth: (U, K) true weights, in the same order, over the same bases.
        level: of the regions; a calibrated posterior covers as many.

    Raises:
        ValueError: the shapes differ, or `level` is out of range.
    """
    if np.shape(truth) != users.mean.shape:
        raise ValueError(f"truth: expected the shape {users.mean.shape} of the users' weights, got {np.shape(truth)}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    bases = users.mean.shape[1]
    if bases == 1 or len(users) == 0:
        return 1.0
    tangent = tangent_basis(bases)
    away = (truth - users.mean) @ tangent
    reduced = tangent.T @ users.covariance @ tangent
    distance = np.einsum("uk,uk->u", away, np.linalg.solve(reduced + 1e-12 * np.eye(bases - 1), away[:, :, None])[:, :, 0])
    return float((distance <= chi2.ppf(level, bases - 1)).mean())


def logit_coverage(scores: np.ndarray, users: UserWeights, code: np.ndarray, truth: np.ndarray, *, level: float = 0.9) -> float:
    """Share of pairs whose true logit lies in the interval that the user's posterior gives it.

    Where bases are learned, users' true weights on them are not defined; the logits that they lead to are. What is unsure of the
    bases is not in the interval.

    Args:
        scores: (n, K) of pairs, in logits per unit of weight.
        users: posteriors of U users.
        code: (n,) place of each pair's user among them.
        truth: (n,) true logits.
        level: of the interval.

    Raises:
        ValueError: there are no pairs, or `level` is out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    if len(scores) == 0:
        raise ValueError("scores: expected at least one pair, got none")
    centre = np.einsum("nk,nk->n", scores, users.mean[code])
    variance = np.einsum("nk,nkl,nl->n", scores, users.covariance[code], scores, optimize=True)
    return float((np.abs(truth - centre) <= norm.ppf(0.5 + level / 2) * np.sqrt(variance)).mean())


def basis_angles(first: np.ndarray, second: np.ndarray, features: np.ndarray | None = None) -> np.ndarray:
    """Principal angles between what two fits' bases span, in degrees, the largest first.

    Args:
        first, second: (d, K) and (d, L) directions.
        features: (t, d); angles are then between the rewards of these texts and not between directions. Rewards are what counts:
            directions that no text moves along may differ freely.

    Raises:
        ValueError: the widths differ.
    """
    from scipy.linalg import subspace_angles

    if first.shape[0] != second.shape[0]:
        raise ValueError(f"first, second: expected directions of equal width, got {first.shape} and {second.shape}")
    if features is not None:
        centred = features - features.mean(axis=0)
        first, second = centred @ first, centred @ second
    return np.asarray(np.rad2deg(subspace_angles(first, second)))
