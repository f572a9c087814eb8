import numpy as np
import pytest

from palm.arrays import write_arrays
from palm.artifacts import ArtifactError
from palm.portfolio import GibbsOracle
from palm.rewards import RewardTensor, reward_tensor


@pytest.fixture
def ragged():
    return reward_tensor(np.arange(12.0).reshape(6, 2) / 12, [2, 1, 3])


def test_candidates_stand_with_their_prompt(ragged):
    assert ragged.rewards.shape == (3, 3, 2)
    np.testing.assert_array_equal(ragged.mask, [[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(ragged.rewards[1, 0], [4 / 12, 5 / 12])
    np.testing.assert_array_equal(ragged.rewards[2], np.arange(6, 12).reshape(3, 2) / 12)
    assert (ragged.rewards[~ragged.mask] == 0).all()


def test_counts_may_be_an_array(ragged):
    same = reward_tensor(np.arange(12.0).reshape(6, 2) / 12, np.array([2, 1, 3]))
    np.testing.assert_array_equal(same.rewards, ragged.rewards)
    np.testing.assert_array_equal(same.mask, ragged.mask)


def test_padding_does_not_reach_the_optimum(ragged):
    oracle = GibbsOracle(ragged.rewards, 0.1, mask=ragged.mask)
    np.testing.assert_allclose(oracle.reference, np.mean([[1 / 12, 2 / 12], [4 / 12, 5 / 12], [8 / 12, 9 / 12]], axis=0))


def test_some_prompts(ragged):
    some = ragged.select(np.array([2, 0]))
    np.testing.assert_array_equal(some.rewards, ragged.rewards[[2, 0]])
    np.testing.assert_array_equal(some.mask, ragged.mask[[2, 0]])


def test_saving_and_loading_changes_no_bit(ragged, tmp_path):
    ragged.save(path := tmp_path / "rewards.safetensors")
    back = RewardTensor.load(path)
    np.testing.assert_array_equal(back.rewards, ragged.rewards)
    np.testing.assert_array_equal(back.mask, ragged.mask)
    assert back.mask.dtype == bool


def test_damaged_files_are_named(ragged, tmp_path):
    ragged.save(path := tmp_path / "rewards.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"rewards\.safetensors: expected a complete safetensors file"):
        RewardTensor.load(path)
    write_arrays(path, {"rewards": ragged.rewards})
    with pytest.raises(ArtifactError, match=r"expected the arrays 'rewards' and 'mask', got \['rewards'\]"):
        RewardTensor.load(path)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([], r"counts: expected at least one prompt with at least one candidate each, got \[\]"),
        ([3, 0, 3], r"counts: expected at least one prompt with at least one candidate each, got \[3, 0, 3\]"),
        (np.zeros(0, dtype=int), r"counts: expected at least one prompt with at least one candidate each, got array"),
        ([1.5, 4.5], r"counts: expected at least one prompt with at least one candidate each, got \[1\.5, 4\.5\]"),
        (6, "counts: expected at least one prompt with at least one candidate each, got 6"),
        ([2, 2], "basis: expected 4 rows, one per candidate, got 6"),
    ],
)
def test_numbers_that_disagree_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        reward_tensor(np.zeros((6, 2)), counts)


def test_spread_is_the_covariance_within_prompts(ragged):
    centred = np.concatenate([rows[kept] - rows[kept].mean(axis=0) for rows, kept in zip(ragged.rewards, ragged.mask, strict=True)])
    np.testing.assert_allclose(ragged.spread(), centred.T @ centred / (6 - 3))
    assert (ragged.select(np.array([1])).spread() == 0).all()  # one candidate differs from none
