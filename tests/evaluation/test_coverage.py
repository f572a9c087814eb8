import json
from dataclasses import replace

import numpy as np
import pytest

from palm.evaluation import coverage
from palm.portfolio import GibbsOracle, certify


def test_means_over_the_simplex_lie_below_the_certificate(planned, oracle):
    found = coverage(planned, oracle)
    assert found.certificate.epsilon == pytest.approx(planned.certificate.epsilon)
    weights = np.random.default_rng(9).dirichlet(np.ones(3), size=20_000)
    optimum, served = oracle.optimum(weights), planned.served(weights)
    assert found.mean_epsilon == pytest.approx((optimum / served - 1).mean(), rel=0.05)
    assert found.mean_delta == pytest.approx((optimum - served).mean(), rel=0.05)
    assert 0 < found.mean_epsilon < found.certificate.epsilon
    assert 0 < found.mean_delta < found.certificate.delta


def test_without_users_nothing_is_said_of_them(planned, oracle):
    for users in (None, np.zeros((0, 3))):
        found = coverage(planned, oracle, users)
        assert found.users == 0
        assert (found.user_regret, found.user_worst_epsilon, found.user_gain) == (None, None, None)


def test_users_gaps_are_recounted(planned, oracle):
    users = np.random.default_rng(1).dirichlet(np.full(3, 0.3), size=40)
    found = coverage(planned, oracle, users)
    optimum, served = oracle.optimum(users), planned.served(users)
    assert found.users == 40
    assert found.user_regret.mean == pytest.approx((optimum - served).mean())
    assert found.user_worst_epsilon == pytest.approx((optimum / served - 1).max())
    assert found.user_gain.mean == pytest.approx((served - users @ oracle.reference).mean())
    assert found.user_worst_epsilon <= found.certificate.epsilon + 1e-9
    worst = coverage(planned, oracle, found.certificate.worst_weight[None])
    assert worst.user_worst_epsilon == pytest.approx(found.certificate.epsilon)  # where the bound is tight


def test_held_out_prompts_have_their_own_certificate(planned):
    other = GibbsOracle(np.random.default_rng(7).beta(0.5, 0.8, size=(6, 8, 3)), 0.1)
    found = coverage(planned.revalued(other), other)
    assert found.certificate.epsilon == pytest.approx(certify(planned.revalued(other), other).epsilon)
    assert found.certificate.epsilon != pytest.approx(planned.certificate.epsilon, rel=1e-3)


def test_the_record_is_json_even_where_a_gap_is_infinite(planned, oracle):
    users = np.vstack([np.eye(3), np.full((1, 3), 1 / 3)])
    nothing = replace(planned, value=np.zeros((3, 3)), cost=np.zeros(3), reference=np.zeros(3), certificate=None)
    found = coverage(nothing, oracle, users)
    assert np.isinf(found.certificate.epsilon)
    assert np.isinf(found.user_worst_epsilon)
    record = found.record()
    assert json.loads(json.dumps(record, allow_nan=False))["worst_epsilon"] is None
    assert record["user_worst_epsilon"] is None
    assert record["worst_delta"] == pytest.approx(oracle.optimum(np.eye(3)).max())


@pytest.mark.parametrize(
    ("users", "message"),
    [
        (np.full((2, 3), 0.5), r"users: expected rows of the simplex .* with sum 1.5"),
        (np.eye(2), "users: expected 3 columns, one per basis, got 2"),
    ],
)
def test_users_off_the_simplex_are_refused(planned, oracle, users, message):
    with pytest.raises(ValueError, match=message):
        coverage(planned, oracle, users)
