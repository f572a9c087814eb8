"""Rows of results as a table for people; columns are what any row has."""

from collections.abc import Sequence
from typing import Any

_ESTIMATE = {"mean", "low", "high"}


def markdown_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of rows under one header, in Markdown; empty where a row lacks one; estimates show their interval."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(_cell(row.get(name, "")) for name in columns) + " |" for row in rows]


def _cell(value: Any) -> str:
    if isinstance(value, dict) and set(value) >= _ESTIMATE:
        return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    return str(value).replace("|", "\\|").replace("\n", " ")


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose numbers have three decimals."""
    return {name: f"{value:.3f}" if isinstance(value, float) else value for name, value in row.items()}
