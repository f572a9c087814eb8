from dataclasses import replace

import numpy as np
import pytest

from palm.evaluation.measure import Measured, from_pool, from_samples, gap_interval, measured_portfolio, on_prompts
from palm.portfolio import GibbsOracle, certify
from palm.rewards import RewardTensor


@pytest.fixture(scope="module")
def tensor(rewards):
    mask = np.ones(rewards.shape[:2], dtype=bool)
    mask[0, 5:] = False
    mask[3, 1:] = False
    return RewardTensor(np.where(mask[:, :, None], rewards, 0.0), mask)


@pytest.fixture(scope="module")
def policies(planned, tensor):
    """The planned policies themselves, measured on the pool by their exact log-ratios."""
    oracle = GibbsOracle(tensor.rewards, planned.kl, mask=tensor.mask)
    counts = tensor.mask.sum(axis=1)[:, None]
    with np.errstate(divide="ignore"):
        return [from_pool(tensor, np.log(oracle.policy_probabilities(weight) * counts)) for weight in planned.weights]


def test_samples_are_averaged_prompt_by_prompt():
    basis = np.array([[0.0, 1], [1, 1], [0.5, 0], [0.7, 0.2]])
    found = from_samples(basis, np.array([0.1, 0.3, 1.0, 2.0]), samples=2)
    np.testing.assert_allclose(found.value, [[0.5, 1], [0.6, 0.1]])
    np.testing.assert_allclose(found.kl, [0.2, 1.5])


def test_control_variate_changes_no_mean_and_narrows_the_spread() -> None:
    """J of basis 0 is 0.3 and it moves with the variate, J of basis 1 is 0.6 and it does not; over 400 draws of 8 prompts."""
    rng = np.random.default_rng(0)
    plain, controlled = [], []
    for _ in range(400):
        variate, noise = rng.standard_normal((2, 8 * 4))
        basis = np.column_stack([0.3 + 0.1 * variate + 0.02 * noise, 0.6 + 0.1 * noise])
        kl = rng.uniform(0.0, 1.0, 8 * 4)
        plain.append(from_samples(basis, kl, 4).value.mean(axis=0))
        controlled.append(from_samples(basis, kl, 4, log_ratio=kl + variate).value.mean(axis=0))
    before, after = np.array(plain), np.array(controlled)
    assert np.all(np.abs(after.mean(axis=0) - [0.3, 0.6]) < 4 * after.std(axis=0) / 20)
    assert after[:, 0].std() < 0.4 * before[:, 0].std()
    assert after[:, 1].std() < 1.1 * before[:, 1].std()


def test_control_variate_that_is_the_reward_leaves_no_noise() -> None:
    """At the optimum of a weight w.phi - kl log-ratio is the same for all of a prompt's responses: so is the estimate."""
    rng = np.random.default_rng(1)
    constant, variate = rng.uniform(size=(6, 1)), rng.standard_normal((6, 5))
    basis = (constant + 0.07 * variate).reshape(-1, 1)
    found = from_samples(basis, np.zeros(30), 5, log_ratio=variate.ravel())
    np.testing.assert_allclose(found.value, constant, atol=1e-12)
    assert np.abs(from_samples(basis, np.zeros(30), 5).value - constant).mean() > 0.01


def test_optimal_policies_measured_on_their_own_pool_are_worth_what_the_oracle_says(planned, tensor, policies):
    oracle = GibbsOracle(tensor.rewards, planned.kl, mask=tensor.mask)
    solution = oracle.solve(planned.weights)
    for policy, value, cost in zip(policies, solution.value, solution.cost, strict=True):
        np.testing.assert_allclose(policy.value.mean(axis=0), value, atol=1e-12)
        assert planned.kl * policy.kl.mean() == pytest.approx(cost, abs=1e-12)


def test_the_reference_measured_on_the_pool_has_no_divergence(tensor):
    for ratio in (np.zeros(tensor.mask.shape), np.full(tensor.mask.shape, -700.0)):  # a constant is no difference
        found = from_pool(tensor, ratio)
        np.testing.assert_allclose(found.kl, 0, atol=1e-12)
        np.testing.assert_allclose(found.value[3], tensor.rewards[3, 0], atol=1e-12)
        np.testing.assert_allclose(found.value[0], tensor.rewards[0, :5].mean(axis=0), atol=1e-12)


def test_a_policy_that_gives_one_response_has_the_divergence_known_by_hand(tensor):
    ratio = np.full(tensor.mask.shape, -1e4)
    ratio[:, 0] = 0
    found = from_pool(tensor, ratio)
    np.testing.assert_allclose(found.kl, np.log(tensor.mask.sum(axis=1)))
    np.testing.assert_allclose(found.value, tensor.rewards[:, 0])


def test_what_stands_where_no_candidate_is_does_not_count(tensor):
    ratio = np.random.default_rng(0).normal(size=tensor.mask.shape)
    garbage = np.where(tensor.mask, ratio, np.nan)
    np.testing.assert_array_equal(from_pool(tensor, garbage).value, from_pool(tensor, ratio).value)
    np.testing.assert_array_equal(from_pool(tensor, garbage).kl, from_pool(tensor, ratio).kl)


def test_a_measured_portfolio_is_certified_with_its_own_values(planned, tensor, policies):
    oracle = GibbsOracle(tensor.rewards, planned.kl, mask=tensor.mask)
    measured = measured_portfolio(planned, policies, oracle)
    assert measured.origin == "measured"
    assert measured.ids == planned.ids
    np.testing.assert_allclose(measured.reference, oracle.reference)
    np.testing.assert_allclose(measured.value, planned.revalued(oracle).value, atol=1e-12)
    assert measured.certificate.epsilon == pytest.approx(certify(planned.revalued(oracle), oracle).epsilon, abs=1e-9)
    with pytest.raises(ValueError, match="policies: expected 3, one per member, got 2"):
        measured_portfolio(planned, policies[:2], oracle)


def test_worse_policies_have_a_larger_measured_gap(planned, tensor, policies):
    oracle = GibbsOracle(tensor.rewards, planned.kl, mask=tensor.mask)
    spoiled = [Measured(0.9 * policy.value, policy.kl) for policy in policies]
    gaps = [measured_portfolio(planned, some, oracle).certificate.epsilon for some in (policies, spoiled)]
    assert gaps[1] > gaps[0] + 0.02


def test_the_gaps_interval_holds_the_gap_and_narrows_with_prompts(planned):
    rng = np.random.default_rng(1)
    widths = []
    for prompts in (8, 128):
        many = RewardTensor(rng.beta(0.5, 0.8, size=(prompts, 8, 3)), np.ones((prompts, 8), dtype=bool))
        oracle = GibbsOracle(many.rewards, planned.kl)
        trained = [from_pool(many, np.log(oracle.policy_probabilities(weight))) for weight in planned.weights]
        found = gap_interval(on_prompts(many, trained, planned.kl), draws=40)
        exact = measured_portfolio(planned, trained, oracle).certificate
        for name in ("epsilon", "delta", "captured_gain"):
            assert found[name].mean == pytest.approx(getattr(exact, name))
            assert found[name].low <= found[name].high
            assert found[name].count == prompts
        assert found["epsilon"].low <= exact.epsilon * 1.2
        assert found["epsilon"].high >= exact.epsilon * 0.8
        widths.append(found["epsilon"].high - found["epsilon"].low)
    assert widths[1] < 0.6 * widths[0]


def test_no_policies_can_be_measured_too(planned, tensor):
    empty = replace(planned, weights=np.zeros((0, 3)), value=np.zeros((0, 3)), cost=np.zeros(0), ids=(), certificate=None)
    oracle = GibbsOracle(tensor.rewards, planned.kl, mask=tensor.mask)
    assert measured_portfolio(empty, [], oracle).certificate.captured_gain == 0
    assert gap_interval(on_prompts(tensor, [], planned.kl), draws=3)["captured_gain"].high == 0


def test_utilities_have_intervals_over_prompts(policies):
    weight = np.array([0.2, 0.3, 0.5])
    found = policies[0].utility(weight, 0.1)
    assert found.mean == pytest.approx((policies[0].value @ weight - 0.1 * policies[0].kl).mean())
    assert found.low < found.mean < found.high


@pytest.mark.parametrize(
    ("value", "kl", "message"),
    [
        (np.ones((3, 2)), np.ones(2), r"value, kl: expected \(P, K\) and \(P,\) with P at least 1, got \(3, 2\) and \(2,\)"),
        (np.ones((0, 2)), np.ones(0), r"value, kl: expected .* got \(0, 2\) and \(0,\)"),
        (np.ones(3), np.ones(3), r"value, kl: expected .* got \(3,\) and \(3,\)"),
        (np.array([[np.nan]]), np.ones(1), "value, kl: expected finite numbers, got .* at prompt 0"),
        (np.ones((2, 1)), np.array([0, np.inf]), "value, kl: expected finite numbers, got .* at prompt 1"),
    ],
)
def test_measurements_that_disagree_are_refused(value, kl, message):
    with pytest.raises(ValueError, match=message):
        Measured(value, kl)


def test_numbers_of_samples_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="samples: expected 5 responses to be a multiple of 2, for 2 per prompt"):
        from_samples(np.ones((5, 2)), np.ones(5), samples=2)
    with pytest.raises(ValueError, match="basis: expected 4 rows, one per response, got 6"):
        from_samples(np.ones((6, 2)), np.ones(4), samples=2)
    with pytest.raises(ValueError, match="log_ratio: expected 4 rows as in kl, got"):
        from_samples(np.ones((4, 2)), np.ones(4), samples=2, log_ratio=np.ones(3))
