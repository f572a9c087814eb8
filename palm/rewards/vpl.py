"""VPL: a user is a hidden vector read from their pairs, and the reward is a network of text and vector.

As published (variational preference learning, arXiv 2408.10075), on frozen features: a network reads each pair [h+, h-], one
head of self-attention lets a user's pairs see each other, their mean gives mean and log-variance (clamped to [-1, 1]) of the
user's vector z; reward = network([h, z]). Loss: Bradley-Terry with z drawn, plus kl_weight x KL(q || N(0, I)) under half a cosine
that rises from 0 to 1 and begins anew `cycles` times. Published widths are 512; the defaults suit frozen features of small models.
Nothing is scaled differently in training and in use (a published implementation rescales z in training only).

Posterior collapse is the known failure: `details["active_units"]` counts the numbers of z whose mean varies over users (> 0.005).
Geometry is latent: such a model can be compared with others, and cannot feed a portfolio.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from palm.features.pairs import PairFeatures
from palm.rewards.active_units import active_units
from palm.rewards.checks import check_not_negative, check_pairs, check_whole
from palm.rewards.episodes import Episode, Schedule, in_order, read_pairs, standardisation, train_on_episodes
from palm.rewards.networks import Network, trainable
from palm.rewards.users import UserWeights
from palm.rewards.vpl_model import VPLModel
from palm.seeds import derive_seed, isolated_rng

if TYPE_CHECKING:
    import torch

_SLOPE = 0.2


@dataclass(frozen=True)
class VPL:
    """Estimator of hidden vectors of users.

    Attributes:
        latent: numbers of a user's vector.
        hidden: width of all layers.
        kl_weight: of the divergence from a standard normal distribution.
        cycles: times that its weight rises from 0.
        steps, batch_users, context, learning_rate, weight_decay: see `palm.rewards.episodes.Schedule`.
    """

    latent: int = 32
    hidden: int = 128
    kl_weight: float = 1e-3
    cycles: int = 4
    steps: int = 1000
    batch_users: int = 32
    context: int = 10
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    geometry: ClassVar[str] = "latent"

    def __post_init__(self) -> None:
        """Check the hyper-parameters.

        Raises:
            ValueError: one is out of range; the message names it.
        """
        check_whole(self, "latent", "hidden", "cycles")
        check_not_negative(self, "kl_weight")
        self._schedule().check()

    def fit(self, features: PairFeatures, seed: int = 0) -> VPLModel:
        """Train encoder and reward on the seen users.

        Args:
            features: pairs of the seen users.
            seed: of the networks' beginning, contexts and noise.

        Raises:
            ValueError: there are no pairs, or a feature is not finite.
        """
        check_pairs(features, seed)
        pairs = in_order(features)
        standard = standardisation(pairs)
        with isolated_rng(derive_seed(seed, "VPL")):
            module = _module(self, pairs.width)
        done = 0

        def loss(episode: Episode, noise: "torch.Generator") -> "torch.Tensor":
            nonlocal done
            weight = self.kl_weight * annealing(done / self.steps, self.cycles)
            done += 1
            return _loss(self, module, pairs, standard, episode, noise, weight)

        history = train_on_episodes(module, pairs, loss, self._schedule(), seed=seed)
        return self._finish(pairs, module, standard, history)

    def _finish(self, pairs: PairFeatures, module: Any, standard: tuple[np.ndarray, np.ndarray], history: list[float]) -> VPLModel:
        model = VPLModel(
            method="VPL",
            encoder=Network.of(module.encoder),
            attention=Network.of(module.attention),
            head=Network.of(module.head),
            reward=Network.of(module.reward),
            centre=standard[0],
            scale=standard[1],
            population=UserWeights(np.array(["population"]), np.zeros((1, self.latent)), np.eye(self.latent)[None], "latent"),
            seen=UserWeights.none(self.latent, "latent"),
            details={"loss": history, "pairs": len(pairs), "users": len(pairs.ids)},
        )
        _, known, mean, variance = model.gaussians(pairs)
        if known.any():
            told = UserWeights(pairs.ids[known], mean, variance[:, :, None] * np.eye(self.latent), "latent")
            model = replace(model, population=told.pooled())
        seen = model.infer(pairs)
        return replace(model, seen=seen, details={**model.details, "active_units": active_units(seen.mean)})

    def _schedule(self) -> Schedule:
        return Schedule(self.steps, self.batch_users, self.context, self.learning_rate, self.weight_decay)


def annealing(done: float, cycles: int) -> float:
    """Weight of the divergence when a share `done` of the steps is over: half a cosine from 0 to 1 in each cycle."""
    return float(0.5 - 0.5 * np.cos(np.pi * ((done * cycles) % 1.0)))


def _module(options: VPL, width: int) -> "torch.nn.Module":
    """What is trained: `encoder` of pairs, `attention` (queries, keys and values in one layer), `head`, and `reward`."""
    import torch

    hidden = options.hidden
    module = torch.nn.Module()
    module.encoder = trainable([2 * width, hidden, hidden, hidden], slope=_SLOPE)
    module.attention = trainable([hidden, 3 * hidden])
    module.head = trainable([hidden, 2 * options.latent])
    module.reward = trainable([width + options.latent, hidden, hidden, 1], slope=_SLOPE)
    return module


def _loss(
    options: VPL,
    module: Any,
    pairs: PairFeatures,
    standard: tuple[np.ndarray, np.ndarray],
    episode: Episode,
    noise: Any,
    kl_weight: float,
) -> "torch.Tensor":
    import torch

    mean, log_variance = _users(options, module, pairs, standard, episode)
    drawn = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=noise)
    own = drawn[torch.from_numpy(episode.target_user)]
    sides = [
        module.reward(
            torch.cat([torch.from_numpy((pairs.items.rows(rows[episode.target]) - standard[0]) / standard[1]), own], dim=1)
        )
        for rows in (pairs.chosen_row, pairs.rejected_row)
    ]
    surprise = torch.nn.functional.softplus(sides[1] - sides[0]).mean()
    divergence = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(dim=1).mean()
    return surprise + kl_weight * divergence


def _users(
    options: VPL, module: Any, pairs: PairFeatures, standard: tuple[np.ndarray, np.ndarray], episode: Episode
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """(users, latent) means and log-variances, the pairs of all users in one padded tensor."""
    import torch

    # Both sides of a pair, from its mean and difference: [h+, h-] = [m + d/2, m - d/2].
    middle, difference = np.split(read_pairs(pairs, episode.context, *standard), 2, axis=1)
    read = module.encoder(torch.from_numpy(np.hstack([middle + difference / 2, middle - difference / 2])))
    counts = np.bincount(episode.context_user, minlength=episode.users)
    order = np.argsort(episode.context_user, kind="stable")
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    row, column = torch.from_numpy(episode.context_user[order]), torch.from_numpy(place)
    padded = torch.zeros(episode.users, int(counts.max()), options.hidden).index_put((row, column), read[torch.from_numpy(order)])
    there = torch.zeros(padded.shape[:2], dtype=torch.bool).index_put((row, column), torch.tensor(True))
    query, key, value = module.attention(padded).chunk(3, dim=2)
    logit = query @ key.transpose(1, 2) / options.hidden**0.5
    seen = torch.softmax(logit.masked_fill(~there[:, None, :], -torch.inf), dim=2) @ value
    pooled = (seen * there[:, :, None]).sum(dim=1) / torch.from_numpy(counts)[:, None]
    mean, log_variance = module.head(pooled.float()).chunk(2, dim=1)
    return mean, log_variance.clamp(-1.0, 1.0)
