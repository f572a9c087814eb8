"""Rows of results as a table for people; columns are what any row has."""

from typing import Any

from palm.evaluation.tables import markdown_table


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print rows under one header, in Markdown; what a row lacks stays empty, estimates (`Estimate.record`) show their interval."""
    print("\n".join(markdown_table(rows)))
