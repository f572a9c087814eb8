"""Work whose expected errors are one line, with other libraries kept quiet."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import typer

_INTERRUPTED = 130  # the exit status that typer gives Ctrl-C


def guarded(work: Callable[[], None]) -> None:
    """Expected errors become one line and exit status 1; PALM_DEBUG=1 shows their traceback."""
    quiet()
    from safetensors import SafetensorError

    from palm.artifacts import ArtifactError
    from palm.pipeline.runner import PipelineError

    sys.path.insert(0, str(Path.cwd()))  # reward functions beside the configuration, as `python -m` would find them
    try:
        work()
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            typer.echo("palm: interrupted; what was finished is kept, and the same command goes on from there", err=True)
        raise
    except (ValueError, OSError, ImportError, SafetensorError, ArtifactError, PipelineError) as error:
        if os.environ.get("PALM_DEBUG"):
            raise
        typer.echo(f"palm: {' '.join(str(error).split())}", err=True)  # other libraries' messages have several lines
        sys.exit(1)


def quiet() -> None:
    """Keep other libraries' chatter off the terminal; their errors still come through."""
    for name, value in {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)
    if "transformers" in sys.modules and os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1":
        from transformers.utils import logging as chatter

        chatter.disable_progress_bar()  # who imports it first has it read the environment before this
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch|transformers|trl|peft|accelerate")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
