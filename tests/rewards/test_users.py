import numpy as np
import pytest

from palm.artifacts import ArtifactError
from palm.rewards.users import UserWeights


@pytest.fixture
def three():
    return UserWeights(np.array(["zoë", "用户", "a"]), np.array([[0.2, 0.8], [0.5, 0.5], [1, 0]]), np.arange(12.0).reshape(3, 2, 2))


def test_users_are_found_by_id_in_any_order(three):
    some = three.select(np.array(["a", "zoë"]))
    assert some.ids.tolist() == ["a", "zoë"]
    np.testing.assert_array_equal(some.mean, [[1, 0], [0.2, 0.8]])
    np.testing.assert_array_equal(some.covariance, three.covariance[[2, 0]])
    np.testing.assert_array_equal(three.rows(np.array(["用户", "用户"])), [1, 1])
    with pytest.raises(ValueError, match="users: no weight for user 'zo'; infer it from pairs first"):
        three.rows(np.array(["a", "zo"]))
    nobody = UserWeights(np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2, 2)))
    with pytest.raises(ValueError, match="users: no weight for user 'a'"):
        nobody.rows(np.array(["a"]))


def test_weights_cannot_be_written_to_and_what_they_were_made_of_can():
    mean, covariance = np.array([[0.5, 0.5]]), np.zeros((1, 2, 2))
    users = UserWeights(np.array(["a"]), mean, covariance)
    for array in (users.ids, users.mean, users.covariance, users.select(["a"]).mean):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[0]
    covariance[0, 0, 0] = 1.0
    assert UserWeights(["a"], mean, [[[0, 0], [0, 0]]]).covariance.shape == (1, 2, 2)


def test_users_are_saved_bit_for_bit(three, tmp_path):
    three.save(tmp_path, "users")
    back = UserWeights.load(tmp_path, "users")
    assert back.ids.tolist() == three.ids.tolist()
    np.testing.assert_array_equal(back.mean, three.mean)
    np.testing.assert_array_equal(back.covariance, three.covariance)
    (tmp_path / "users.json").write_text('{"ids": ["a", "b"]}')
    with pytest.raises(ArtifactError, match="users: not complete user weights: ids, mean, covariance"):
        UserWeights.load(tmp_path, "users")


@pytest.mark.parametrize(
    ("ids", "mean", "covariance", "message"),
    [
        (["a", "b", "a"], np.ones((3, 1)), np.zeros((3, 1, 1)), "ids: expected every user once, got 'a' 2 times"),
        (["a"], np.array([[0.5, 0.6]]), np.zeros((1, 2, 2)), r"mean: expected rows of the simplex .* with sum 1.1"),
        (["a"], np.array([[0.5, 0.5]]), np.zeros((1, 2)), r"expected \(U,\), \(U, K\) and \(U, K, K\), got .* \(1, 2\)"),
        (["a", "b"], np.array([[0.5, 0.5]]), np.zeros((2, 2, 2)), r"ids, mean, covariance: expected .* got \(2,\), \(1, 2\)"),
    ],
)
def test_bad_user_weights_are_refused(ids, mean, covariance, message):
    with pytest.raises(ValueError, match=message):
        UserWeights(np.array(ids), mean, covariance)
