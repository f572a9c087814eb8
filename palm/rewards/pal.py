"""PAL: a user is a mixture of a few prototypes, and likes what lies near the mixture's ideal point.

As published (pluralistic alignment, arXiv 2406.08469), on frozen features. Variant "A": ideal point u = f(sum_k w_k P_k) of
prototypes P_k in feature space, text f(h), reward -|f(h) - u|. Variant "B": K projectors read the prompt, z = sum_k w_k
g_k(prompt), reward = scale cos(f(h), z). w = softmax of a user's K numbers. Logistic loss on the difference of rewards (or the
hinge), Adam with a rate each for prototypes and users, for networks, and for the scale. New users: w only.

Features here are of prompt and response together, so variant "B" reads the prompt from the mean of a pair's two sides: a stand-in
that does not know which was chosen. Networks of one hidden layer with rectifiers, and a learnt scale in variant "A", are guesses.

Beyond the publication: a new user's numbers are drawn to the seen users' mean as strongly as these differ, and have a
posterior (Gauss-Newton on the penalised likelihood, Laplace's approximation, carried through the softmax).
Geometry is latent: no reward is linear in w, so such a model can be compared with others and cannot feed a portfolio.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from palm.features.pairs import PairFeatures
from palm.rewards.checks import check_pairs, check_positive, check_switch, check_whole
from palm.rewards.episodes import in_order, standardisation
from palm.rewards.gaussian_users import GaussianPopulation
from palm.rewards.networks import Network, trainable
from palm.rewards.pal_model import PALModel
from palm.rewards.users import UserWeights
from palm.seeds import derive_seed, isolated_rng

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PAL:
    """Estimator of prototypes and users' mixtures of them.

    Attributes:
        prototypes: K.
        variant: "A" (ideal points) or "B" (projectors of the prompt).
        hidden: width of the networks' hidden layer.
        dim: width of the space in which texts and ideal points are compared.
        hinge: the published alternative to the logistic loss.
        steps: of Adam.
        batch_pairs: pairs in a step.
        user_rate, network_rate, scale_rate: learning rates; published: 5e-3, 1e-4 and 1e-1, for many more steps.
    """

    prototypes: int = 4
    variant: str = "A"
    hidden: int = 128
    dim: int = 64
    hinge: bool = False
    steps: int = 1500
    batch_pairs: int = 512
    user_rate: float = 2e-2
    network_rate: float = 1e-3
    scale_rate: float = 1e-1
    geometry: ClassVar[str] = "latent"

    def __post_init__(self) -> None:
        """Check the hyper-parameters.

        Raises:
            ValueError: one is out of range; the message names it.
        """
        check_whole(self, "prototypes", "hidden", "dim", "steps", "batch_pairs")
        check_positive(self, "user_rate", "network_rate", "scale_rate")
        check_switch(self, "hinge")
        if self.variant not in ("A", "B"):
            raise ValueError(f"variant: expected 'A' or 'B', got {self.variant!r}")

    def fit(self, features: PairFeatures, seed: int = 0) -> PALModel:
        """Train prototypes, networks and the seen users' mixtures.

        Args:
            features: pairs of the seen users.
            seed: of the beginning and of the order of pairs.

        Raises:
            ValueError: there are no pairs, or a feature is not finite.
        """
        check_pairs(features, seed)
        pairs = in_order(features)
        standard = standardisation(pairs)
        with isolated_rng(derive_seed(seed, "PAL")):
            module = _module(self, pairs.width, len(pairs.ids))
        history = self._train(module, pairs, standard, seed)
        return self._finish(module, pairs, standard, history)

    def _train(self, module: Any, pairs: PairFeatures, standard: tuple[np.ndarray, np.ndarray], seed: int) -> list[float]:
        import torch

        rng = np.random.default_rng(derive_seed(seed, "order"))
        slow = [*module.text.parameters(), *(part for network in module.prompts for part in network.parameters())]
        adam = torch.optim.Adam(
            [
                {"params": [module.logits, module.places], "lr": self.user_rate},
                {"params": slow, "lr": self.network_rate},
                {"params": [module.scale], "lr": self.scale_rate},
            ]
        )
        losses: list[float] = []
        while len(losses) < self.steps:
            order = rng.permutation(len(pairs))
            for start in range(0, len(order), self.batch_pairs):
                rows = order[start : start + self.batch_pairs]
                margin = self._margin(module, pairs, rows, standard, module.logits[torch.from_numpy(pairs.code[rows])])
                surprise = torch.relu(1 - margin) if self.hinge else torch.nn.functional.softplus(-margin)
                loss = surprise.mean()
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()
                losses.append(float(loss.detach()))
                if len(losses) == self.steps:
                    break
        return [float(np.mean(part)) for part in np.array_split(losses, 10) if len(part)]

    def _margin(
        self, module: Any, pairs: PairFeatures, rows: np.ndarray, standard: tuple[np.ndarray, np.ndarray], logits: "torch.Tensor"
    ) -> "torch.Tensor":
        """(n,) margins of some pairs for users of (n, K) logits."""
        import torch

        chosen, rejected = (
            torch.from_numpy((pairs.items.rows(side[rows]) - standard[0]) / standard[1])
            for side in (pairs.chosen_row, pairs.rejected_row)
        )
        weight = torch.softmax(logits, dim=1)
        one, other = module.text(chosen), module.text(rejected)
        if self.variant == "A":
            ideal = module.text(weight @ module.places)
            return module.scale.exp() * ((other - ideal).norm(dim=1) - (one - ideal).norm(dim=1))
        middle = (chosen + rejected) / 2
        ideal = torch.stack([network(middle) for network in module.prompts], dim=1)
        ideal = (weight[:, :, None] * ideal).sum(dim=1)
        cosine = torch.nn.functional.cosine_similarity
        return module.scale.exp() * (cosine(one, ideal, dim=1) - cosine(other, ideal, dim=1))

    def _finish(self, module: Any, pairs: PairFeatures, standard: tuple[np.ndarray, np.ndarray], history: list[float]) -> PALModel:
        logits = module.logits.detach().numpy().astype(np.float64)
        logits -= logits.mean(axis=1, keepdims=True)  # softmax knows no constant
        away = logits - logits.mean(axis=0)
        spread = away.T @ away / len(logits) + 0.05 * np.eye(self.prototypes)
        model = PALModel(
            method="PAL",
            text=Network.of(module.text),
            prompts=tuple(Network.of(network) for network in module.prompts),
            places=module.places.detach().numpy(),
            scale=float(module.scale.detach().exp()),
            centre=standard[0],
            deviation=standard[1],
            population=GaussianPopulation(logits.mean(axis=0), spread),
            seen=UserWeights.none(self.prototypes, "latent"),
            details={"variant": self.variant, "loss": history, "pairs": len(pairs), "users": len(pairs.ids)},
        )
        return replace(model, seen=model.infer(pairs))


def _module(options: PAL, width: int, users: int) -> "torch.nn.Module":
    """What is trained: `text` and `prompts` networks, `places` of prototypes, users' `logits`, and the logarithm of the `scale`."""
    import torch

    module = torch.nn.Module()
    sizes = [width, options.hidden, options.dim]
    module.text = trainable(sizes)
    module.prompts = torch.nn.ModuleList([trainable(sizes) for _ in range(options.prototypes)] if options.variant == "B" else [])
    module.places = torch.nn.Parameter(torch.randn(options.prototypes, width))
    module.logits = torch.nn.Parameter(0.5 * torch.randn(users, options.prototypes))
    module.scale = torch.nn.Parameter(torch.tensor(1.0))
    return module
