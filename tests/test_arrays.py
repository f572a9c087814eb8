import numpy as np
import pytest

from palm.arrays import map_array, read_arrays, write_arrays
from palm.artifacts import ArtifactError

ARRAYS = {
    "features": np.arange(12, dtype=np.float32).reshape(4, 3) / 7,
    "half": np.array([1.5, -2.25], dtype=np.float16),
    "double": np.array([[1 / 3, np.inf, np.nan]]),
    "rows": np.array([[3, -1]], dtype=np.int64),
    "few": np.array([7], dtype=np.int32),
    "none": np.zeros((0, 5), dtype=np.float32),
    "turned": np.arange(6.0).reshape(2, 3).T,
}


def test_arrays_come_back_bit_for_bit(tmp_path):
    write_arrays(path := tmp_path / "a.safetensors", ARRAYS)
    read = read_arrays(path)
    assert set(read) == set(ARRAYS)
    for name, array in ARRAYS.items():
        mapped = map_array(path, name)
        for found in (read[name], mapped):
            assert found.dtype == array.dtype
            assert found.shape == array.shape
            assert found.tobytes() == array.tobytes()
        assert array.size == 0 or not mapped.flags.writeable


@pytest.mark.parametrize("keep", [0, 3, 20, -1])
@pytest.mark.parametrize("read", [read_arrays, lambda path: map_array(path, "turned")])
def test_truncated_arrays_are_named(tmp_path, keep, read):
    write_arrays(path := tmp_path / "a.safetensors", ARRAYS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match=r"a\.safetensors: expected a complete safetensors file"):
        read(path)


@pytest.mark.parametrize("read", [read_arrays, lambda path: map_array(path, "a")])
def test_missing_files_are_named(tmp_path, read):
    with pytest.raises(ArtifactError, match="absent: no such file"):
        read(tmp_path / "absent")


def test_an_array_that_is_not_there_or_of_an_unknown_kind_is_named(tmp_path):
    write_arrays(path := tmp_path / "a.safetensors", {"mask": np.ones(3, dtype=np.uint8)})
    with pytest.raises(ArtifactError, match="with an array 'scores'; it is truncated or lacks it"):
        map_array(path, "scores")
    with pytest.raises(ArtifactError, match=r"a\.safetensors: expected .* 'mask' .* U8"):
        map_array(path, "mask")
