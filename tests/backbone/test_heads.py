"""palm.backbone's heads: losses recounted with numpy, the same in parts as at once, and as palm.rewards has them."""

from typing import Any

import numpy as np
import pytest
import torch

from palm.backbone import BradleyTerryHead, Head, LoReHead, VRFHead
from palm.backbone.batches import Batches
from palm.backbone.heads import HeadModule
from palm.backbone.turns import Turns
from palm.features.pairs import PairFeatures
from palm.lm.logprobs import Encoded
from palm.rewards import VRF, BradleyTerry
from palm.rewards.episodes import Episode, standardisation
from palm.rewards.vrf import _loss as frozen_loss

HEADS = [
    BradleyTerryHead(),
    LoReHead(rank=3),
    LoReHead(rank=2, personal_penalty=500.0),
    VRFHead(rank=3, dim=4, hidden=8, kl_weight=0.1),
]


@pytest.fixture(scope="module")
def pairs() -> PairFeatures:
    """Five users with 1 to 13 pairs of 40 texts, of four features of which one is constant."""
    rng = np.random.default_rng(0)
    items = rng.normal(size=(40, 4)).astype(np.float32) * [1, 3, 0, 0.2] + 1
    user = np.repeat([f"u{n}" for n in range(5)], [1, 4, 6, 9, 13])
    chosen = rng.integers(40, size=len(user))
    return PairFeatures.from_items(user, items, chosen, (chosen + rng.integers(1, 40, size=len(user))) % 40)


def parts_of(head: Head, pairs: PairFeatures, parts: int, batch: int = 6) -> Batches:
    texts: list[Encoded] = [([1], [2] * (1 + row % 3)) for row in range(len(pairs.items))]
    turns = Turns(pairs.code, context=3 if head.reads_context else 0, targets=2, batch=batch, parts=parts, seed=0)
    return Batches(turns, pairs, texts, pad_token_id=0, batch_tokens=9, equal_users=head.equal_users, noise=head.noise)


def features_for(batches: Batches, key: tuple[int, int, int], pairs: PairFeatures) -> torch.Tensor:
    """Features of a part's texts, found by the pairs that it should have."""
    part = batches.turns.part(*key)
    rows = np.concatenate([np.concatenate([block.context, block.target]) for block in part.blocks])
    used = np.unique(np.concatenate([pairs.chosen_row[rows], pairs.rejected_row[rows]]))
    return torch.from_numpy(pairs.items.rows(used))


def loss_of_step(head: Head, module: Any, pairs: PairFeatures, step: int, parts: int) -> torch.Tensor:
    batches = parts_of(head, pairs, parts)
    losses = []
    for number in range(parts):
        features = features_for(batches, (0, step, number), pairs)
        losses.append(module.loss(module.standardised(features), batches[0, step, number]))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_mean_over_parts_is_the_loss_of_the_step(head: Any, pairs: PairFeatures) -> None:
    """Losses and gradients, for full steps and the last, whose parts may have nothing to do."""
    module = head.begin(pairs, 0)
    steps = parts_of(head, pairs, 1).turns.steps
    for step in (0, steps - 1):
        found = []
        for parts in (1, 2, 5):
            module.zero_grad()
            loss = loss_of_step(head, module, pairs, step, parts)
            loss.backward()
            found.append((loss.detach(), *(parameter.grad.clone() for parameter in module.parameters())))
        for other in found[1:]:
            for one, two in zip(found[0], other, strict=True):
                torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def asked(head: Head, pairs: PairFeatures, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences (n, d) of standardised features of the step's targets, and their users."""
    part = parts_of(head, pairs, 1).turns.part(0, step, 0)
    rows = np.concatenate([block.target for block in part.blocks])
    scale = pairs.items.moments()[1]
    difference = np.divide(pairs.chosen - pairs.rejected, scale, out=np.zeros((len(pairs), 4)), where=scale > 1e-6)
    return difference[rows], pairs.code[rows]


def test_bradley_terry_recounted(pairs: PairFeatures) -> None:
    head = BradleyTerryHead()
    module: Any = head.begin(pairs, 0)
    difference, _ = asked(head, pairs, 0)
    direction = module.direction.detach().numpy()
    expected = np.log1p(np.exp(-difference @ direction)).mean()
    assert loss_of_step(head, module, pairs, 0, 1).item() == pytest.approx(expected, rel=1e-5)
    frozen = BradleyTerry().fit(pairs).direction
    np.testing.assert_allclose(direction / module.scale.numpy(), np.where(np.isfinite(module.scale.numpy()), frozen, 0), rtol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 500.0])
def test_lore_recounted(pairs: PairFeatures, penalty: float) -> None:
    """Each user weighs the same over an epoch; the bases are drawn to their mean by penalty / (2 n) |V_k - mean|^2."""
    head = LoReHead(rank=3, personal_penalty=penalty)
    module: Any = head.begin(pairs, 0)
    with torch.no_grad():
        module.directions += torch.linspace(-1, 1, 12).reshape(4, 3)
    directions, logits = module.directions.detach().numpy().astype(float), module.users.detach().numpy().astype(float)
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    difference, user = asked(head, pairs, 1)
    margin = ((difference @ directions) * weights[user]).sum(axis=1)
    share = 1 / np.bincount(pairs.code)[user]
    expected = (share * np.log1p(np.exp(-margin))).sum() / share.sum()
    away = directions - directions.mean(axis=1, keepdims=True)
    expected += penalty / (2 * len(pairs)) * (away**2).sum()
    assert loss_of_step(head, module, pairs, 1, 1).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("switches", [{"regulariser": False}, {"mixture": False}])
def test_vrf_is_the_loss_on_frozen_features(pairs: PairFeatures, switches: dict[str, bool]) -> None:
    """The same users and targets give the same number as palm.rewards.vrf's own function; without noise, to compare exactly."""
    options: dict[str, Any] = {"rank": 3, "dim": 4, "hidden": 8, "kl_weight": 0.1, **switches}
    head = VRFHead(**options)
    module: Any = head.begin(pairs, 0)
    blocks = parts_of(head, pairs, 1).turns.part(0, 0, 0).blocks
    episode = Episode(
        len(blocks),
        np.concatenate([block.context for block in blocks]),
        np.repeat(np.arange(len(blocks)), [len(block.context) for block in blocks]),
        np.concatenate([block.target for block in blocks]),
        np.repeat(np.arange(len(blocks)), [len(block.target) for block in blocks]),
    )
    expected = frozen_loss(VRF(**options), module.parts, pairs, standardisation(pairs), episode, None)
    torch.testing.assert_close(loss_of_step(head, module, pairs, 0, 1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("switch", ["uncertain", "separation", "regulariser", "mixture", "product"])
def test_every_switch_of_vrf_changes_the_loss(pairs: PairFeatures, switch: str) -> None:
    options: dict[str, Any] = {"rank": 3, "dim": 4, "hidden": 8, "kl_weight": 0.1}
    module: Any = VRFHead(**options).begin(pairs, 0)
    whole = loss_of_step(VRFHead(**options), module, pairs, 0, 1)
    head = VRFHead(**options, **{switch: False})
    module.options = head
    assert abs((loss_of_step(head, module, pairs, 0, 1) - whole).item()) > 1e-4


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (LoReHead(rank=0), "rank: expected a whole number of at least 1, got 0"),
        (LoReHead(personal_penalty=-1.0), r"personal_penalty: expected at least 0, got -1\.0"),
        (LoReHead(user_learning_rate=0.0), r"user_learning_rate: expected a positive number, got 0\.0"),
        (VRFHead(temperature=0.0), r"temperature: expected a positive number, got 0\.0"),
    ],
)
def test_numbers_out_of_range_are_refused(head: Head, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head.check()


def test_a_head_without_a_loss_cannot_be_made() -> None:
    class Lossless(HeadModule):
        pass

    with pytest.raises(TypeError, match=r"abstract.*loss"):
        Lossless(np.zeros(2), np.ones(2))
