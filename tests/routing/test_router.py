from dataclasses import replace

import numpy as np
import pytest

from palm.artifacts import ArtifactError
from palm.features.pairs import PairFeatures
from palm.portfolio import certify
from palm.rewards import Given, UserWeights
from palm.routing import Router
from palm.simplex import project_to_simplex


def user_weights(mean, scale, seed=0):
    """Posteriors with covariances on the simplex's tangent, of the given size."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(len(mean), 3, 3)) * scale
    roots -= roots.mean(axis=1, keepdims=True)
    return UserWeights(np.array([f"u{n}" for n in range(len(mean))]), mean, roots @ roots.transpose(0, 2, 1))


def utilities_of(portfolio, weights):
    """(n, m + 1) w.J - C, policy by policy, the reference last."""
    columns = [weights @ value - cost for value, cost in zip(portfolio.value, portfolio.cost, strict=True)]
    return np.column_stack([*columns, weights @ portfolio.reference])


def test_the_expected_rule_takes_the_best_member_at_the_mean(portfolio, many):
    routes = Router(portfolio).route(many)
    utilities = utilities_of(portfolio, many)
    names = np.array([*portfolio.ids, "reference"])
    np.testing.assert_array_equal(routes.policy, names[utilities.argmax(axis=1)])
    np.testing.assert_allclose(routes.utility, utilities.max(axis=1), atol=1e-12)
    assert set(portfolio.ids) <= set(routes.policy)
    np.testing.assert_array_equal(routes.confidence, 1)


def test_the_mean_of_the_posterior_decides_because_utility_is_linear(portfolio, many):
    """The claim behind the rule: of all members the chosen one has the largest utility on average over posterior draws."""
    users = user_weights(many[:20] * 0.4 + 0.2, 0.03)
    routes = Router(portfolio).route(users)
    rng = np.random.default_rng(2)
    for user in range(20):
        drawn = rng.multivariate_normal(users.mean[user], users.covariance[user], size=4000, check_valid="ignore")
        assert drawn.min() > 0
        average = utilities_of(portfolio, drawn - drawn.mean(axis=0) + users.mean[user]).mean(axis=0)
        assert [*portfolio.ids, "reference"][average.argmax()] == routes.policy[user]


@pytest.mark.parametrize(("rule", "order"), [("nearest-l1", 1), ("nearest-l2", 2)])
def test_the_nearest_rules_take_the_nearest_weight(portfolio, many, rule, order):
    routes = Router(portfolio, rule=rule).route(many)
    distance = np.array([[np.linalg.norm(weight - own, ord=order) for own in portfolio.weights] for weight in many])
    assert routes.policy.tolist() == [portfolio.ids[j] for j in distance.argmin(axis=1)]
    utilities = utilities_of(portfolio, many)
    np.testing.assert_allclose(routes.utility, utilities[np.arange(len(many)), distance.argmin(axis=1)], atol=1e-12)
    best = Router(portfolio).route(many).utility
    assert (best >= routes.utility - 1e-12).all()
    assert (best > routes.utility + 1e-3).any()


def test_the_nearest_rules_differ_where_distances_do(portfolio):
    weights = np.array([[0.5, 0.5, 0.0], [0.0, 0.55, 0.45]])
    two = replace(portfolio, weights=weights, value=portfolio.value[:2], cost=np.zeros(2), ids=("a", "b"), certificate=None)
    apart = np.random.default_rng(0).dirichlet(np.ones(3), size=500)
    nearest = {}
    for rule, order in (("nearest-l1", 1), ("nearest-l2", 2)):
        distance = np.array([np.linalg.norm(apart - own, ord=order, axis=1) for own in weights])
        nearest[rule] = np.array(["a", "b"])[distance.argmin(axis=0)]
        np.testing.assert_array_equal(Router(two, rule=rule).route(apart).policy, nearest[rule])
    assert (nearest["nearest-l1"] != nearest["nearest-l2"]).any()


@pytest.mark.parametrize("rule", ["expected", "nearest-l1", "nearest-l2"])
def test_no_policy_would_have_been_better_by_more_than_the_bound(portfolio, oracle, many, rule):
    routes = Router(portfolio, rule=rule).route(many)
    regret = oracle.optimum(many) - routes.utility
    assert (regret <= routes.regret_bound + 1e-9).all()
    assert (routes.regret_bound >= 0).all()
    assert np.median(routes.regret_bound) < 0.5


def test_the_bound_counts_what_a_wrong_turn_costs(portfolio, oracle, many):
    """Weights that belong to other policies lead the nearest rule astray; the values, and so the certificate, are the same."""
    astray = replace(portfolio, weights=portfolio.weights[[1, 2, 0, 3]])
    routes, expected = Router(astray, rule="nearest-l2").route(many), Router(astray).route(many)
    regret = oracle.optimum(many) - routes.utility
    assert (regret <= routes.regret_bound + 1e-9).all()
    assert (regret > expected.regret_bound).mean() > 0.3
    np.testing.assert_allclose(routes.regret_bound - expected.regret_bound, expected.utility - routes.utility, atol=1e-12)


def test_the_bound_is_attained_at_the_certificates_worst_weight(portfolio, oracle):
    certificate = portfolio.certificate
    for worst in (certificate.worst_weight, certificate.worst_weight_delta):
        routes = Router(portfolio).route(worst)
        regret = (oracle.optimum(worst[None]) - routes.utility)[0]
        assert regret == pytest.approx(min(certificate.epsilon * routes.utility[0], certificate.delta), rel=0.05)
    multiplicative = oracle.optimum(certificate.worst_weight[None]) - Router(portfolio).route(certificate.worst_weight).utility
    bound = Router(replace(portfolio, certificate=replace(certificate, delta=np.inf))).route(certificate.worst_weight).regret_bound
    np.testing.assert_allclose(bound, multiplicative, atol=1e-9)


def test_what_a_certificate_was_given_counts_in_the_bound(portfolio, oracle, many):
    given = replace(portfolio, certificate=certify(portfolio, oracle, epsilon=0.02, delta=0.01))
    routes = Router(given).route(many)
    assert (oracle.optimum(many) - routes.utility <= routes.regret_bound + 1e-9).all()


def test_without_a_certificate_nothing_is_promised(portfolio, many):
    assert np.isinf(Router(replace(portfolio, certificate=None)).route(many).regret_bound).all()


def test_an_infinite_gap_leaves_the_additive_bound(portfolio, oracle, many):
    worthless = replace(portfolio, value=np.zeros((4, 3)), cost=np.zeros(4), reference=np.zeros(3), certificate=None)
    worthless = replace(worthless, certificate=certify(worthless, oracle))
    assert np.isinf(worthless.certificate.epsilon)
    routes = Router(worthless).route(many)
    np.testing.assert_allclose(routes.regret_bound, worthless.certificate.delta)
    assert (oracle.optimum(many) <= routes.regret_bound + 1e-9).all()


def test_confidence_is_the_posterior_probability_that_none_is_better(portfolio, many):
    users = user_weights(many[:25], 0.15, seed=3)
    routes = Router(portfolio).route(users)
    rng = np.random.default_rng(4)
    for user in range(25):
        drawn = rng.multivariate_normal(users.mean[user], users.covariance[user], size=20_000, check_valid="ignore")
        utilities = utilities_of(portfolio, project_to_simplex(drawn))
        chosen = [*portfolio.ids, "reference"].index(routes.policy[user])
        exact = (utilities[:, chosen] >= utilities.max(axis=1) - 1e-12).mean()
        assert routes.confidence[user] == pytest.approx(exact, abs=0.06)
    assert routes.confidence.min() < 0.8
    np.testing.assert_array_equal(Router(portfolio).route(user_weights(many, 0.0)).confidence, 1)


def test_confidence_does_not_depend_on_who_else_is_routed(portfolio, many):
    users = user_weights(many, 0.1)
    alone = Router(portfolio).route(users.select(users.ids[[700, 5]])).confidence
    np.testing.assert_allclose(alone, Router(portfolio).route(users).confidence[[700, 5]], atol=1e-12)


def test_confidence_grows_with_a_users_pairs(portfolio):
    """A user who always says the same: unsure of with no pairs, sure of with many."""
    rng = np.random.default_rng(0)
    items = rng.random((400, 3))
    first, second = np.arange(200), np.arange(200, 400)
    wins = items[first, 0] > items[second, 0]
    pairs = PairFeatures.from_items(["u"] * 200, items, np.where(wins, first, second), np.where(wins, second, first))
    model = Given().fit(pairs)
    router = Router(portfolio, reward_model=model)
    confidence = [
        router.route(router.infer(pairs.select(np.arange(count)))).confidence[0] if count else
        router.route(model.infer(pairs.select(np.array([], dtype=int)), ids=np.array(["new"]))).confidence[0]
        for count in (0, 200)
    ]  # fmt: skip
    assert 0 < confidence[0] <= 1
    assert confidence[1] > 0.9


def test_everyone_goes_to_the_reference_where_there_is_nothing_else(empty, many, oracle):
    routes = Router(empty).route(user_weights(many, 0.1))
    assert set(routes.policy) == {"reference"}
    np.testing.assert_array_equal(routes.confidence, 1)
    assert (oracle.optimum(many) - routes.utility <= routes.regret_bound + 1e-9).all()
    with pytest.raises(ValueError, match="portfolio: expected a policy to be nearest to for the rule 'nearest-l1', got none"):
        Router(empty, rule="nearest-l1")


def test_nobody_can_be_routed_too(portfolio):
    for weights in (np.zeros((0, 3)), user_weights(np.zeros((0, 3)), 1.0)):
        routes = Router(portfolio).route(weights)
        assert [len(array) for array in vars(routes).values()] == [0, 0, 0, 0]


def test_one_weight_is_one_route(portfolio):
    assert Router(portfolio).route([1.0, 0.0, 0.0]).policy.shape == (1,)


@pytest.fixture
def saved(portfolio, tmp_path):
    rng = np.random.default_rng(5)
    items = rng.random((60, 3))
    pairs = PairFeatures.from_items(np.repeat(["å", "b"], 15), items, np.arange(30), np.arange(30, 60))
    router = Router(portfolio, rule="nearest-l2", reward_model=Given().fit(pairs))
    router.save_pretrained(tmp_path)
    return router, pairs, tmp_path


def test_saving_and_loading_changes_no_bit(saved, many):
    router, pairs, folder = saved
    loaded = Router.from_pretrained(folder)
    assert loaded.rule == "nearest-l2"
    first, second = router.infer(pairs), loaded.infer(pairs)
    np.testing.assert_array_equal(first.mean, second.mean)
    for weights in (many, first):
        for name, array in vars(router.route(weights)).items():
            np.testing.assert_array_equal(array, getattr(loaded.route(weights), name))


def test_a_router_without_reward_model_cannot_infer(portfolio, tmp_path, saved):
    Router(portfolio).save_pretrained(tmp_path / "bare")
    bare = Router.from_pretrained(tmp_path / "bare")
    assert bare.reward_model is None
    with pytest.raises(ValueError, match="reward_model: this router has none, so it cannot infer weights from pairs"):
        bare.infer(saved[1])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("router.json", '{"format": "palm.Router/1", "rule', "router.json: expected complete JSON"),
        (
            "router.json",
            '{"format": "palm.Portfolio/1"}',
            "router.json: expected the format 'palm.Router/1', got 'palm.Portfolio/1'",
        ),
        ("router.json", '{"format": "palm.Router/1"}', "router.json: not a complete router: KeyError.'rule'"),
        (
            "router.json",
            '{"format": "palm.Router/1", "rule": "magic"}',
            "router.json: not a complete router: .*expected one of expected",
        ),
        ("portfolio.json", "{", "portfolio.json: expected complete JSON"),
        ("rewards/reward.json", "{}", "reward.json: expected a reward model of a known geometry, got None"),
    ],
)
def test_damaged_files_are_named(saved, file, content, message):
    folder = saved[2]
    (folder / file).write_text(content)
    with pytest.raises(ArtifactError, match=message):
        Router.from_pretrained(folder)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.array([[0.5, 0.5]]), "weights: expected 3 columns, one per basis, got 2"),
        (np.array([[0.5, 0.5, 0.5]]), r"weights: expected rows of the simplex .* with sum 1.5"),
        (np.array([[np.nan, 0.5, 0.5]]), r"weights: expected finite numbers, got \[nan, 0.5, 0.5\] in row 0"),
        (np.array([["a", "b", "c"]]), r"weights: expected numbers in the shape \(n, K\)"),
    ],
)
def test_bad_weights_are_refused(portfolio, weights, message):
    with pytest.raises(ValueError, match=message):
        Router(portfolio).route(weights)


def test_unknown_rules_are_refused(portfolio):
    with pytest.raises(ValueError, match="rule: expected one of expected, nearest-l1, nearest-l2, got 'closest'"):
        Router(portfolio, rule="closest")
