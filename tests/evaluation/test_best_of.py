"""palm.evaluation.best_of: against all sets counted, and against the oracle that knows the population."""

from itertools import combinations

import numpy as np
import pytest

from palm.evaluation.best_of import best_of, best_of_sets, choose_n
from palm.portfolio import BestOfNOracle
from palm.rewards.tensor import RewardTensor, reward_tensor

WEIGHT = np.array([0.3, 0.7])


def test_probabilities_are_those_of_all_sets() -> None:
    for scores in (np.array([0.3, 0.1, 0.9, 0.4, 0.2]), np.array([0.5, 0.1, 0.5, 0.5, 0.2]), np.ones(4)):
        for n in range(1, len(scores) + 1):
            counted = np.zeros(len(scores))
            for chosen in (sets := list(combinations(range(len(scores)), n))):
                best = [place for place in chosen if scores[place] == max(scores[list(chosen)])]
                counted[best] += 1 / len(best) / len(sets)
            # Sets share a tie among those they hold; the estimate among all that tie: equal by symmetry.
            np.testing.assert_allclose(best_of_sets(scores, n), counted, atol=1e-12)


def test_it_is_unbiased_for_new_responses() -> None:
    """8 candidates drawn again and again from a population of 12: the mean is what the population's best of 3 gives."""
    rng = np.random.default_rng(0)
    population = rng.uniform(size=(1, 12, 2))
    truth = BestOfNOracle(population, 3, 0.1).solve(WEIGHT).value[0]
    rows = population[0][rng.integers(12, size=(4000, 8))]
    found = best_of(RewardTensor(rows, np.ones((4000, 8), dtype=bool)), WEIGHT, 3).value
    assert np.abs(found.mean(axis=0) - truth).max() < 4 * (found.std(axis=0) / np.sqrt(4000)).max()
    naive = BestOfNOracle(rows[:1000], 3, 0.1).solve(WEIGHT).value[0]  # with replacement from 8 draws is too low
    assert WEIGHT @ naive < WEIGHT @ truth - 0.01


def test_divergence_is_bounded_by_what_is_charged() -> None:
    tensor = reward_tensor(np.random.default_rng(1).uniform(size=(14, 2)), [8, 6])
    for n in (1, 2, 5):
        charged = best_of(tensor, WEIGHT, n).kl
        assert charged == pytest.approx(np.full(2, np.log(n) - (n - 1) / n))
        assert BestOfNOracle(tensor.rewards, n, 0.1, mask=tensor.mask).divergence <= charged[0] + 1e-12
    one = best_of(tensor, WEIGHT, 1)
    np.testing.assert_allclose(one.value, tensor.rewards.sum(axis=1) / tensor.mask.sum(axis=1)[:, None])


def test_the_best_n_weighs_rewards_against_cost() -> None:
    tensor = RewardTensor(np.random.default_rng(0).uniform(size=(20, 8, 2)), np.ones((20, 8), dtype=bool))
    utility = [best_of(tensor, WEIGHT, n).utility(WEIGHT, 0.25).mean for n in range(1, 9)]
    assert choose_n(tensor, WEIGHT[None, :], 0.25, most=8) == 1 + int(np.argmax(utility))
    assert 1 < choose_n(tensor, WEIGHT[None, :], 0.25, most=8) < 8
    assert choose_n(tensor, WEIGHT[None, :], 10.0, most=8) == 1
    assert choose_n(tensor, WEIGHT[None, :], 1e-6, most=5) == 5


@pytest.mark.parametrize("n", [0, 7, 2.0, True])
def test_n_out_of_range(n: int) -> None:
    tensor = reward_tensor(np.random.default_rng(1).uniform(size=(14, 2)), [8, 6])
    with pytest.raises(ValueError, match="n: expected a whole number from 1 to 6, the fewest candidates of a prompt, got"):
        best_of(tensor, WEIGHT, n)
