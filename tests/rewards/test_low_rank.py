"""palm.rewards.low_rank: the largest singular vectors, the same every time, dense algebra's where these are unique."""

import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array

from palm.rewards.low_rank import Filled, largest_factors
from palm.rewards.pref import _complete


def matrix(shape, rank=3, seed=0):
    """A sparse matrix of noise, plus one of low rank."""
    rng = np.random.default_rng(seed)
    noise = np.where(rng.random(shape) < 0.1, 0.3 * rng.standard_normal(shape), 0.0)
    return Filled(csr_array(noise), rng.standard_normal((shape[0], rank)), rng.standard_normal((shape[1], rank)) * [3.0, 2.0, 1.0])


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (60, 60), (400, 300), (300, 400)])
@pytest.mark.parametrize("size", [1, 3])
def test_it_is_what_a_dense_decomposition_gives(shape, size):
    """Singular values come in the right order, and the factors' product is the best approximation of that rank."""
    given = matrix(shape)
    left, right = largest_factors(given, size, np.random.default_rng(5))
    u, s, vt = np.linalg.svd(given.correction.toarray() + given.left @ given.right.T, full_matrices=False)
    np.testing.assert_allclose((left**2).sum(axis=0), s[:size], rtol=1e-9)
    np.testing.assert_allclose((right**2).sum(axis=0), s[:size], rtol=1e-9)
    np.testing.assert_allclose(left @ right.T, (u[:, :size] * s[:size]) @ vt[:size], atol=1e-6 * s[0])


def test_a_matrix_of_less_than_the_rank_asked_for_is_taken_whole():
    given = Filled(csr_array((200, 150)), np.ones((200, 1)), np.linspace(1, 2, 150)[:, None])
    left, right = largest_factors(given, 4, np.random.default_rng(0))
    np.testing.assert_allclose(left @ right.T, given.left @ given.right.T, atol=1e-9)


@pytest.mark.parametrize("users", [60, 250])
def test_equal_singular_values_are_decided_by_the_seed_alone(users):
    """As many pairs of every user, no text shared: every user is a singular vector, all with the same value."""
    user = np.repeat(np.arange(users), 5)
    cells = coo_array((np.full(len(user), 0.5), (np.arange(len(user)), user)), shape=(len(user), users)).tocsr()
    first, *others = [_complete(cells, 4, 10, np.random.default_rng(0)) for _ in range(3)]
    for other in others:
        np.testing.assert_array_equal(other[0], first[0])
        np.testing.assert_array_equal(other[1], first[1])
