"""Given rewards as a basis: plain Python functions and reward models; users' weights over them are inferred as ever.

This is PALM's own setting: the basis is known, nobody's pairs are needed to learn it.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.optimize import minimize_scalar

from palm.data.schema import Text
from palm.features.pairs import PairFeatures
from palm.rewards.base import Calibration
from palm.rewards.checks import check_pairs, check_positive
from palm.rewards.logistic import log_loss
from palm.rewards.simplex_users import Population, infer_weights, learn_population
from palm.rewards.users import UserWeights
from palm.rewards.weighted import SimplexModel

RewardFunction = Callable[[list[Text], list[Text]], Sequence[float]]
"""Takes n prompts and n responses, returns n numbers."""


def resolve_function(name: str) -> RewardFunction:
    """Import a reward function by "package.module:name".

    Raises:
        ValueError: the name has not that form, or nothing callable is there.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(f"functions: expected 'package.module:function', got {name!r}")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"functions: {name!r} could not be imported: {error}") from error
    if not callable(function):
        raise ValueError(f"functions: expected {name!r} to be callable, it is a {type(function).__name__}")
    return function


def source_files(names: Sequence[str]) -> list[Path]:
    """The files of the modules that functions given by name are in, each once; modules without a file are left out.

    Raises:
        ValueError: as `resolve_function`.
    """
    files = []
    for name in names:
        resolve_function(name)
        found = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
        if found is not None and Path(found) not in files:
            files.append(Path(found))
    return files


def score_texts(functions: Sequence[RewardFunction | str], texts: Sequence[tuple[Text, Text]]) -> np.ndarray:
    """Raw rewards of (prompt, response) texts by K functions.

    Returns:
        (n, K) float64.

    Raises:
        ValueError: there are no functions, or one gives not n finite numbers; the message names it.
    """
    if not functions:
        raise ValueError("functions: expected at least one, got none")
    prompts, responses = [prompt for prompt, _ in texts], [response for _, response in texts]
    columns = []
    for function in functions:
        name = function if isinstance(function, str) else getattr(function, "__name__", repr(function))
        call = resolve_function(function) if isinstance(function, str) else function
        try:
            rewards = call(prompts, responses)
        except Exception as error:
            raise ValueError(f"{name}: the reward function raised {type(error).__name__}: {error}") from error
        try:
            column = np.asarray(rewards, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected {len(texts)} rewards, one per text, got {rewards!r:.60}") from error
        if column.shape != (len(texts),):
            raise ValueError(f"{name}: expected {len(texts)} rewards, one per text, got the shape {column.shape}")
        if not np.isfinite(column).all():
            text = int((~np.isfinite(column)).argmax())
            raise ValueError(f"{name}: expected finite rewards, got {column[text]} for text {text}")
        columns.append(column)
    return np.column_stack(columns)


@dataclass(frozen=True)
class Given:
    """Estimator for features that *are* rewards: column k of the features is basis reward k (see `score_texts`).

    Attributes:
        names: K names of the bases; by default basis-0, basis-1 and so on.
        concentration: pseudo-observations that keep weights off the simplex's faces.
    """

    names: tuple[str, ...] = ()
    concentration: float = 0.1
    geometry: ClassVar[str] = "simplex"

    def __post_init__(self) -> None:
        """Check the hyper-parameters.

        Raises:
            ValueError: one is out of range; the message names it.
        """
        check_positive(self, "concentration")

    def fit(self, features: PairFeatures, seed: int = 0) -> SimplexModel:
        """Calibrate each reward into [0, 1], and learn how sharply users judge and what the population wants.

        Args:
            features: pairs of the seen users, with rewards as features.
            seed: not used; nothing here is random.

        Raises:
            ValueError: there are no pairs, or `names` has another length than there are rewards.
        """
        check_pairs(features, seed)
        bases = features.width
        names = self.names or tuple(f"basis-{k}" for k in range(bases))
        if len(names) != bases:
            raise ValueError(f"names: expected {bases} names, one per reward, got {len(names)}")
        raw = features.items.project(np.eye(bases))
        calibration = Calibration.own_width(raw)
        scores = features.difference((raw - calibration.low) / (calibration.high - calibration.low))
        code, users = features.code, len(features.ids)
        prior = Population.flat(bases, self.concentration)
        sharpness = 5.0
        for _ in range(20):  # alternate: how sharply users judge, and what they weigh
            margin = (scores * infer_weights(sharpness * scores, code, users, prior)[0][code]).sum(axis=1)
            best = minimize_scalar(lambda log, m=margin: log_loss(np.exp(log) * m).sum(), bounds=(-3.0, 6.0), method="bounded")
            moved, sharpness = abs(np.log(sharpness) - best.x), float(np.exp(best.x))
            if moved < 1e-3:
                break
        population = learn_population(sharpness * scores, code, users, concentration=self.concentration)[0]
        details = {"pairs": len(features), "users": users}
        model = SimplexModel("Given", np.eye(bases), calibration, sharpness, population, UserWeights.none(bases), names, details)
        return replace(model, seen=model.infer(features))
