"""The stages in order, resumable: from pairs to a report."""

from palm.pipeline.checks import check
from palm.pipeline.config import Config, ConfigError, load_config
from palm.pipeline.runner import Pipeline, PipelineError, State
from palm.pipeline.stages import STAGES

__all__ = ["STAGES", "Config", "ConfigError", "Pipeline", "PipelineError", "State", "check", "load_config"]
