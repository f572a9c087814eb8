"""palm.policies.pairs: what one weight prefers, without ties, without repeats, and the same pairs for every member."""

import numpy as np
import pytest

from palm.policies.pairs import scalarise

RNG = np.random.default_rng(0)
REWARDS = RNG.random((4, 6, 3))
MASK = np.arange(6)[None, :] < np.array([6, 3, 2, 1])[:, None]


def _unordered(rewards: np.ndarray, weight: np.ndarray, **options: int) -> list[tuple[int, int, int]]:
    pairs = scalarise(rewards, weight, mask=MASK, **options)
    return [
        (p, *sorted((a, b))) for p, a, b in zip(pairs.prompt.tolist(), pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True)
    ]


@pytest.mark.parametrize("weight", np.vstack([np.eye(3), RNG.dirichlet(np.ones(3), size=4)]))
def test_chosen_has_the_larger_utility(weight: np.ndarray) -> None:
    pairs = scalarise(REWARDS, weight, per_prompt=100, mask=MASK)
    utility = REWARDS @ weight
    assert (utility[pairs.prompt, pairs.chosen] > utility[pairs.prompt, pairs.rejected]).all()
    assert MASK[pairs.prompt, pairs.chosen].all()
    assert MASK[pairs.prompt, pairs.rejected].all()


def test_all_pairs_of_a_prompt_when_many_are_wanted() -> None:
    found = _unordered(REWARDS, np.array([0.2, 0.3, 0.5]), per_prompt=100)
    expected = {(p, a, b) for p, n in enumerate((6, 3, 2, 1)) for a in range(n) for b in range(a + 1, n)}
    assert set(found) == expected
    assert len(found) == len(expected)


def test_members_compare_the_same_candidates_and_seeds_others() -> None:
    one = _unordered(REWARDS, np.array([1.0, 0, 0]), per_prompt=2, seed=3)
    assert one == _unordered(REWARDS, np.array([0, 0.5, 0.5]), per_prompt=2, seed=3)
    assert one != _unordered(REWARDS, np.array([1.0, 0, 0]), per_prompt=2, seed=4)
    assert np.bincount([pair[0] for pair in one]).tolist() == [2, 2, 1]


def test_candidates_of_equal_utility_are_no_pair() -> None:
    rewards = np.array([[[0.5, 0.1], [0.5, 0.9], [0.7, 0.4]]])
    pairs = scalarise(rewards, np.array([1.0, 0.0]), per_prompt=10)
    assert sorted(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True)) == [(2, 0), (2, 1)]
    with pytest.raises(ValueError, match="rewards: expected a prompt with two candidates of different utility, found none"):
        scalarise(rewards[:, :2], np.array([1.0, 0.0]), per_prompt=10)


def test_pairs_wanted_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="per_prompt: expected at least 1, got 0"):
        scalarise(REWARDS, np.ones(3) / 3, per_prompt=0)
