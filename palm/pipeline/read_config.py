"""Configurations from YAML files and settings that override them: types are checked, unknown keys refused."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from palm.pipeline.config import Config, ConfigError

Kind = typing.TypeVar("Kind")


class _Loader(yaml.SafeLoader):
    """PyYAML reads 1e-4 as text, since YAML 1.1 wants a dot; here it is a number. And it lets a key come twice; here it may not."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping as written, whose keys differ."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for place, (key, _) in enumerate(node.value):
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge" and (key.tag, key.value) in keys[:place]:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} comes twice", key.start_mark)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a run's YAML file, and settings that override it; see `read_config`."""
    return read_config(path, overrides, Config)


def read_config(path: str | Path, overrides: Sequence[str], kind: type[Kind]) -> Kind:
    """Read a YAML file as a dataclass, and settings that override it.

    Args:
        path: the file.
        overrides: such as "plan.size=4" or "seed=1"; the value is YAML.
        kind: of the whole file; its sections are dataclasses, too.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, or a value has the wrong type.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: expected a YAML file: {error}") from error
    if raw is None:
        raise ConfigError(f"{path}: expected keys and values, got an empty file")
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(raw).__name__}")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"{override!r}: expected a setting such as plan.size=4")
        try:
            parsed = yaml.load(value, Loader=_Loader)
        except yaml.YAMLError as error:
            raise ConfigError(f"{override!r}: the value is not YAML: {error}") from error
        _set(raw, key.split("."), parsed, override)
    built: Kind = _build(kind, raw, "", str(path))
    return built


def config_of(sections: dict[str, Any], where: str) -> Config:
    """The configuration that a run's manifests have, section by section; what they leave out has its default.

    Args:
        sections: by name, as `as_record` gave them.
        where: for messages.

    Raises:
        ConfigError: a key is not known, or a value has the wrong type.
    """
    built: Config = _build(Config, sections, "", where)
    return built


def _set(raw: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        if raw.get(key) is None:
            raw[key] = {}
        if not isinstance(raw[key], dict):
            raise ConfigError(f"{override!r}: {key} is a value, not a section")
        raw = raw[key]
    raw[keys[-1]] = value


def _build(kind: Any, raw: dict[str, Any], prefix: str, where: str) -> Any:
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in raw.items():
        name = f"{prefix}{key}"
        if key not in fields:
            close = get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {prefix}{close[0]}?" if close else f"; known: {', '.join(fields)}"
            raise ConfigError(f"{where}: unknown key {name!r}{hint}")
        values[key] = _value(hints[key], value, name, where)
    return kind(**values)


def _value(hint: Any, value: Any, name: str, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: {name}: expected a section, got {value!r}")
        return _build(hint, value, f"{name}.", where)
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in kinds:
        origin = typing.get_origin(kind) or kind
        if origin is float and isinstance(value, int) and not isinstance(value, bool) and int not in kinds:
            return float(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{where}: {name}: expected a finite number, got {value!r}")
        if origin is str and isinstance(value, str) and value.startswith("~/"):
            value = str(Path(value).expanduser())
        if isinstance(value, origin) and not (isinstance(value, bool) and origin is not bool):
            _check_items(kind, value, name, where)
            return value
    wanted = " or ".join(getattr(typing.get_origin(kind) or kind, "__name__", str(kind)) for kind in kinds)
    raise ConfigError(f"{where}: {name}: expected {wanted.replace('NoneType', 'nothing')}, got {value!r}")


def _check_items(kind: Any, value: Any, name: str, where: str) -> None:
    items = typing.get_args(kind)
    wrong = []
    if isinstance(value, list) and items:
        wrong = [item for item in value if not isinstance(item, items[0])]
    elif isinstance(value, dict) and items and items[1] is str:
        wrong = [item for item in value.values() if not isinstance(item, str)]
    if wrong:
        raise ConfigError(f"{where}: {name}: expected text in every entry, got {wrong[0]!r}")
