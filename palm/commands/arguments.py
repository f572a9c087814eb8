"""Arguments that commands share, and the pipeline that they ask for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from palm.pipeline import Pipeline

ConfigArgument = Annotated[Path, typer.Argument(help="The run's YAML file, such as recipes/configs/planted/pipeline.yaml.")]
SettingsArgument = Annotated[
    list[str] | None, typer.Argument(help="Settings that override the file, such as seed=1 plan.size=4.", show_default=False)
]


def pipeline_of(config_path: Path, settings: Sequence[str] | None, *, checked: bool = True) -> "Pipeline":
    """The run's stages with its configuration, checked or only read; the first process alone speaks."""
    from palm.pipeline import STAGES, Pipeline, check, load_config
    from palm.progress import bars
    from palm.ranks import rank

    config = load_config(config_path, settings or ())
    if checked:
        check(config)
    return Pipeline(STAGES, config, track=bars, say=typer.echo if rank() == 0 else lambda line: None)
