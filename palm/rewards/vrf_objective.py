"""What VRF minimises, on features of texts as torch tensors: the same for frozen features and for a backbone that is trained."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from palm.rewards.checks import check_not_negative, check_positive, check_switch, check_whole
from palm.rewards.networks import trainable
from palm.rewards.vrf_model import WIDEST

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class VRFObjective:
    """The published loss (arXiv 2604.00997), every part a switch; see `palm.rewards.vrf` for the formulas and what is guessed.

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

    def check(self) -> None:
        """See that every number is in its range.

        Raises:
            ValueError: one is not; the message names it.
        """
        check_whole(self, "rank", "dim", "hidden", "samples")
        check_positive(self, "temperature")
        check_not_negative(self, "margin", "kl_weight")
        check_switch(self, "uncertain", "separation", "regulariser", "mixture", "product")

    def module(self, width: int) -> "torch.nn.Module":
        """What is trained: `rewards`, `encoder`, and the bases' `mean` and `log_deviation`; draws from torch's generator."""
        import torch

        module = torch.nn.Module()
        module.rewards = trainable([width, max(width // 4, self.rank), self.rank])
        module.encoder = trainable([2 * width, self.hidden, 2 * self.dim])
        module.mean = torch.nn.Parameter(0.1 * torch.randn(self.rank, self.dim))
        module.log_deviation = torch.nn.Parameter(torch.zeros(self.rank, self.dim))
        return module

    @property
    def needs_noise(self) -> bool:
        """Whether the loss wants noise."""
        return self.regulariser and self.mixture

    def users(self, module: Any, pairs: "torch.Tensor", whose: "torch.Tensor", users: int) -> "tuple[torch.Tensor, torch.Tensor]":
        """(users, D) means and variances of users, from (c, 2 d) pairs of whom pair i is that of user `whose[i]`."""
        import torch

        read = module.encoder(pairs)
        mean, variance = read[:, : self.dim], (2 * read[:, self.dim :].clamp(-WIDEST, WIDEST)).exp()

        def summed(values: torch.Tensor) -> torch.Tensor:
            return values.new_zeros(users, self.dim).index_add(0, whose, values)

        if self.product:
            precision = summed(1 / variance)
            return summed(mean / variance) / precision, 1 / precision
        count = torch.bincount(whose, minlength=users)[:, None]
        return summed(mean) / count, summed(variance) / count

    def loss(
        self,
        module: Any,
        users: "tuple[torch.Tensor, torch.Tensor]",
        difference: "torch.Tensor",
        whose: "torch.Tensor",
        noise: "torch.Tensor | None",
        *,
        pair_share: "torch.Tensor | None" = None,
        user_share: "torch.Tensor | None" = None,
    ) -> "torch.Tensor":
        """The loss of some users on some of their pairs, with the parts that are switched on.

        Args:
            module: as `module` gives it.
            users: means and variances, (U, D) each.
            difference: (n, K) rewards of the chosen minus those of the rejected responses.
            whose: (n,) number of each pair's user.
            noise: (samples, U, D) draws from N(0, 1); wanted if `needs_noise`.
            pair_share: (n,) weights in the mean over pairs; equal by default.
            user_share: (U,) weights in the mean over users; equal by default.
        """
        import torch

        mean, variance = users
        deviation = module.log_deviation.exp()
        distance = (torch.cdist(mean, module.mean) ** 2 + torch.cdist(variance.sqrt(), deviation) ** 2) / 2
        weight = torch.softmax(-distance / self.temperature, dim=1)[whose]
        margin = (weight * difference).sum(dim=1)
        if self.uncertain:
            disagreement = (weight * (difference - margin[:, None]) ** 2).sum(dim=1)
            margin = margin / (1 + torch.pi * disagreement / 8).sqrt()
        loss = _mean(torch.nn.functional.softplus(-margin), pair_share)
        if self.separation and self.rank > 1:
            first, second = torch.triu_indices(self.rank, self.rank, 1)
            apart = ((module.mean[first] - module.mean[second]) ** 2 + (deviation[first] - deviation[second]) ** 2).sum(dim=1) / 2
            loss = loss + torch.relu(self.margin - apart).sum()
        if self.regulariser:
            loss = loss + self.kl_weight * _mean(self.divergence(module, mean, variance, noise), user_share)
        return loss

    def divergence(
        self, module: Any, mean: "torch.Tensor", variance: "torch.Tensor", noise: "torch.Tensor | None"
    ) -> "torch.Tensor":
        """(U,) KL of each user from the mixture of the bases (entropy exact, the rest sampled), or from a standard normal."""
        import torch

        if not self.mixture:
            return 0.5 * (variance + mean**2 - 1 - variance.log()).sum(dim=1)
        assert noise is not None
        entropy = 0.5 * (1 + torch.log(2 * torch.pi * variance)).sum(dim=1)
        drawn = mean + variance.sqrt() * noise
        away = (drawn[:, :, None] - module.mean) * (-module.log_deviation).exp()
        density = -0.5 * (away**2).sum(dim=3) - (module.log_deviation + 0.5 * np.log(2 * np.pi)).sum(dim=1)
        mixture = torch.logsumexp(density, dim=2) - np.log(self.rank)
        return -entropy - mixture.mean(dim=0)


def _mean(values: "torch.Tensor", share: "torch.Tensor | None") -> "torch.Tensor":
    return values.mean() if share is None else (share * values).sum()
