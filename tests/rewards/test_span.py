from dataclasses import replace

import numpy as np
import pytest
from planted_users import plant

from palm.evaluation import accuracy, basis_angles
from palm.rewards import LoRe, compact, span
from palm.rewards.logistic import Standardised, fit_directions, fit_population, log_loss
from palm.rewards.span import Span


@pytest.fixture
def matrix():
    return np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)


@pytest.fixture
def empty(matrix):
    return Span(20, lambda directions: matrix @ directions.astype(np.float32))


def test_what_is_included_has_coordinates_and_nothing_else_has(empty, matrix):
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(20, 3)) * 1e3, rng.normal(size=(20, 2)) * 1e-3
    empty.include(first)
    empty.include(np.hstack([second, first[:, :1], np.zeros((20, 1))]))  # what is there already, and nothing, take no place
    assert empty.basis.shape == (20, 5)
    np.testing.assert_allclose(empty.basis.T @ empty.basis, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(empty.projected, matrix @ empty.basis, atol=1e-5)
    for given in (first, second, first[:, :2] @ rng.normal(size=(2, 4))):
        np.testing.assert_allclose(empty.basis @ empty.coordinates(given), given, rtol=1e-6, atol=1e-9)
    assert empty.coordinates(first + 1e-3 * rng.normal(size=first.shape)) is None
    outside = empty.outside(rng.normal(size=(20, 2)))
    np.testing.assert_allclose(empty.basis.T @ outside, 0, atol=1e-12)
    assert np.linalg.norm(outside) > 1


def test_a_full_span_begins_anew_with_what_was_asked_for(empty, matrix, monkeypatch):
    monkeypatch.setattr(span, "MOST", 6)
    rng = np.random.default_rng(2)
    old, new = rng.normal(size=(20, 5)), rng.normal(size=(20, 2))
    empty.include(old)
    empty.include(new)
    assert empty.basis.shape == (20, 2)
    assert empty.coordinates(new) is not None
    assert empty.coordinates(old) is None
    np.testing.assert_allclose(empty.projected, matrix @ empty.basis, atol=1e-5)


@pytest.fixture(scope="module")
def world():
    """Wide features of which a few directions vary much and most vary little."""
    return plant(width=60, users=60, pairs=60, alpha=0.05, texts=4000)


def _both(pairs, monkeypatch):
    """The same data with a span and without."""
    monkeypatch.setattr(compact, "_LARGE", 0)
    data = Standardised.of(pairs)
    assert data.compact.span is not None
    return data, replace(data, compact=replace(data.compact, span=None))


def test_a_solution_found_in_a_span_is_as_good_as_one_found_everywhere(world, monkeypatch):
    wide, plain = _both(world.seen, monkeypatch)
    weights = np.random.default_rng(3).dirichlet(np.ones(2), size=len(plain.pairs.ids))
    centre = fit_population(plain, 10.0)

    def value(directions):
        margin = (plain.scores(directions) * weights[plain.pairs.code]).sum(axis=1)
        return log_loss(margin).sum() + 0.5 * 30.0 * ((directions - centre[:, None]) ** 2).sum()

    options = {"penalty": 30.0, "centre": centre, "steps": 200, "tolerance": 1e-9}
    found, loss = fit_directions(wide, weights, np.zeros((60, 2)), **options)
    best, _ = fit_directions(plain, weights, np.zeros((60, 2)), **options)
    assert value(found) == pytest.approx(value(best), rel=1e-5)
    np.testing.assert_allclose(found, best, atol=0.02 * np.abs(best).max())
    assert loss == pytest.approx(log_loss((plain.scores(found) * weights[plain.pairs.code]).sum(axis=1)).sum(), rel=1e-5)
    assert 2 < wide.compact.span.basis.shape[1] < 60


def test_what_a_span_was_grown_for_has_no_part_in_another_solution(world, monkeypatch):
    wide, plain = _both(world.seen, monkeypatch)
    half = np.arange(len(world.seen)) % 2 == 0
    fit_population(wide.select(~half), 3.0)  # leaves its directions in the span that all selections share
    before = wide.compact.span.basis.shape[1]
    found, alone = fit_population(wide.select(half), 30.0), fit_population(plain.select(half), 30.0)
    assert before > 0
    np.testing.assert_allclose(found, alone, atol=0.02 * np.abs(alone).max())


def test_lore_ends_where_it_does_without_a_span(world, monkeypatch):
    estimator = LoRe(rank=2, penalty=30.0, personal_penalty=10.0, restarts=0)
    plain = estimator.fit(world.seen)
    monkeypatch.setattr(compact, "_LARGE", 0)
    monkeypatch.setattr(span, "MOST", 30)  # which is too few: it begins anew again and again
    wide = estimator.fit(world.seen)
    assert basis_angles(wide.directions, plain.directions).max() < 3
    users = [accuracy(model, world.unseen_test, model.infer(world.unseen_context)).overall.mean for model in (wide, plain)]
    assert users[0] == pytest.approx(users[1], abs=0.01)
