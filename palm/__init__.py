"""palm: everyone's pairwise preferences to a few LoRA policies, with a proof of how good that few is.

The names below are imported when they are first used, so `import palm` is light and serving needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palm.data.loaders import load_pairs
    from palm.data.splits import split_users
    from palm.evaluation import accuracy, coverage, diversity
    from palm.features.encode import embed
    from palm.features.pairs import PairFeatures
    from palm.portfolio import BestOfNOracle, CallbackOracle, GibbsOracle, PoolOracle, Portfolio, certify, plan_portfolio
    from palm.rewards import PAL, VPL, VRF, BradleyTerry, Given, LoRe, PReF, Reference, next_question
    from palm.routing import Router

__version__ = "0.1.0"

_HOMES = {
    "load_pairs": "palm.data.loaders",
    "split_users": "palm.data.splits",
    "embed": "palm.features.encode",
    "PairFeatures": "palm.features.pairs",
    "BradleyTerry": "palm.rewards",
    "Given": "palm.rewards",
    "LoRe": "palm.rewards",
    "PReF": "palm.rewards",
    "Reference": "palm.rewards",
    "PAL": "palm.rewards",
    "VPL": "palm.rewards",
    "VRF": "palm.rewards",
    "next_question": "palm.rewards",
    "BestOfNOracle": "palm.portfolio",
    "CallbackOracle": "palm.portfolio",
    "GibbsOracle": "palm.portfolio",
    "PoolOracle": "palm.portfolio",
    "Portfolio": "palm.portfolio",
    "certify": "palm.portfolio",
    "plan_portfolio": "palm.portfolio",
    "accuracy": "palm.evaluation",
    "coverage": "palm.evaluation",
    "diversity": "palm.evaluation",
    "Router": "palm.routing",
}
_PACKAGES = ("data", "evaluation", "features", "lm", "policies", "portfolio", "rewards", "routing", "simplex")

__all__ = [
    "PAL",
    "VPL",
    "VRF",
    "BestOfNOracle",
    "BradleyTerry",
    "CallbackOracle",
    "GibbsOracle",
    "Given",
    "LoRe",
    "PReF",
    "PairFeatures",
    "PoolOracle",
    "Portfolio",
    "Reference",
    "Router",
    "accuracy",
    "certify",
    "coverage",
    "diversity",
    "embed",
    "load_pairs",
    "next_question",
    "plan_portfolio",
    "split_users",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _PACKAGES:
        value = importlib.import_module(f"palm.{name}")
    else:
        raise AttributeError(f"module 'palm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_PACKAGES])
