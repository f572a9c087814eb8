"""Rows of results as a table for people; columns are what any row has."""

from typing import Any

_ESTIMATE = {"mean", "low", "high"}


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print rows under one header, in Markdown; what a row lacks stays empty, estimates (`Estimate.record`) show their interval."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(_cell(row.get(name, "")) for name in columns) + " |")


def _cell(value: Any) -> str:
    if isinstance(value, dict) and set(value) >= _ESTIMATE:
        return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    return str(value)
