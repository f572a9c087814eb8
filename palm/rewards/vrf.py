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

A user's posterior covariance is that of the product Gaussian, carried through the softmax to first order. Users without
pairs get the seen users' mean weight and spread. `details["active_units"]` counts the numbers of the users' Gaussians whose
mean varies over the seen users (> 0.005): none says that all users were read alike, so everyone has the same weight.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from palm.features.pairs import PairFeatures
from palm.rewards.active_units import active_units
from palm.rewards.base import Calibration
from palm.rewards.checks import check_not_negative, check_pairs, check_positive, check_whole
from palm.rewards.episodes import Episode, Schedule, in_order, read_pairs, standardisation, train_on_episodes
from palm.rewards.networks import Network, trainable
from palm.rewards.users import UserWeights
from palm.rewards.vrf_model import WIDEST, VRFModel
from palm.seeds import derive_seed, isolated_rng

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class VRF:
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

    rank: int = 8
    dim: int = 64
    hidden: int = 128
    temperature: float = 1.0
    margin: float = 1.0
    kl_weight: float = 1e-3
    samples: int = 5
    uncertain: bool = True
    separation: bool = True
    regulariser: bool = True
    mixture: bool = True
    product: bool = True
    steps: int = 1000
    batch_users: int = 32
    context: int = 10
    learning_rate: float = 5e-3
    weight_decay: float = 0.01
    geometry: ClassVar[str] = "simplex"

    def fit(self, features: PairFeatures, seed: int = 0) -> VRFModel:
        """Train encoder, bases and rewards on the seen users.

        Args:
            features: pairs of the seen users.
            seed: of the networks' beginning, contexts and noise.

        Raises:
            ValueError: there are no pairs, a feature is not finite, or a hyper-parameter is out of range.
        """
        schedule = self._check()
        check_pairs(features)
        pairs = in_order(features)
        standard = standardisation(pairs)
        with isolated_rng(derive_seed(seed, "VRF")):
            module = _module(self, pairs.width)
        history = train_on_episodes(
            module, pairs, lambda episode, noise: _loss(self, module, pairs, standard, episode, noise), schedule, seed=seed
        )
        return self._finish(pairs, module, *standard, history)

    def _check(self) -> Schedule:
        check_whole(self, "rank", "dim", "hidden", "samples")
        check_positive(self, "temperature")
        check_not_negative(self, "margin", "kl_weight")
        schedule = Schedule(self.steps, self.batch_users, self.context, self.learning_rate, self.weight_decay)
        schedule.check()
        return schedule

    def _finish(self, pairs: PairFeatures, module: Any, centre: np.ndarray, scale: np.ndarray, history: list[float]) -> VRFModel:
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
            population=UserWeights.none(self.rank),
            seen=UserWeights.none(self.rank),
            names=tuple(f"basis-{k}" for k in range(self.rank)),
            details={
                "temperature": self.temperature,
                "product": self.product,
                "loss": history,
                "pairs": len(pairs),
                "users": len(pairs.ids),
            },
        )
        seen = model.infer(pairs)
        details = {**model.details, "active_units": active_units(model.gaussians(pairs)[2])}
        return replace(model, seen=seen, population=seen.pooled(), details=details)


def _module(options: VRF, width: int) -> "torch.nn.Module":
    """What is trained: `rewards`, `encoder`, and the bases' `mean` and `log_deviation`."""
    import torch

    module = torch.nn.Module()
    module.rewards = trainable([width, max(width // 4, options.rank), options.rank])
    module.encoder = trainable([2 * width, options.hidden, 2 * options.dim])
    module.mean = torch.nn.Parameter(0.1 * torch.randn(options.rank, options.dim))
    module.log_deviation = torch.nn.Parameter(torch.zeros(options.rank, options.dim))
    return module


def _loss(
    options: VRF, module: Any, pairs: PairFeatures, standard: tuple[np.ndarray, np.ndarray], episode: Episode, noise: Any
) -> "torch.Tensor":
    """The published loss of an episode, with the parts that are switched on."""
    import torch

    user_mean, user_variance = _users(options, module, pairs, standard, episode)
    user_deviation = user_variance.sqrt()
    deviation = module.log_deviation.exp()
    distance = (torch.cdist(user_mean, module.mean) ** 2 + torch.cdist(user_deviation, deviation) ** 2) / 2
    weight = torch.softmax(-distance / options.temperature, dim=1)[torch.from_numpy(episode.target_user)]
    difference = module.rewards(_standardised(pairs, pairs.chosen_row[episode.target], standard)) - module.rewards(
        _standardised(pairs, pairs.rejected_row[episode.target], standard)
    )
    margin = (weight * difference).sum(dim=1)
    if options.uncertain:
        variance = (weight * (difference - margin[:, None]) ** 2).sum(dim=1)
        margin = margin / (1 + torch.pi * variance / 8).sqrt()
    loss = torch.nn.functional.softplus(-margin).mean()
    if options.separation and options.rank > 1:
        first, second = torch.triu_indices(options.rank, options.rank, 1)
        apart = ((module.mean[first] - module.mean[second]) ** 2 + (deviation[first] - deviation[second]) ** 2).sum(dim=1) / 2
        loss = loss + torch.relu(options.margin - apart).sum()
    if options.regulariser:
        loss = loss + options.kl_weight * _divergence(options, module, user_mean, user_variance, noise).mean()
    return loss


def _users(
    options: VRF, module: Any, pairs: PairFeatures, standard: tuple[np.ndarray, np.ndarray], episode: Episode
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """(users, D) means and variances of the episode's users, from their contexts."""
    import torch

    read = module.encoder(torch.from_numpy(read_pairs(pairs, episode.context, *standard)))
    mean, variance = read[:, : options.dim], (2 * read[:, options.dim :].clamp(-WIDEST, WIDEST)).exp()
    whose = torch.from_numpy(episode.context_user)

    def summed(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(episode.users, options.dim).index_add(0, whose, values)

    if options.product:
        precision = summed(1 / variance)
        return summed(mean / variance) / precision, 1 / precision
    count = torch.bincount(whose, minlength=episode.users)[:, None]
    return summed(mean) / count, summed(variance) / count


def _divergence(options: VRF, module: Any, mean: "torch.Tensor", variance: "torch.Tensor", noise: Any) -> "torch.Tensor":
    """(users,) KL of each user from the mixture of the bases (entropy exact, the rest sampled), or from a standard normal."""
    import torch

    if not options.mixture:
        return 0.5 * (variance + mean**2 - 1 - variance.log()).sum(dim=1)
    entropy = 0.5 * (1 + torch.log(2 * torch.pi * variance)).sum(dim=1)
    draws = mean + variance.sqrt() * torch.randn((options.samples, *mean.shape), generator=noise)
    away = (draws[:, :, None] - module.mean) * (-module.log_deviation).exp()
    density = -0.5 * (away**2).sum(dim=3) - (module.log_deviation + 0.5 * np.log(2 * np.pi)).sum(dim=1)
    mixture = torch.logsumexp(density, dim=2) - np.log(options.rank)
    return -entropy - mixture.mean(dim=0)


def _standardised(pairs: PairFeatures, rows: np.ndarray, standard: tuple[np.ndarray, np.ndarray]) -> "torch.Tensor":
    import torch

    return torch.from_numpy((pairs.items.rows(rows) - standard[0]) / standard[1])
