"""Rewarded soups, exactly: one LoRA adapter whose change of the base is the weighted sum of several adapters' changes.

An adapter changes a module by s B A with A (r, in), B (out, r) and s = alpha / r. The sum over adapters of w_i s_i B_i A_i is one
product of the A_i stacked by rows with the B_i, scaled by w_i s_i and stacked by columns: rank r_1 + ... + r_n (PEFT's `cat`).
Averaging A and B themselves (PEFT's `linear`, and averaging adapter files) is another, with cross terms. The rank is filled up with
zeros to one that vLLM serves, which changes nothing.

Source: A. Rame et al., "Rewarded soups: towards Pareto-optimal alignment by interpolating weights fine-tuned on diverse rewards",
NeurIPS 2023. There whole models are interpolated; here their low-rank changes.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from palm.arrays import read_arrays, write_arrays
from palm.artifacts import ArtifactError, read_json, write_json
from palm.policies.adapters import CONFIG, WEIGHTS, check_adapter
from palm.simplex import check_weights

SERVED_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_SUM_COUNTS = 1e4  # times as much that shares sum to 1 as that they are near
_OWN = ("r", "lora_alpha", "base_model_name_or_path")  # what soups have of their own, or is compared apart


def write_soup(adapters: Mapping[str, Path], weights: Mapping[str, float], folder: Path) -> None:
    """Write the adapter whose change of the base is the weighted sum of others' changes.

    Args:
        adapters: folders by id, plain LoRA on one base and on the same modules.
        weights: by id, finite numbers; those of 0 take no part. On the simplex for a soup.
        folder: where the soup appears, complete; what is there is replaced.

    Raises:
        ArtifactError: an adapter is incomplete or not plain LoRA.
        ValueError: ids differ, a weight is not finite, no weight is other than 0, or adapters are for different bases or modules.
    """
    if set(adapters) != set(weights):
        raise ValueError(f"weights: expected one for each of {sorted(adapters)}, got {sorted(weights)}")
    if not all(np.isfinite(list(weights.values()))):
        raise ValueError(f"weights: expected finite numbers, got {dict(weights)}")
    used = [name for name in adapters if weights[name] != 0]
    if not used:
        raise ValueError(f"weights: expected one other than 0, got {dict(weights)}")
    configs, arrays = {}, {}
    for name in used:
        check_adapter(adapters[name])
        configs[name] = _plain(adapters[name])
        arrays[name] = read_arrays(adapters[name] / WEIGHTS)
    first = used[0]
    for name in used[1:]:
        _same_modules(first, configs[first], arrays[first], name, configs[name], arrays[name])
    rank = sum(int(configs[name]["r"]) for name in used)
    served = next((size for size in SERVED_RANKS if size >= rank), rank)
    mixed = {}
    for key in arrays[first]:
        if ".lora_A." in key:
            rows = np.concatenate([arrays[name][key] for name in used])
            mixed[key] = np.concatenate([rows, np.zeros((served - rank, rows.shape[1]), rows.dtype)])
        else:
            columns = [arrays[name][key] * (weights[name] * configs[name]["lora_alpha"] / configs[name]["r"]) for name in used]
            stacked = np.concatenate(columns, axis=1).astype(arrays[first][key].dtype)
            mixed[key] = np.concatenate([stacked, np.zeros((stacked.shape[0], served - rank), stacked.dtype)], axis=1)
    building = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(building, ignore_errors=True)
    write_json(building / CONFIG, {**configs[first], "r": served, "lora_alpha": served})  # scale 1: the B have their own
    write_arrays(building / WEIGHTS, mixed)
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)


def nearest_mixture(weights: np.ndarray, wanted: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Shares in which to mix policies of some weights for a user of another.

    A planned policy's log-ratio is linear in its weight, so log-ratios mixed in shares c are those of the policy planned for
    v = sum of c_i w_i. To second order it lacks (w - v)' spread (w - v) / (2 kl) of what is optimal for w; least over all shares
    on the simplex, by non-negative least squares. Beyond the weights' hull nothing is extrapolated.

    Args:
        weights: (m, K) the policies'.
        wanted: (K,) the user's.
        spread: (K, K) covariance of the basis rewards within prompts.

    Returns:
        (m,) on the simplex; at most K of them are not 0.

    Raises:
        ValueError: weights are not on the simplex, or shapes differ.
    """
    from scipy.optimize import nnls

    rows = check_weights(weights)
    target = check_weights(wanted, bases=rows.shape[1], name="wanted")[0]
    if np.shape(spread) != (rows.shape[1],) * 2:
        raise ValueError(f"spread: expected the shape {(rows.shape[1],) * 2}, got {np.shape(spread)}")
    values, vectors = np.linalg.eigh(spread)
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T  # root' root = spread
    root /= float(np.abs(root).max()) or 1.0
    counts = np.full(len(rows), _SUM_COUNTS)
    shares, _ = nnls(np.vstack([root @ rows.T, counts]), np.append(root @ target, _SUM_COUNTS))
    mixed: np.ndarray = shares / shares.sum()
    return mixed


def _plain(folder: Path) -> dict[str, Any]:
    """An adapter's configuration, whose rank and scale are the same in every module.

    Raises:
        ArtifactError: they are not.
    """
    config: dict[str, Any] = read_json(folder / CONFIG)
    for name in ("rank_pattern", "alpha_pattern"):
        if config.get(name):
            raise ArtifactError(f"{folder / CONFIG}: {name}: expected one rank and scale for all modules, got {config[name]}")
    return config


def _same_modules(
    first: str,
    config: dict[str, Any],
    arrays: dict[str, np.ndarray],
    name: str,
    other: dict[str, Any],
    given: dict[str, np.ndarray],
) -> None:
    if config.get("base_model_name_or_path") != other.get("base_model_name_or_path"):
        raise ValueError(
            f"adapters: expected one base, got {config.get('base_model_name_or_path')!r} of {first} and "
            f"{other.get('base_model_name_or_path')!r} of {name}"
        )
    if set(arrays) != set(given):
        odd = sorted(set(arrays) ^ set(given))[0]
        raise ValueError(f"adapters: expected the same modules in {first} and {name}, got {odd} in one of them only")
    for key, array in arrays.items():
        axis = 1 if ".lora_A." in key else 0
        if array.shape[axis] != given[key].shape[axis]:
            raise ValueError(
                f"adapters: {key}: expected the same module in {first} and {name}, got {array.shape} and {given[key].shape}"
            )
    for key in set(config) & set(other) - set(_OWN):
        if key == "fan_in_fan_out" and config[key] != other[key]:
            raise ValueError(f"adapters: fan_in_fan_out: expected the same in {first} and {name}, got both")
