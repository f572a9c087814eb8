from dataclasses import replace

import numpy as np
import pytest

from palm.evaluation.measure import Measured
from palm.routing.served import View, serve


def specialists(portfolio, prompts=40, noise=0.0, seed=0):
    """Two policies, each good at one basis, and a reference that is fair at both; prompts differ by noise."""
    rng = np.random.default_rng(seed)
    means = {"one": [0.9, 0.1], "other": [0.1, 0.9], "reference": [0.5, 0.5]}
    values = {name: np.array(mean) + noise * rng.normal(size=(prompts, 2)) for name, mean in means.items()}
    measured = {name: Measured(values[name], np.full(prompts, 1.0)) for name in ("one", "other")}
    planned = replace(
        portfolio,
        weights=np.eye(2),
        value=np.zeros((2, 2)),
        cost=np.zeros(2),
        reference=np.zeros(2),
        ids=("one", "other"),
        bases=(),
        kl=0.1,
        certificate=None,
        calibration=None,
    )
    return planned, measured, values["reference"]


def test_routed_users_get_what_is_known_by_hand(portfolio):
    planned, measured, reference = specialists(portfolio)
    users = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [1.0, 0.0], [1.0, 0.0]])
    found = serve(planned, View(measured, reference, users))
    np.testing.assert_allclose(found.routed, [0.8, 0.8, 0.5, 0.8, 0.8])
    assert found.single_policy == "one"  # on average 0.7 x 0.9 + 0.3 x 0.1 - 0.1 = 0.56; the reference gives 0.5
    np.testing.assert_allclose(found.single, [0.8, 0.0, 0.4, 0.8, 0.8], atol=1e-12)
    assert found.gain.mean == pytest.approx(np.mean(found.routed - found.single))
    assert found.worse_off == 0
    assert found.record()["users"] == 5


def test_a_majority_decides_the_single_policy(portfolio):
    planned, measured, reference = specialists(portfolio)
    found = serve(planned, View(measured, reference, np.repeat(np.eye(2), [9, 1], axis=0)))
    assert found.single_policy == "one"
    np.testing.assert_allclose(found.single, [0.8] * 9 + [0.0], atol=1e-12)
    np.testing.assert_allclose(found.gain.mean, 0.08)


def test_choosing_and_evaluating_on_different_prompts_does_not_flatter(portfolio):
    """Policies that differ by noise only: nobody can gain by routing, though on the same prompts everyone would seem to."""
    gains, seeming = [], []
    rng = np.random.default_rng(0)
    for seed in range(200):
        planned, _, _ = specialists(portfolio)
        values = {name: 0.5 + 0.3 * rng.normal(size=(12, 2)) for name in ("one", "other", "reference")}
        measured = {name: Measured(values[name], np.zeros(12)) for name in ("one", "other")}
        users = np.eye(2)
        gains.append(serve(planned, View(measured, values["reference"], users), seed=seed).gain.mean)
        utilities = users @ np.array([values[name].mean(axis=0) for name in values]).T
        seeming.append(utilities.max(axis=1).mean() - utilities.mean(axis=0).max())
    assert np.mean(seeming) > 0.02
    assert abs(np.mean(gains)) < 0.4 * np.mean(seeming)


def test_what_users_get_is_judged_by_the_truth_where_that_is_given(portfolio):
    """Learned weights that are the wrong way round send everyone to the wrong specialist."""
    planned, measured, reference = specialists(portfolio)
    users = np.repeat(np.eye(2), 5, axis=0)
    judged = View(measured, reference, users)
    right, wrong = (serve(planned, View(measured, reference, learned), judged=judged) for learned in (users, users[::-1]))
    np.testing.assert_allclose(right.routed, 0.8)
    np.testing.assert_allclose(wrong.routed, 0.0, atol=1e-12)
    assert wrong.worse_off == 1
    assert wrong.gain.mean < 0 < right.gain.mean


def test_rules_are_the_routers(portfolio):
    planned, measured, reference = specialists(portfolio)
    users = np.array([[0.55, 0.45]])  # the reference is better than either, but the nearest rules never take it
    assert serve(planned, View(measured, reference, users)).routed[0] == pytest.approx(0.5)
    nearest = serve(planned, View(measured, reference, users), rule="nearest-l2").routed[0]
    assert nearest == pytest.approx(0.55 * 0.9 + 0.45 * 0.1 - 0.1)


def test_without_policies_everyone_has_the_reference(portfolio):
    planned, _, reference = specialists(portfolio)
    none = replace(planned, weights=np.zeros((0, 2)), value=np.zeros((0, 2)), cost=np.zeros(0), ids=())
    for rule in ("expected", "nearest-l1"):
        found = serve(none, View({}, reference, np.eye(2)), rule=rule)
        np.testing.assert_allclose(found.routed, 0.5)
        assert found.single_policy == "reference"
        assert found.gain.mean == 0


def test_too_little_to_halve_is_refused(portfolio):
    planned, measured, reference = specialists(portfolio)
    with pytest.raises(ValueError, match="chosen: expected at least two prompts and one user, got 1 and 2"):
        serve(planned, View(measured, reference[:1], np.eye(2)))
    with pytest.raises(ValueError, match="chosen: expected at least two prompts and one user, got 40 and 0"):
        serve(planned, View(measured, reference, np.zeros((0, 2))))
