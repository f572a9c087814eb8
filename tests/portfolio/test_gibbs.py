import tracemalloc

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import softmax

from palm.portfolio import GibbsOracle, blocks
from palm.simplex import sample_simplex


def weights_of(bases, count=40, seed=0):
    return np.vstack([np.eye(bases), sample_simplex(count, bases, np.random.default_rng(seed))])


@pytest.mark.parametrize("bases", [1, 2, 4])
@pytest.mark.parametrize("kl", [0.01, 0.1, 3.0])
def test_optimum_value_and_cost_are_those_of_the_closed_form(random_tensor, optimum_at, bases, kl):
    rewards, weights = random_tensor(0, bases), weights_of(bases)
    solution = GibbsOracle(rewards, kl).solve(weights)
    p = softmax(np.einsum("pnk,mk->mpn", rewards, weights) / kl, axis=2)
    value = np.einsum("mpn,pnk->mk", p, rewards) / len(rewards)
    divergence = np.where(p > 0, p * np.log(np.maximum(p, 1e-300) * rewards.shape[1]), 0).sum(axis=2).mean(axis=1)
    np.testing.assert_allclose(solution.optimum, optimum_at(rewards, weights, kl), atol=1e-12)
    np.testing.assert_allclose(solution.value, value, atol=1e-12)
    np.testing.assert_allclose(solution.cost, kl * divergence, atol=1e-12)
    np.testing.assert_allclose((weights * value).sum(axis=1) - kl * divergence, solution.optimum, atol=1e-12)


def test_no_policy_found_by_an_optimiser_is_better_and_the_best_one_attains_it(random_tensor):
    rewards, weight, kl = random_tensor(1, 3, prompts=1, candidates=4), np.array([0.2, 0.5, 0.3]), 0.2
    reward = rewards[0] @ weight

    def loss(p):
        return -(p @ reward - kl * (p * np.log(np.maximum(p, 1e-300) * 4)).sum())

    best = max(
        -minimize(
            loss,
            start,
            bounds=[(1e-12, 1)] * 4,
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-14},
        ).fun
        for start in np.random.default_rng(0).dirichlet(np.ones(4), size=5)
    )
    assert GibbsOracle(rewards, kl).optimum(weight)[0] == pytest.approx(best, abs=1e-7)


def test_two_opposed_candidates_have_the_optimum_known_by_hand(two_sided):
    weights, kl = weights_of(2), 0.3
    expected = kl * np.log((np.exp(weights[:, 0] / kl) + np.exp(weights[:, 1] / kl)) / 2)
    np.testing.assert_allclose(two_sided(kl).optimum(weights), expected, atol=1e-14)


def test_large_kl_gives_the_reference_and_small_kl_the_best_candidate(random_tensor):
    rewards, weights = random_tensor(2, 3), weights_of(3)
    reference = rewards.mean(axis=(0, 1))
    np.testing.assert_allclose(GibbsOracle(rewards, 9e5).optimum(weights), weights @ reference, atol=1e-6)
    best = np.einsum("pnk,mk->mpn", rewards, weights).max(axis=2).mean(axis=1)
    np.testing.assert_allclose(GibbsOracle(rewards, 1e-7).optimum(weights), best, atol=1e-6)
    np.testing.assert_allclose(GibbsOracle(rewards, 1.0).reference, reference, atol=1e-15)


def test_missing_candidates_count_for_nothing_whatever_stands_there(random_tensor):
    rewards, weights, kl = random_tensor(3, 3), weights_of(3), 0.1
    mask = np.random.default_rng(0).random(rewards.shape[:2]) < 0.6
    mask[:, 2] = True
    garbage = np.where(mask[:, :, None], rewards, np.nan)
    ragged = GibbsOracle(garbage, kl, mask=mask)
    alone = [GibbsOracle(rewards[p : p + 1, mask[p]], kl) for p in range(len(rewards))]
    np.testing.assert_allclose(ragged.optimum(weights), np.mean([o.optimum(weights) for o in alone], axis=0), atol=1e-12)
    np.testing.assert_allclose(ragged.solve(weights).value, np.mean([o.solve(weights).value for o in alone], axis=0), atol=1e-12)
    np.testing.assert_allclose(ragged.solve(weights).cost, np.mean([o.solve(weights).cost for o in alone], axis=0), atol=1e-12)
    np.testing.assert_allclose(ragged.reference, np.mean([o.reference for o in alone], axis=0), atol=1e-12)
    probabilities = ragged.policy_probabilities(weights[5])
    assert (probabilities[~mask] == 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    assert f"{mask.sum(axis=1).min()} to {mask.sum(axis=1).max()}" in ragged.assumptions[0]


def test_repeating_every_candidate_changes_nothing(random_tensor):
    rewards, weights = random_tensor(4, 2), weights_of(2)
    twice = np.concatenate([rewards, rewards], axis=1)
    np.testing.assert_allclose(GibbsOracle(twice, 0.1).optimum(weights), GibbsOracle(rewards, 0.1).optimum(weights), atol=1e-12)


def test_equal_rewards_make_the_reference_optimal_at_no_cost():
    solution = GibbsOracle(np.full((3, 4, 2), 0.7), 0.1).solve(weights_of(2))
    np.testing.assert_allclose(solution.value, 0.7, atol=1e-12)
    np.testing.assert_allclose(solution.cost, 0, atol=1e-12)
    np.testing.assert_allclose(solution.optimum, 0.7, atol=1e-12)


def test_blocks_of_weights_give_the_same_as_all_at_once(random_tensor, monkeypatch):
    rewards, weights = random_tensor(5, 3), weights_of(3)
    whole, diagnostics = GibbsOracle(rewards).solve(weights), GibbsOracle(rewards).diagnostics(weights)
    monkeypatch.setattr(blocks, "_BLOCK", 4 * 2 * rewards.shape[1])  # two prompts
    monkeypatch.setattr(blocks, "_CHUNK", 4 * 3)  # three candidates
    monkeypatch.setattr(blocks, "MOST_WEIGHTS", 4)
    parts = GibbsOracle(rewards).solve(weights)
    for name in ("value", "cost", "optimum"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-14)
    np.testing.assert_allclose(GibbsOracle(rewards).optimum(weights), whole.optimum, atol=1e-14)
    np.testing.assert_allclose(GibbsOracle(rewards).diagnostics(weights).bias, diagnostics.bias, atol=1e-13)


@pytest.mark.parametrize("kl", [1e-4, 1.6e-3, 1.7e-3, 2e-2])  # at 1 / 600 a maximum is taken out of the exponents
def test_a_tiny_kl_neither_overflows_nor_loses_digits(random_tensor, optimum_at, kl):
    rewards, weights = random_tensor(8, 3), weights_of(3)
    rewards[0, :2] = [[0, 0, 0], [1, 1, 1]]  # the widest spread there is
    mask = np.random.default_rng(2).random(rewards.shape[:2]) < 0.7
    mask[0] = mask[:, 0] = True
    solution = GibbsOracle(rewards, kl, mask=mask).solve(weights)
    np.testing.assert_allclose(solution.optimum, optimum_at(rewards, weights, kl, mask), rtol=1e-12)
    np.testing.assert_allclose((weights * solution.value).sum(axis=1) - solution.cost, solution.optimum, rtol=1e-12)
    found = GibbsOracle(rewards, kl, mask=mask).diagnostics(weights)
    assert (found.fewest_samples >= 1 - 1e-9).all()
    assert (found.effective_samples <= mask.sum(axis=1).max() + 1e-9).all()


@pytest.mark.parametrize("call", ["solve", "optimum", "diagnostics"])
def test_memory_does_not_grow_with_the_number_of_weights(random_tensor, call):
    oracle = GibbsOracle(random_tensor(9, 3, prompts=40, candidates=30), 0.1)
    peaks = []
    for count in (2_000, 20_000):
        weights = weights_of(3, count)
        tracemalloc.start()
        getattr(oracle, call)(weights)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 18_000 * 8 * 30  # a few numbers per weight; all exponentials at once would be 1,200


def test_diagnostics_are_a_jackknife_and_a_standard_error_by_definition(random_tensor, optimum_at):
    rewards, weights, kl = random_tensor(6, 3, prompts=4, candidates=5), weights_of(3, 6), 0.2
    mask = np.ones((4, 5), dtype=bool)
    mask[1, 3:] = False
    found = GibbsOracle(rewards, kl, mask=mask).diagnostics(weights)
    for row, weight in enumerate(weights):
        per_prompt, bias, samples = [], [], []
        for candidates in (rewards[p, mask[p]] for p in range(4)):
            n = len(candidates)
            whole = optimum_at(candidates[None], weight[None], kl)[0]
            without = [optimum_at(np.delete(candidates, i, axis=0)[None], weight[None], kl)[0] for i in range(n)]
            per_prompt.append(whole)
            bias.append((n - 1) * (np.mean(without) - whole))
            samples.append(1 / (softmax(candidates @ weight / kl) ** 2).sum())
        assert found.bias[row] == pytest.approx(np.mean(bias), abs=1e-12)
        assert found.effective_samples[row] == pytest.approx(np.mean(samples))
        assert found.fewest_samples[row] == pytest.approx(min(samples))
        assert found.prompt_error[row] == pytest.approx(np.std(per_prompt, ddof=1) / 2)


def test_jackknife_correction_comes_nearer_to_the_optimum_on_all_candidates(optimum_at):
    everything = np.random.default_rng(7).random((1, 4000, 2))
    weight, kl = np.array([[0.5, 0.5]]), 0.1
    truth = optimum_at(everything, weight, kl)[0]
    small = GibbsOracle(everything.reshape(400, 10, 2), kl)
    plain, bias = small.optimum(weight)[0], small.diagnostics(weight).bias[0]
    assert plain < truth
    assert abs(plain - bias - truth) < 0.5 * abs(plain - truth)


def test_one_prompt_says_nothing_about_other_prompts_and_one_candidate_nothing_about_bias():
    found = GibbsOracle(np.full((1, 1, 2), 0.5)).diagnostics(np.eye(2))
    assert np.isinf(found.prompt_error).all()
    assert (found.bias == 0).all()
    assert (found.effective_samples == 1).all()


def poisoned(value):
    rewards = np.full((2, 3, 2), 0.5)
    rewards[1, 2, 0] = value
    return rewards


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reward_tensor": poisoned(np.nan)}, "reward_tensor: expected finite numbers, got nan at prompt 1, candidate 2, basis 0"),
        ({"reward_tensor": poisoned(np.inf)}, "reward_tensor: expected finite numbers, got inf at prompt 1"),
        ({"reward_tensor": poisoned(-0.25)}, r"reward_tensor: expected rewards of at least 0 .*, got -0.25"),
        ({"reward_tensor": np.zeros((3, 2))}, r"reward_tensor: expected the shape \(P prompts.* got \(3, 2\)"),
        ({"reward_tensor": np.zeros((3, 0, 2))}, r"reward_tensor: .* none of them 0, got \(3, 0, 2\)"),
        ({"reward_tensor": np.full((1, 1, 1), "high")}, "reward_tensor: expected numbers, got dtype <U4"),
        (
            {"reward_tensor": poisoned(1e160)},
            r"reward_tensor: expected the largest .* and 1e\+100, got 1e\+160",
        ),
        ({"reward_tensor": np.full((1, 1, 1), 1e-160)}, r"reward_tensor: expected the largest .* between 1e-100 .*, got 1e-160"),
        ({"kl": 1e160}, r"kl: expected a number between 1e-100 and 1e\+100, got 1e\+160"),
        ({"kl": 5.1e5}, r"kl: expected at most 1,000,000 times the largest reward, 0.5, got 510000"),
        ({"kl": 0.0}, "kl: expected a positive number, got 0.0"),
        ({"kl": -0.1}, "kl: expected a positive number, got -0.1"),
        ({"kl": np.nan}, "kl: expected a positive number, got nan"),
        ({"kl": True}, "kl: expected a positive number, got True"),
        ({"kl": "small"}, "kl: expected a positive number, got 'small'"),
        ({"kl": None}, "kl: expected a positive number, got None"),
        ({"kl": np.array([0.1, 0.2])}, "kl: expected a positive number, got array"),
        ({"reward_tensor": np.ones((2, 3, 2)) + 1j}, "reward_tensor: expected numbers, got dtype complex128"),
        ({"reward_tensor": [[[1, 2], [3]], [[1, 2]]]}, "reward_tensor: expected an array, got list that NumPy cannot read"),
        ({"reward_tensor": torch.ones(2, 3, 2, dtype=torch.bfloat16)}, "reward_tensor: expected an array, got Tensor that NumPy"),
        ({"reward_tensor": torch.ones(2, 3, 2, requires_grad=True)}, "reward_tensor: expected an array, got Tensor that NumPy"),
        ({"mask": np.full((2, 3), 0.5)}, "mask: expected True and False, got dtype float64"),
        ({"mask": np.ones((3, 2), dtype=bool)}, r"mask: expected the shape \(2, 3\) .* got \(3, 2\)"),
        ({"mask": np.array([[1, 1, 1], [0, 0, 0]], dtype=bool)}, "mask: expected a candidate for every prompt, prompt 1 has none"),
    ],
)
def test_bad_tensors_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        GibbsOracle(**{"reward_tensor": np.full((2, 3, 2), 0.5), **arguments})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.array([[0.5, 0.6]]), r"weights: expected rows of the simplex .* got \[0.5, 0.6\] in row 0 with sum 1.1"),
        (np.array([[0.5, 0.25, 0.25]]), "weights: expected 2 columns, one per basis, got 3"),
        (np.array([[1.0, 0.0], [np.nan, 1.0]]), r"weights: expected finite numbers, got \[nan, 1.0\] in row 1"),
    ],
)
@pytest.mark.parametrize("call", ["solve", "optimum", "diagnostics", "policy_probabilities"])
def test_bad_weights_are_refused_by_name(call, weights, message):
    with pytest.raises(ValueError, match=message):
        getattr(GibbsOracle(np.full((2, 3, 2), 0.5)), call)(weights)
