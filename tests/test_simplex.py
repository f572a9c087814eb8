import math

import numpy as np
import pytest
from scipy.optimize import minimize

from palm.simplex import check_weights, project_to_simplex, sample_simplex, tangent_basis, uniform_grid


def test_good_weights_come_back_as_rows_of_float64():
    given = [0.25, 0.75]
    rows = check_weights(given, bases=2)
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows, [[0.25, 0.75]])
    assert check_weights(np.zeros((0, 3))).shape == (0, 3)


def test_the_caller_keeps_their_array():
    given = np.array([[0.5, 0.5]])
    check_weights(given)[0, 0] = 9
    assert given[0, 0] == 0.5


def test_rounding_is_forgiven_and_mended():
    rows = check_weights(np.array([[1.0 + 5e-7, -5e-7], [0.3333333, 0.6666666]]))
    assert (rows >= 0).all()
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-15)


def test_checking_twice_changes_no_bit():
    once = check_weights(sample_simplex(5000, 7, np.random.default_rng(0)).astype(np.float32))
    np.testing.assert_array_equal(check_weights(once), once)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[0.5, 0.5 + 2e-6]], r"weights: expected rows of the simplex \(at least 0, sum 1\), got .* in row 0 with sum 1.000002"),
        ([[1, 0], [0, 0]], r"weights: expected rows of the simplex .* got \[0.0, 0.0\] in row 1 with sum 0; project_to_simplex"),
        ([[1.5, -0.5]], r"weights: expected rows of the simplex .* got \[1.5, -0.5\] in row 0"),
        ([[1 + 2e-6, -2e-6]], "weights: expected rows of the simplex"),
        ([[1, 0], [np.nan, 1]], r"weights: expected finite numbers, got \[nan, 1.0\] in row 1"),
        ([[np.inf, 0]], r"weights: expected finite numbers, got \[inf, 0.0\] in row 0"),
        (np.ones((2, 2, 2)), r"weights: expected the shape \(n, K\) with K at least 1, got \(2, 2, 2\)"),
        (np.zeros((3, 0)), r"weights: expected the shape \(n, K\) with K at least 1, got \(3, 0\)"),
        (0.5, r"weights: expected the shape \(n, K\) with K at least 1, got \(\)"),
        ([[1, 0], [1]], r"weights: expected numbers in the shape \(n, K\), got \[\[1, 0\], \[1\]\]"),
        (["all", "none"], r"weights: expected numbers in the shape \(n, K\), got \['all', 'none'\]"),
    ],
)
def test_bad_weights_are_refused_with_what_is_wrong(weights, message):
    with pytest.raises(ValueError, match=message):
        check_weights(weights)


def test_another_number_of_bases_is_refused_under_the_arguments_own_name():
    with pytest.raises(ValueError, match="users: expected 3 columns, one per basis, got 2"):
        check_weights([[0.5, 0.5]], bases=3, name="users")


def test_projections_are_the_nearest_weights():
    rng = np.random.default_rng(0)
    points = np.vstack([rng.normal(0, s, size=(6, 4)) for s in (0.1, 1, 10)])
    projected = project_to_simplex(points)
    for point, found in zip(points, projected, strict=True):
        best = minimize(
            lambda w, p=point: ((w - p) ** 2).sum(),
            np.full(4, 0.25),
            jac=lambda w, p=point: 2 * (w - p),
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-15},
        ).x
        np.testing.assert_allclose(found, best, atol=1e-5)
    np.testing.assert_allclose(check_weights(projected), projected, atol=1e-12)


def test_projections_known_by_hand():
    np.testing.assert_allclose(project_to_simplex([2.0, 0.0]), [1, 0])
    np.testing.assert_allclose(
        project_to_simplex([[0.5, 0.5], [1, 1], [-3, -4], [0.9, 0.3]]), [[0.5, 0.5]] * 2 + [[1, 0], [0.8, 0.2]]
    )
    np.testing.assert_allclose(project_to_simplex([-7.0]), [1.0])
    inside = sample_simplex(50, 5, np.random.default_rng(0))
    np.testing.assert_allclose(project_to_simplex(inside), inside, atol=1e-15)


@pytest.mark.parametrize("points", [np.zeros((2, 0)), np.array([np.nan, 1.0]), np.array([np.inf, 0.0])])
def test_what_cannot_be_projected_is_refused(points):
    with pytest.raises(ValueError, match=r"points: expected finite numbers in the shape \(n, K\) with K at least 1, got"):
        project_to_simplex(points)


def test_samples_are_uniform_on_the_simplex():
    drawn = sample_simplex(40_000, 3, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.sum(axis=1), 1)
    # Uniform on the triangle: the mean is its centre, Var(w_k) = (K - 1) / (K^2 (K + 1)) and P(w_1 > t) = (1 - t)^2.
    np.testing.assert_allclose(drawn.mean(axis=0), 1 / 3, atol=0.005)
    np.testing.assert_allclose(drawn.var(axis=0), 2 / 36, atol=0.002)
    for t in (0.2, 0.5, 0.8):
        assert (drawn[:, 0] > t).mean() == pytest.approx((1 - t) ** 2, abs=0.01)


@pytest.mark.parametrize(("bases", "steps"), [(1, 4), (2, 5), (3, 4), (4, 3)])
def test_a_grid_has_every_weight_in_steps_once(bases, steps):
    grid = uniform_grid(bases, steps)
    counts = np.round(grid * steps).astype(int)
    np.testing.assert_allclose(grid * steps, counts, atol=1e-12)
    assert (counts.sum(axis=1) == steps).all()
    assert (counts >= 0).all()
    assert len({tuple(row) for row in counts}) == len(grid) == math.comb(steps + bases - 1, bases - 1)
    assert [tuple(row) for row in counts] == sorted(tuple(row) for row in counts)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uniform_grid(0, 3), "bases: expected at least 1, got 0"),
        (lambda: uniform_grid(3, 0), "steps: expected at least 1, got 0"),
        (lambda: uniform_grid(10, 60), r"steps: expected a grid of at most 10,000,000 weights, got [\d,]+ for 10 bases"),
        (lambda: sample_simplex(5, 0, np.random.default_rng(0)), "bases: expected at least 1, got 0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("bases", [1, 2, 5])
def test_the_tangent_basis_is_orthonormal_and_sums_to_zero(bases):
    tangent = tangent_basis(bases)
    assert tangent.shape == (bases, bases - 1)
    np.testing.assert_allclose(tangent.T @ tangent, np.eye(bases - 1), atol=1e-12)
    np.testing.assert_allclose(tangent.sum(axis=0), 0, atol=1e-12)
