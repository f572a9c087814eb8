"""The report: one HTML file that shows a finished run, with everything it needs inside.

What users and policies wrote is untrusted: the template escapes it. Nothing is loaded from outside, and nothing in the file
depends on when or where it was made.
"""

from collections.abc import Callable
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from palm.artifacts import finite_or_none, write_text
from palm.evaluation.cell_pictures import cells_picture
from palm.evaluation.headlines import cards, interval, number, percent, sentences
from palm.evaluation.pictures import COLOURS, REFERENCE_COLOUR, SizePoint, Span, colours, size_picture, span_picture
from palm.evaluation.plan_pictures import plan_cells_picture
from palm.evaluation.report_content import ReportData
from palm.evaluation.weight_pictures import users_picture
from palm.portfolio.explain import policies

__all__ = ["ReportData", "check_plots", "write_report"]

_TEMPLATE = "report.html.j2"
_PART_COLOURS = {"seen": COLOURS[0], "unseen": COLOURS[1]}


def check_plots() -> None:
    """See that pictures can be made.

    Raises:
        ValueError: Matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ValueError(
            "report.plots: expected matplotlib to be installed; pip install 'palm-align[plot]', or set report.plots=false"
        )


def write_report(data: ReportData, path: Path, *, plots: bool = True) -> None:
    """Write the report as one self-contained HTML file; equal data give equal bytes.

    Args:
        data: what to show.
        path: of the file.
        plots: False leaves the pictures out, for which Matplotlib is needed; the tables stay.

    Raises:
        ValueError: pictures are wanted and Matplotlib is not installed.
    """
    if plots:
        check_plots()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "percent": percent, "interval": interval, "policies": policies}
    template = environment.from_string(files("palm.evaluation").joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    html = template.render(
        data=data,
        cards=cards(data),
        sentences=sentences(data),
        pictures=_pictures(data) if plots else {},
        colour=_colours(data),
        quantiles=_quantiles(data),
        certificates=[
            ("planned, on the prompts it was chosen on", data.certificate("planned")),
            ("planned, on the held-out prompts", data.certificate("held_out")),
            ("measured, on the held-out prompts", data.certificate("portfolio")),
        ],
    )
    write_text(path, html.encode("utf-8", "replace").decode("utf-8"))  # a lone surrogate in a text is no reason to fail


def _colours(data: ReportData) -> dict[str, str]:
    """A colour for every policy id, the same in pictures and tables."""
    own = dict(zip(data.portfolio.ids, colours(len(data.portfolio)), strict=True))
    return {row.id: "#b9bec7" for row in data.singles} | {"reference": REFERENCE_COLOUR} | own


def _quantiles(data: ReportData) -> list[dict[str, Any]]:
    """For every basis, how users' weights on it are spread."""
    everyone = data.everyone
    if not len(everyone):
        return []
    low, middle, high = np.quantile(everyone, [0.1, 0.5, 0.9], axis=0)
    first = np.bincount(everyone.argmax(axis=1), minlength=everyone.shape[1]) / len(everyone)
    mean = everyone.mean(axis=0)
    return [
        {"basis": name, "mean": mean[k], "low": low[k], "middle": middle[k], "high": high[k], "first": first[k]}
        for k, name in enumerate(data.portfolio.bases)
    ]


def _pictures(data: ReportData) -> dict[str, Markup]:
    """SVG by name; what there is nothing to draw for is left out."""
    oracle, drawable = data.oracle, len(data.portfolio) > 0 and len(data.portfolio.bases) > 2
    made: dict[str, Callable[[], str] | None] = {
        "users": (lambda: users_picture(data.users, data.portfolio.bases)) if len(data.everyone) else None,
        "cells": lambda: cells_picture(data.portfolio, data.everyone),
        "gaps": (lambda: plan_cells_picture(data.portfolio, oracle)) if oracle is not None and drawable else None,
        "sizes": (lambda: _sizes(data)) if data.curve or len(data.portfolio) else None,
        "members": (lambda: _members(data)) if data.members else None,
        "accuracy": (lambda: _accuracy(data)) if data.accuracy else None,
    }
    return {name: Markup(make()) for name, make in made.items() if make is not None}  # Matplotlib escapes names


def _sizes(data: ReportData) -> str:
    plan, size = data.certificate("held_out"), len(data.portfolio)
    held_out = SizePoint(size, finite_or_none(plan.epsilon), plan.captured_gain, plan.size_at_least)
    single = data.best_single if size > 1 else None
    return size_picture(
        data.curve,
        size=size,
        held_out=held_out,
        epsilon=data.gap.get("epsilon"),
        captured=data.gap["captured_gain"],
        single=None if single is None else single.captured_gain,
    )


def _members(data: ReportData) -> str:
    shades = _colours(data)
    spans = [
        Span(row.id, shades[row.id], row.measured_utility, {"reference": row.reference_utility, "planned": row.planned_utility})
        for row in data.members
    ]
    legend = [("reference", "base model"), ("measured", "trained policy, 95 % interval"), ("planned", "plan: best possible")]
    return span_picture("members", spans, label="utility at the policy's own weight, held-out prompts", legend=legend)


def _accuracy(data: ReportData) -> str:
    spans = [Span(row.method, _PART_COLOURS[row.part], row.accuracy, {}) for row in data.accuracy]
    parts = dict.fromkeys(row.part for row in data.accuracy)
    legend = [(_PART_COLOURS[part], f"{part} users") for part in parts]
    return span_picture(
        "accuracy", spans, label="share of held-out choices predicted (dashed: guessing)", legend=legend, chance=0.5
    )
