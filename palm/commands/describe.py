"""A configuration's settings in words, for `--help`."""

import dataclasses
import inspect
import re
from typing import Any, get_type_hints

from palm.pipeline.config import Config


def settings_of(stage: str) -> str:
    """The description of the configuration's section that a stage reads, for `--help`."""
    section = {"embed": "features", "fit": "rewards", "sample": "candidates", "score": "features"}.get(stage, stage)
    return describe(get_type_hints(Config)[section], f"{section}.")


def describe(kind: Any, prefix: str) -> str:
    """The settings of a configuration's dataclass, for `--help`: what each means, and its default."""
    words = inspect.cleandoc(kind.__doc__ or "").replace("Attributes:\n", "")
    described = re.sub(r"\n {8,}", " ", words)  # an entry goes on over the line's end
    listed = re.sub(r"^ {4}([^:\n]+):", r"- **\1**:", described, flags=re.MULTILINE)
    values = {field.name: _default(field) for field in dataclasses.fields(kind)}
    defaults = ", ".join(f"{name}={value}" for name, value in values.items() if not dataclasses.is_dataclass(value))
    nested = "".join(describe(type(value), f"{prefix}{name}.") for name, value in values.items() if dataclasses.is_dataclass(value))
    return f"\n\nSettings, as {prefix}NAME=VALUE:\n\n{listed}\n\nDefaults: {defaults}{nested}"


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
