import numpy as np
import pytest

import palm.features.store as module
from palm.arrays import write_arrays
from palm.artifacts import ArtifactError
from palm.features.store import FeatureArray, open_features, write_index


@pytest.fixture
def whole():
    return np.random.default_rng(0).normal(3, 2, size=(23, 4)).astype(np.float32)


@pytest.fixture
def parts(whole):
    return FeatureArray([whole[:7], whole[7:7], whole[7:8], whole[8:]])


@pytest.fixture
def folder(tmp_path, whole):
    """Three shards of half-precision features, the second without rows, and a score for every text."""
    shards = []
    for number, rows in enumerate((slice(0, 10), slice(10, 10), slice(10, 23))):
        name = f"shard-{number}.safetensors"
        write_arrays(tmp_path / name, {"features": whole[rows].astype(np.float16), "score": np.arange(23.0)[rows]})
        shards.append({"file": name, "rows": len(whole[rows])})
    write_index(tmp_path, shards=shards, width=4, scored=True, settings={"model": "tiny"})
    return tmp_path


def test_parts_read_like_one_array(parts, whole):
    assert parts.shape == (23, 4)
    assert len(parts) == 23
    index = np.array([22, 0, 7, 6, 8, 7, 22])
    np.testing.assert_array_equal(parts.rows(index), whole[index])
    assert parts.rows(np.array([], dtype=int)).shape == (0, 4)


@pytest.mark.parametrize("chunk", [1, 8, 2**24])
def test_blocks_cover_every_row_once_and_in_order(parts, whole, monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    blocks = list(parts.blocks())
    assert all(block.size <= max(chunk, 4) for _, block in blocks)
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), whole)
    assert [row for where, _ in blocks for row in range(where.start, where.stop)] == list(range(23))


def test_products_and_moments_are_those_of_the_whole(parts, whole, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 12)
    rng = np.random.default_rng(1)
    directions, coefficients = rng.normal(size=(4, 2)), rng.normal(size=(23, 2))
    np.testing.assert_allclose(parts.project(directions), whole @ directions, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(parts.gather(coefficients), whole.T @ coefficients, rtol=1e-4, atol=1e-4)
    mean, deviation = parts.moments()
    np.testing.assert_allclose(mean, whole.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(deviation, whole.std(axis=0), rtol=1e-5)


def test_half_precision_is_summed_in_more():
    many = FeatureArray([np.full((40_000, 1), 100.0, dtype=np.float16)])  # the sum is beyond float16's largest number
    mean, deviation = many.moments()
    assert mean[0] == pytest.approx(100)
    assert deviation[0] == pytest.approx(0, abs=1e-3)


def test_a_row_that_is_not_finite_is_named(whole):
    whole[11, 2] = np.nan
    with pytest.raises(ValueError, match="features: expected finite numbers, row 11 has others"):
        FeatureArray([whole[:9], whole[9:]]).project(np.eye(4))


def test_a_product_that_overflows_is_not_called_a_feature_that_is_not_finite(whole):
    whole[11] = 3e38
    with pytest.raises(ValueError, match="features: expected numbers whose products are finite, row 11 has larger ones"):
        FeatureArray([whole[:9], whole[9:]]).project(np.ones((4, 1)))


@pytest.mark.parametrize("given", [[], [np.zeros((2, 3)), np.zeros((2, 4))], [np.zeros(3)]])
def test_parts_that_do_not_fit_are_refused(given):
    with pytest.raises(ValueError, match=r"features: expected parts of the shape \(n, d\) with equal d, got \["):
        FeatureArray(given)


def test_shards_on_disk_open_as_one(folder, whole):
    features, scores = open_features(folder)
    np.testing.assert_array_equal(features.rows(np.arange(23)), whole.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(scores, np.arange(23.0))


def test_features_without_scores_have_none(tmp_path, whole):
    write_arrays(tmp_path / "only.safetensors", {"features": whole})
    write_index(tmp_path, shards=[{"file": "only.safetensors", "rows": 23}], width=4, scored=False, settings={})
    assert open_features(tmp_path)[1] is None


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: truncate(folder / "shard-2.safetensors"), "shard-2.safetensors: expected a complete safetensors file"),
        (lambda folder: (folder / "shard-0.safetensors").unlink(), "shard-0.safetensors: no such file"),
        (lambda folder: (folder / "features.json").unlink(), "features.json: no such file"),
        (
            lambda folder: truncate(folder / "features.json") or truncate(folder / "features.json"),
            "features.json: expected complete",
        ),
        (
            lambda folder: write_arrays(folder / "shard-0.safetensors", {"features": np.zeros((9, 4))}),
            r"shard-0.safetensors: expected 10 x 4 features, got \(9, 4\)",
        ),
    ],
)
def test_damaged_shards_are_named(folder, damage, message):
    damage(folder)
    with pytest.raises(ArtifactError, match=message):
        open_features(folder)
