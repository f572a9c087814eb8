"""Named arrays on disk as safetensors: written whole or not at all, read into memory or mapped."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from palm.artifacts import ArtifactError, write_bytes


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as safetensors, atomically."""
    from safetensors.numpy import save

    write_bytes(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a safetensors file into memory.

    Raises:
        ArtifactError: the file is missing, truncated or not safetensors; the message names it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtifactError(f"{path}: expected a complete safetensors file, but reading it failed: {error}") from error


def map_array(path: Path, name: str) -> np.ndarray:
    """Memory-map one array of a safetensors file, read-only.

    Raises:
        ArtifactError: the file is missing, truncated, or has no array of that name and of a kind that NumPy can map.
    """
    types = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64}
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= size else None
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path}: expected a complete safetensors file, but reading it failed: {error}") from error
    entries = {} if not isinstance(header, dict) else {key: value for key, value in header.items() if key != "__metadata__"}
    if name not in entries or 8 + length + max(value["data_offsets"][1] for value in entries.values()) > size:
        raise ArtifactError(f"{path}: expected a complete safetensors file with an array {name!r}; it is truncated or lacks it")
    entry = entries[name]
    if entry["dtype"] not in types:
        raise ArtifactError(f"{path}: expected the array {name!r} to be of {', '.join(types)}, got {entry['dtype']}")
    if 0 in entry["shape"]:  # an empty file region cannot be mapped
        return np.zeros(entry["shape"], dtype=types[entry["dtype"]])
    return np.memmap(
        path, dtype=types[entry["dtype"]], mode="r", offset=8 + length + entry["data_offsets"][0], shape=tuple(entry["shape"])
    )
