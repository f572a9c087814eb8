"""The stages in order, resumable: from pairs to a report.

The names below are imported when they are first used: `palm --help` reads the configuration's descriptions and nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palm.pipeline.checks import check
    from palm.pipeline.config import Config, ConfigError
    from palm.pipeline.read_config import load_config
    from palm.pipeline.runner import Pipeline, PipelineError, State
    from palm.pipeline.stages import STAGES

_HOMES = {
    "STAGES": "palm.pipeline.stages",
    "Config": "palm.pipeline.config",
    "ConfigError": "palm.pipeline.config",
    "Pipeline": "palm.pipeline.runner",
    "PipelineError": "palm.pipeline.runner",
    "State": "palm.pipeline.runner",
    "check": "palm.pipeline.checks",
    "load_config": "palm.pipeline.read_config",
}

__all__ = ["STAGES", "Config", "ConfigError", "Pipeline", "PipelineError", "State", "check", "load_config"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'palm.pipeline' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
