"""VRF: users and basis rewards are Gaussians in one space, and a user weighs the bases that are near.

As published (variational reward factorization, arXiv 2604.00997), on frozen features: an encoder reads each of a user's pairs,
v = [(h+ + h-)/2, h+ - h-], as a Gaussian of D numbers; the user is the product of these Gaussians; K learned Gaussians stand
for the bases, and w_u = softmax(-W2^2(user, basis) / temperature) with W2^2 = (|mu_u - mu_k|^2 + |sigma_u - sigma_k|^2) / 2. A
network reads K rewards phi from a text. Loss: -log sigmoid(m / sqrt(1 + pi s^2 / 8)) with m and s^2 the mean and variance of
the K rewards' differences under w_u; plus a hinge that keeps bases apart; plus kl_weight times the KL divergence of the user
from the mixture of the bases. Every part is a switch.

Not to be found in the paper, so guesses: rectifiers in the networks, the hidden width of the encoder, the bases' beginning (mean
~ N(0, 0.1^2), deviation 1), W2^2 as printed, and what `product=False` (means of means and of variances) and
`mixture=False` (a standard normal prior) are exactly.

A user's mean weight is the published one, at the distances of the Gaussians; its covariance is that of weights drawn from the
product Gaussian. Users without pairs get the seen users' mean weight and spread.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from palm.features.pairs import PairFeatures
from palm.rewards.active_units import active_units
from palm.rewards.base import Calibration
from palm.rewards.checks import check_pairs
from palm.rewards.episodes import Episode, Schedule, in_order, read_pairs, standardisation, train_on_episodes
from palm.rewards.networks import Network
from palm.rewards.users import UserWeights
from palm.rewards.vrf_model import VRFModel
from palm.rewards.vrf_objective import VRFObjective
from palm.seeds import derive_seed, isolated_rng
from palm.simplex import uniform_covariance

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class VRF(VRFObjective):
    """Estimator of Gaussians for users and bases.

    Attributes:
        rank: K, number of bases.
        dim: D, numbers of the space that users and bases are in.
        hidden: width of the encoder's hidden layer.
        temperature: of the softmax over distances.
        margin: squared distance up to which bases are pushed apart.
        kl_weight: of the divergence from the mixture of bases.
        samples: draws for that divergence.
        uncertain: the loss knows how much a user's bases disagree (VBT); False: plain Bradley-Terry.
        separation: bases are pushed apart.
        regulariser: users are drawn to the mixture of bases.
        mixture: what users are drawn to; False: a standard normal distribution.
        product: a user is the product of their pairs' Gaussians; False: their mean.
        steps, batch_users, context, learning_rate, weight_decay: see `palm.rewards.episodes.Schedule`.
    """

    steps: int = 1000
    batch_users: int = 32
    context: int = 10
    learning_rate: float = 5e-3
    weight_decay: float = 0.01
    geometry: ClassVar[str] = "simplex"

    def __post_init__(self) -> None:
        """Check the hyper-parameters.

        Raises:
            ValueError: one is out of range; the message names it.
        """
        self.check()
        self._schedule().check()

    def fit(self, features: PairFeatures, seed: int = 0) -> VRFModel:
        """Train encoder, bases and rewards on the seen users.

        Args:
            features: pairs of the seen users.
            seed: of the networks' beginning, contexts and noise.

        Raises:
            ValueError: there are no pairs, or a feature is not finite.
        """
        check_pairs(features, seed)
        pairs = in_order(features)
        standard = standardisation(pairs)
        with isolated_rng(derive_seed(seed, "VRF")):
            module = self.module(pairs.width)
        history = train_on_episodes(
            module, pairs, lambda episode, noise: _loss(self, module, pairs, standard, episode, noise), self._schedule(), seed=seed
        )
        return fitted_model(self, pairs, module, *standard, history)

    def _schedule(self) -> Schedule:
        return Schedule(self.steps, self.batch_users, self.context, self.learning_rate, self.weight_decay)


def fitted_model(
    options: VRFObjective, pairs: PairFeatures, module: Any, centre: np.ndarray, scale: np.ndarray, history: list[float]
) -> VRFModel:
    """The fitted model that a trained module is, with the users of the pairs as its seen users.

    Args:
        options: what it was trained with.
        pairs: of the seen users.
        module: as `VRFObjective.module` makes it, on the CPU.
        centre, scale: (d,) by which features were standardised.
        history: losses to record.
    """
    rewards = Network.of(module.rewards)
    calibration = Calibration.common_width(rewards.over(pairs.items, centre, scale))
    model = VRFModel(
        method="VRF",
        rewards=rewards,
        encoder=Network.of(module.encoder),
        centre=centre,
        scale=scale,
        basis_mean=module.mean.detach().numpy().astype(np.float64),
        basis_deviation=np.exp(module.log_deviation.detach().numpy().astype(np.float64)),
        calibration=calibration,
        population=_anything(options.rank),
        seen=UserWeights.none(options.rank),
        names=tuple(f"basis-{k}" for k in range(options.rank)),
        details={
            "temperature": options.temperature,
            "product": options.product,
            "loss": history,
            "pairs": len(pairs),
            "users": len(pairs.ids),
        },
    )
    _, known, mean, variance = model.gaussians(pairs)
    if known.any():
        model = replace(model, population=UserWeights(pairs.ids[known], *model.weigh(mean, variance)).pooled())
    return replace(model, seen=model.infer(pairs), details={**model.details, "active_units": active_units(mean)})


def _anything(rank: int) -> UserWeights:
    """What is known of a user where nothing is known of anyone: the uniform distribution on the simplex."""
    return UserWeights(np.array(["population"]), np.full((1, rank), 1 / rank), uniform_covariance(rank)[None])


def _loss(
    options: VRF, module: Any, pairs: PairFeatures, standard: tuple[np.ndarray, np.ndarray], episode: Episode, noise: Any
) -> "torch.Tensor":
    """The published loss of an episode."""
    import torch

    context = torch.from_numpy(read_pairs(pairs, episode.context, *standard))
    users = options.users(module, context, torch.from_numpy(episode.context_user), episode.users)
    difference = module.rewards(_standardised(pairs, pairs.chosen_row[episode.target], standard)) - module.rewards(
        _standardised(pairs, pairs.rejected_row[episode.target], standard)
    )
    drawn = torch.randn((options.samples, *users[0].shape), generator=noise) if options.needs_noise else None
    return options.loss(module, users, difference, torch.from_numpy(episode.target_user), drawn)


def _standardised(pairs: PairFeatures, rows: np.ndarray, standard: tuple[np.ndarray, np.ndarray]) -> "torch.Tensor":
    import torch

    return torch.from_numpy((pairs.items.rows(rows) - standard[0]) / standard[1])
