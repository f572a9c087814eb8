import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from palm.artifacts import ArtifactError
from palm.portfolio import GibbsOracle, Portfolio, certify, plan_portfolio


@pytest.fixture
def planned(random_tensor):
    portfolio = plan_portfolio(GibbsOracle(random_tensor(0, 3), 0.1), epsilon=0.05, names=("brevity", "Wärme", "式"))
    return replace(
        portfolio,
        ids=tuple(f"política-{n}-✓" for n in range(len(portfolio))),
        calibration=np.array([[0.1, 0.9], [-2, 3], [1e-7, 1 / 3]]),
        base_model="org/model",
    )


def assert_same(first, second):
    for name in ("weights", "value", "cost", "reference", "calibration"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    for name in ("kl", "ids", "solves", "origin", "bases", "base_model"):
        assert getattr(first, name) == getattr(second, name)


def test_saving_and_loading_changes_no_bit(planned, tmp_path):
    planned.save_pretrained(tmp_path)
    loaded = Portfolio.from_pretrained(tmp_path)
    assert_same(planned, loaded)
    for name, value in vars(planned.certificate).items():
        np.testing.assert_array_equal(value, getattr(loaded.certificate, name), err_msg=name)


def test_no_policies_and_an_infinite_gap_can_be_saved(pool_oracle, portfolio_of, tmp_path):
    oracle = pool_oracle([[1, 0], [0, 1]], reference=[0, 0])
    empty = portfolio_of(oracle, np.zeros((0, 2)))
    empty = replace(empty, certificate=certify(empty, oracle))
    assert np.isinf(empty.certificate.epsilon)
    empty.save_pretrained(tmp_path)
    json.loads((tmp_path / "portfolio.json").read_text(), parse_constant=pytest.fail)  # no NaN or Infinity, which JSON has not
    loaded = Portfolio.from_pretrained(tmp_path)
    assert_same(empty, loaded)
    assert loaded.value.shape == (0, 2)
    assert np.isinf(loaded.certificate.epsilon)
    assert loaded.certificate.incompatible.shape == (0, 2)


def test_a_portfolio_without_certificate_stays_without(planned, tmp_path):
    replace(planned, certificate=None, calibration=None, base_model=None).save_pretrained(tmp_path)
    loaded = Portfolio.from_pretrained(tmp_path)
    assert (loaded.certificate, loaded.calibration, loaded.base_model) == (None, None, None)


def test_only_a_portfolio_with_a_certificate_is_certified(planned):
    assert planned.certified is planned.certificate
    with pytest.raises(ValueError, match="certificate: expected a portfolio with one, got none"):
        _ = replace(planned, certificate=None).certified


def test_utilities_list_every_member_and_the_reference_last(planned, served_at):
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=20)
    utilities = planned.utilities(weights)
    assert utilities.shape == (20, len(planned) + 1)
    for j in range(len(planned)):
        np.testing.assert_allclose(utilities[:, j], weights @ planned.value[j] - planned.cost[j], atol=1e-12)
    np.testing.assert_allclose(utilities[:, -1], weights @ planned.reference, atol=1e-12)
    np.testing.assert_allclose(planned.served(weights), utilities.max(axis=1), atol=1e-12)
    np.testing.assert_allclose(planned.served(weights), served_at(planned, weights), atol=1e-12)


def test_revalued_on_other_prompts_is_what_the_weights_give_there(planned, random_tensor):
    oracle = GibbsOracle(random_tensor(77, 3), 0.1)
    moved = planned.revalued(oracle)
    np.testing.assert_array_equal(moved.weights, planned.weights)
    np.testing.assert_allclose(moved.value, oracle.solve(planned.weights).value)
    np.testing.assert_allclose(moved.cost, oracle.solve(planned.weights).cost)
    np.testing.assert_allclose(moved.reference, oracle.reference)
    assert moved.certificate is None
    empty = replace(planned, weights=np.zeros((0, 3)), value=np.zeros((0, 3)), cost=np.zeros(0), ids=())
    np.testing.assert_allclose(empty.revalued(oracle).reference, oracle.reference)


def test_a_portfolio_cannot_be_changed(planned):
    with pytest.raises(FrozenInstanceError):
        planned.kl = 1.0


GOOD = {
    "weights": np.eye(2),
    "value": np.full((2, 2), 0.5),
    "cost": np.zeros(2),
    "reference": np.full(2, 0.4),
    "kl": 0.1,
    "ids": ("a", "b"),
}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"ids": ("a", "a")}, r"ids: expected 2 different ids, got \['a', 'a'\]"),
        ({"ids": ("a",)}, r"ids: expected 2 different ids, got \['a'\]"),
        ({"ids": ("a", "../b")}, "ids: expected names that a folder can have, got '../b'"),
        ({"ids": ("a", "")}, "ids: expected names that a folder can have, got ''"),
        ({"value": np.ones((2, 3))}, r"value: expected the shape \(2, 2\) for 2 policies and 2 bases, got \(2, 3\)"),
        ({"cost": np.ones(3)}, r"cost: expected the shape \(2,\) .* got \(3,\)"),
        ({"reference": np.ones(3)}, r"reference: expected the shape \(2,\) .* got \(3,\)"),
        ({"cost": np.array([0.0, np.nan])}, r"cost: expected finite numbers, got \[0.0, nan\]"),
        ({"value": np.array([[0.5, np.inf], [0, 0]])}, "value: expected finite numbers"),
        ({"weights": np.full((2, 2), 0.6)}, r"weights: expected rows of the simplex .* with sum 1.2"),
        ({"bases": ("one",)}, r"bases: expected 2 names, got \['one'\]"),
    ],
)
def test_parts_that_disagree_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        Portfolio(**{**GOOD, **bad})


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_policies(path):
    record = json.loads(path.read_text())
    del record["policies"]
    path.write_text(json.dumps(record))


def with_a_stranger_in_the_certificate(path):
    record = json.loads(path.read_text())
    record["certificate"]["mood"] = 1
    path.write_text(json.dumps(record))


def of_another_format(path):
    path.write_text(json.dumps({"format": "palm.Router/1"}))


def with_ragged_weights(path):
    record = json.loads(path.read_text())
    record["policies"][0]["weight"] = [1.0]
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_in_half, "expected complete JSON"),
        (without_policies, "not a complete portfolio: KeyError.'policies'"),
        (with_a_stranger_in_the_certificate, "not a complete portfolio: TypeError.*mood"),
        (of_another_format, "expected the format 'palm.Portfolio/1', got 'palm.Router/1'"),
        (with_ragged_weights, "not a complete portfolio: ValueError"),
        (lambda path: path.write_text("[1, 2]"), "expected the format 'palm.Portfolio/1', got 'list'"),
        (lambda path: path.unlink(), "no such file; a run has its portfolios in RUN/plan"),
    ],
)
def test_damaged_files_are_named(planned, tmp_path, damage, message):
    planned.save_pretrained(tmp_path)
    damage(tmp_path / "portfolio.json")
    with pytest.raises(ArtifactError, match=message) as caught:
        Portfolio.from_pretrained(tmp_path)
    assert "portfolio.json" in str(caught.value)
