"""A sound portfolio passes, every kind of tampering is caught, and the recount agrees with what is known by hand."""

import ast
import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import palm.portfolio.recount
import palm.portfolio.verify
from palm.portfolio import GibbsOracle, certify, plan_portfolio
from palm.portfolio.corners import corner_weights
from palm.portfolio.recount import Recount, apart, ascend, cell_corners, random_weights
from palm.portfolio.verify import FAILS, HOLDS, OPEN, sound, verify
from palm.rewards import RewardTensor


def test_nothing_is_shared_with_the_maker():
    parts = ("claim", "contradictions", "curve_claim", "form", "recount", "room", "stated", "verdict", "verify")
    own = {f"palm.portfolio.{part}" for part in parts}
    for part in parts:
        tree = ast.parse((Path(palm.portfolio.verify.__file__).parent / f"{part}.py").read_text(encoding="utf-8"))
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert {name for name in names if name.startswith("palm")} <= own
        assert {name.split(".")[0] for name in names} <= {"palm", "numpy", "scipy", *("ast", "json", "math", "dataclasses")} | {
            "collections",
            "itertools",
            "pathlib",
            "statistics",
            "typing",
        }


def test_a_sound_portfolio_holds_line_by_line(saved, run):
    lines = run(saved)
    assert [line.what for line in lines if line.verdict == FAILS] == []
    assert {line.verdict for line in lines} == {HOLDS}
    assert len(lines) > 20
    assert sound(lines)


def test_without_the_rewards_it_says_what_stays_open(saved, run):
    lines = run(saved, rewards=False)
    assert sound(lines)
    assert [line.verdict for line in lines].count(OPEN) == 1
    assert "that needs the rewards" in lines[-1].what


def in_certificate(name, change):
    return lambda record: record["certificate"].__setitem__(name, change(record["certificate"][name]))


def raise_a_value(record):
    record["policies"][1]["value"][0] += 1e-5


def lower_costs(record):
    for policy in record["policies"]:  # every one: without rewards it shows only at corners where the policy is best
        policy["cost"] *= 1 - 1e-5


def move_a_weight(record):
    weight = record["policies"][1]["weight"]
    weight[:2] = [weight[0] + 1e-4, weight[1] - 1e-4]


def drop_a_policy(record):
    record["policies"].pop(1)


def move(weight):
    return (0.999 * np.array(weight) + 0.001 / len(weight)).tolist()


@pytest.mark.parametrize(
    ("change", "message", "seen_without_rewards"),
    [
        (in_certificate("epsilon", lambda number: number - 1e-6), "epsilon = .* is attained at its worst weight", False),
        (in_certificate("epsilon", lambda number: number - 1e-6), "epsilon = .* holds at all", False),
        (in_certificate("epsilon", lambda number: number - 1e-2), "epsilon: none of 5,000 random weights and 20 climbs", True),
        (in_certificate("epsilon", lambda number: number + 1e-6), "epsilon = .* is attained", False),
        (in_certificate("delta", lambda number: number - 1e-6), "delta = .* holds at all", False),
        (in_certificate("captured_gain", lambda number: number + 1e-6), "captured_gain = .* holds at all", False),
        (in_certificate("worst_weight", move), "epsilon = .* is attained at its worst weight", True),
        (in_certificate("worst_weight_delta", move), "worst weight of delta is a corner", True),
        (in_certificate("worst_weight_captured", move), "worst weight of captured_gain is a corner", True),
        (in_certificate("size_at_least", lambda size: size + 1), "size_at_least = .* is shown by", True),
        (in_certificate("incompatible", lambda rows: [rows[0], *rows[:-1]]), "pairs of them could share a policy", False),
        (in_certificate("given_delta", lambda _: 0.01), "epsilon = .* is attained", True),
        (lambda record: record.__setitem__("kl", record["kl"] * (1 + 1e-5)), "value and KL cost are those of", False),
        (raise_a_value, "policy-1: value and KL cost are those of", True),
        (lower_costs, "policy-0: value and KL cost are those of", True),
        (move_a_weight, "policy-1: value and KL cost are those of", False),
        (drop_a_policy, "epsilon = .* holds at all", True),
        (lambda record: record["reference"].__setitem__(0, record["reference"][0] + 1e-4), "reference's value is", False),
    ],
)
def test_tampering_is_caught(tampered, change, message, seen_without_rewards):
    found, bare = tampered(change)
    assert any(re.search(message, what) for what in found), found
    if seen_without_rewards:
        assert bare


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record["policies"][0]["weight"].__setitem__(0, 0.5), "weights lie on the simplex"),
        (lambda record: record["policies"][0].__setitem__("cost", -0.1), "no KL cost is negative"),
        (lambda record: record["policies"][1].__setitem__("id", record["policies"][0]["id"]), "ids are distinct"),
        (lambda record: record["policies"][0]["value"].__setitem__(0, float("nan")), "all numbers are finite"),
        (lambda record: record["certificate"].pop("worst_weight_delta"), "the certificate is complete: KeyError"),
    ],
)
def test_what_cannot_be_a_portfolio_fails_first(tampered, change, message):
    found, bare = tampered(change)
    for few in (found, bare):
        assert any(message in what for what in few), few


def test_files_that_cannot_be_read_are_named(saved, tmp_path, random_tensor):
    with pytest.raises(ValueError, match=r"portfolio\.json: no such file"):
        verify(tmp_path)
    (tmp_path / "portfolio.json").write_text("{")
    with pytest.raises(ValueError, match="expected complete JSON"):
        verify(tmp_path)
    (tmp_path / "portfolio.json").write_text('{"bases": ["a"]}')
    with pytest.raises(ValueError, match="not a complete portfolio: KeyError"):
        verify(tmp_path)
    with pytest.raises(ValueError, match=r"none\.safetensors: no such file"):
        verify(saved, tmp_path / "none.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"12345678junk")
    with pytest.raises(ValueError, match="expected a complete safetensors file"):
        verify(saved, tmp_path / "junk.safetensors")
    tensor = random_tensor(0, 2)
    RewardTensor(tensor, np.ones(tensor.shape[:2], dtype=bool)).save(tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match=r"expected rewards of 3 bases as in the portfolio, got the shape \(5, 7, 2\)"):
        verify(saved, tmp_path / "two.safetensors")


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("bases", [1, 2, 4])
def test_portfolios_of_any_size_and_either_target_hold(tmp_path, random_tensor, portfolio_of, bases, size, run):
    rewards = random_tensor(5, bases)
    oracle = GibbsOracle(rewards, 0.1)
    portfolio = portfolio_of(oracle, np.random.default_rng(0).dirichlet(np.ones(bases), size=size))
    RewardTensor(rewards, np.ones(rewards.shape[:2], dtype=bool)).save(tmp_path / "rewards.safetensors")
    for given in ({}, {"delta": 0.02, "captured_bound": True}, {"epsilon": 0.03}):
        replace(portfolio, certificate=certify(portfolio, oracle, **given)).save_pretrained(tmp_path)
        assert [line.what for line in run(tmp_path) if line.verdict == FAILS] == []


def test_an_older_file_can_be_verified(saved, tmp_path, run):
    record = json.loads((saved / "portfolio.json").read_text())
    for name in [
        name for name in record["certificate"] if ("given_delta" in name and name != "given_delta") or "captured_" in name
    ]:
        if name != "captured_gain":
            del record["certificate"][name]
    (tmp_path / "portfolio.json").write_text(json.dumps(record))
    (tmp_path / "rewards.safetensors").write_bytes((saved / "rewards.safetensors").read_bytes())
    assert [line.what for line in run(tmp_path) if line.verdict == FAILS] == []


@pytest.mark.parametrize("bases", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(6))
def test_two_ways_to_the_corners_agree(bases, seed):
    rng = np.random.default_rng([seed, bases])
    values = rng.random((int(rng.integers(1, 12)), bases))
    values = [values, np.round(4 * values) / 4, np.vstack([values, values[:1]])][seed % 3]
    found, known = cell_corners(values), corner_weights(values)
    apart_by = np.abs(found[:, None] - known[None]).max(axis=2)
    utility = known @ values.T
    # Every corner of the one is among the other's, but for those that Qhull leaves at rounding distance from one another.
    assert apart_by.min(axis=0).max() < 1e-7, known[apart_by.min(axis=0).argmax()]
    assert apart_by.min(axis=1).max() < 1e-7
    assert np.isfinite(utility).all()


def test_corners_of_three_specialists_are_known_by_hand():
    found = cell_corners(np.eye(3))
    by_hand = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [1 / 3] * 3]
    assert sorted(map(tuple, np.round(found, 9))) == sorted(map(tuple, np.round(by_hand, 9)))


def test_too_many_corners_are_said_to_be(monkeypatch, saved, run):
    monkeypatch.setattr(palm.portfolio.recount, "_MOST_RAYS", 3)
    lines = run(saved)
    assert sound(lines)
    assert sum("too many corners" in line.what for line in lines) == 4


def test_recounted_policies_and_optima_are_those_of_the_definitions(two_sided):
    kl = 0.3
    recount = Recount(np.eye(2)[None], kl)
    value, cost = recount.policy(np.array([1.0, 0.0]))
    first = np.exp(1 / kl) / (np.exp(1 / kl) + 1)
    np.testing.assert_allclose(value, [first, 1 - first])
    assert cost == pytest.approx(kl * (first * np.log(2 * first) + (1 - first) * np.log(2 * (1 - first))))
    weights = random_weights(50, 2, np.random.default_rng(0))
    np.testing.assert_allclose(recount.optimum(weights), two_sided(kl).optimum(weights), atol=1e-12)
    assert recount.optimum(np.array([[1.0, 0.0]]))[0] == pytest.approx(value[0] - cost)


def test_climbing_reaches_a_peak_known_by_hand():
    peak = np.array([0.2, 0.3, 0.5])
    starts = random_weights(10, 3, np.random.default_rng(0))
    tops = ascend(lambda weights: -np.abs(weights - peak).sum(axis=1), starts)
    assert np.abs(tops - peak).max() < 1e-3
    np.testing.assert_array_equal(ascend(lambda weights: weights[:, 0], np.ones((2, 1))), np.ones((2, 1)))


def test_apart_is_decided_by_the_lowest_point_between(two_sided):
    kl, epsilon = 0.1, 0.02
    oracle = two_sided(kl)
    one, other = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    ends, middle = float(oracle.optimum(one[None])[0]), 0.5  # by symmetry the lowest point is the middle
    for delta, told in ((ends - 1.02 * middle - 1e-6, True), (ends - 1.02 * middle + 1e-6, False)):
        assert apart(oracle.optimum, one, other, 1 + epsilon, delta) is told
    near = [np.array([t, 1 - t]) for t in (0.9, 0.95)]
    assert not any(apart(oracle.optimum, *pair, 1.5, 0.0) for pair in combinations(near, 2))


@pytest.mark.parametrize("scale", [1e-8, 1e6])
def test_what_is_off_is_told_by_the_size_of_the_rewards(random_tensor, run, tmp_path, scale):
    rewards = random_tensor(0, 3, prompts=12, candidates=8) * scale
    RewardTensor(rewards, np.ones(rewards.shape[:2], dtype=bool)).save(tmp_path / "rewards.safetensors")
    plan_portfolio(GibbsOracle(rewards, 0.05 * scale), epsilon=0.05).save_pretrained(tmp_path)
    assert [line.what for line in run(tmp_path) if line.verdict == FAILS] == []
    record = json.loads((tmp_path / "portfolio.json").read_text())
    for change, message in ((lower_costs, "policy-0: value and KL cost are"), (raise_the_reference, "the reference's value is")):
        changed = json.loads(json.dumps(record))
        change(changed)
        (tmp_path / "portfolio.json").write_text(json.dumps(changed))
        assert any(message in line.what for line in run(tmp_path) if line.verdict == FAILS)


def raise_the_reference(record):
    record["reference"] = [value * (1 + 1e-5) for value in record["reference"]]
