"""Pictures of a plan by itself, before anything is trained: gap against size, and cells with the gap at every weight.

Three bases give a triangle; any other number gives parallel coordinates, a line per policy across the bases.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from palm.artifacts import write_text
from palm.evaluation.cell_pictures import cell_polygons
from palm.evaluation.pictures import COLOURS, GOLD, INK, REFERENCE_COLOUR, SizePoint, colours, draw, paint_proven, shorten
from palm.evaluation.weight_pictures import CORNERS, triangle
from palm.portfolio.certify import folded
from palm.portfolio.oracle import Oracle
from palm.portfolio.portfolio import Portfolio
from palm.simplex import uniform_grid

_SPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'  # a file of its own needs what HTML knows
_FINE = 60  # steps of the triangle's gap map


def check_pictures() -> None:
    """See that pictures can be made.

    Raises:
        ValueError: Matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ValueError("pictures: expected matplotlib to be installed; pip install 'palm-align[plot]', or set pictures=false")


def save_plan_pictures(portfolio: Portfolio, oracle: Oracle, curve: Sequence[SizePoint], folder: Path) -> list[Path]:
    """Write cells.svg and, if there is a curve, curve.svg.

    Raises:
        ValueError: Matplotlib is not installed.
    """
    check_pictures()
    made = {"cells": plan_cells_picture(portfolio, oracle)} | ({"curve": curve_picture(curve)} if curve else {})
    paths = []
    for name, svg in made.items():
        paths.append(folder / f"{name}.svg")
        write_text(paths[-1], stand_alone(svg))
    return paths


def stand_alone(svg: str) -> str:
    """A picture as the text of a file of its own."""
    return svg.replace("<svg ", f"<svg {_SPACES} ", 1)


def curve_picture(curve: Sequence[SizePoint]) -> str:
    """Gap against the number of policies, with what no portfolio of that size can beat."""
    return draw("curve", (6.4, 4.2), lambda figure: paint_curve(figure, curve))


def paint_curve(figure: Any, curve: Sequence[SizePoint]) -> None:
    """See `curve_picture`."""
    axis = figure.subplots()
    known = [(point.size, 100 * point.epsilon) for point in curve if point.epsilon is not None]
    if known:
        axis.plot(*zip(*known, strict=True), color=COLOURS[0], marker="o", linewidth=1.8, label="found, certified for every weight")
    paint_proven(axis, curve)
    axis.set_xticks([point.size for point in curve])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("number of policies (0: the base model alone)")
    axis.set_ylabel("gap ε at the worst weight (%)")
    axis.legend(loc="upper right")


def plan_cells_picture(portfolio: Portfolio, oracle: Oracle) -> str:
    """Which policy serves which weight, and how far from the optimum.

    Args:
        portfolio: planned, over the oracle's bases.
        oracle: gives the optimum.
    """
    if len(portfolio.bases) == 3:
        return draw("plan-cells", (8.6, 5.2), lambda figure: paint_triangle(figure, portfolio, oracle))
    return draw("plan-cells", (8.6, 4.6), lambda figure: paint_parallel(figure, portfolio, oracle))


def paint_triangle(figure: Any, portfolio: Portfolio, oracle: Oracle) -> None:
    """The gap as a shade, cells as outlines in their policies' colours, and the worst weight as a star."""
    from matplotlib.colors import LinearSegmentedColormap

    axis = triangle(figure, portfolio.bases)
    weights = uniform_grid(3, _FINE)
    shade = LinearSegmentedColormap.from_list("gap", ["#ffffff", "#e9b9a0", "#a8322d"])
    mesh = axis.tripcolor(
        *(weights @ CORNERS).T, 100 * _gap(portfolio, oracle, weights), shading="gouraud", cmap=shade, vmin=0, zorder=0
    )
    mesh.set_rasterized(True)
    figure.colorbar(mesh, ax=axis, shrink=0.6, label="gap ε (%)", location="left")
    own = colours(len(portfolio))
    for position, cell in enumerate(cell_polygons(folded(portfolio.value, portfolio.cost, portfolio.reference))):
        if len(cell):
            middle = cell.mean(axis=0)
            inner = (middle + 0.975 * (cell - middle)) @ CORNERS  # neighbours' outlines lie side by side
            colour = [*own, REFERENCE_COLOUR][position]
            axis.fill(*inner.T, facecolor="none", edgecolor=colour, linewidth=2.2, zorder=4)
    for position, weight in enumerate(portfolio.weights):
        style = {"color": own[position], "markersize": 10, "markeredgecolor": "white", "zorder": 6, "linestyle": "none"}
        axis.plot(*(weight @ CORNERS), marker="o", label=shorten(portfolio.ids[position]), **style)
    if portfolio.certificate is not None:
        star = {"color": GOLD, "markeredgecolor": INK, "markersize": 16, "zorder": 8, "linestyle": "none", "clip_on": False}
        axis.plot(*(portfolio.certificate.worst_weight @ CORNERS), marker="*", label="worst gap ε", **star)
    axis.plot([], [], color=REFERENCE_COLOUR, linewidth=2.2, label="base model's cell")
    axis.legend(loc="upper left", bbox_to_anchor=(0.86, 0.98))


def paint_parallel(figure: Any, portfolio: Portfolio, oracle: Oracle) -> None:
    """Weights and values of every policy across the bases, and the worst weight."""
    left, right = figure.subplots(1, 2)
    bases = range(len(portfolio.bases))
    own = colours(len(portfolio))
    for position, name in enumerate(portfolio.ids):
        gap = float(_gap(portfolio, oracle, portfolio.weights[position][None])[0])
        left.plot(bases, portfolio.weights[position], "o-", color=own[position], label=f"{shorten(name)} (gap {100 * gap:.1f} %)")
        right.plot(bases, portfolio.value[position], "o-", color=own[position])
    right.plot(bases, portfolio.reference, "o--", color=REFERENCE_COLOUR, label="base model")
    if portfolio.certificate is not None:
        worst = f"worst weight (gap {100 * portfolio.certificate.epsilon:.1f} %)"
        left.plot(bases, portfolio.certificate.worst_weight, "*--", color=INK, markerfacecolor=GOLD, markersize=12, label=worst)
    for axis, title in ((left, "Weights of the policies"), (right, "Their values")):
        axis.set_title(title)
        axis.set_xticks(list(bases), [shorten(name, 18) for name in portfolio.bases], rotation=30, ha="right")
    left.set_ylim(bottom=0)
    handles, labels = left.get_legend_handles_labels()
    more, names = right.get_legend_handles_labels()
    figure.legend([*handles, *more], [*labels, *names], loc="outside lower center", ncols=3)


def _gap(portfolio: Portfolio, oracle: Oracle, weights: np.ndarray) -> np.ndarray:
    """(n,) multiplicative gap at some weights; 0 where nothing is had."""
    served = portfolio.served(weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(served > 0, np.maximum(oracle.upper_bound(weights) / served - 1, 0.0), 0.0)
