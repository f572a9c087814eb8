"""Pictures of a portfolio's cells: which policy is best for which weight.

Three bases give a triangle with exact cells, two a line of utilities; with any other number, weights are shown as a table.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from palm.evaluation.pictures import FAINT, GOLD, INK, REFERENCE_COLOUR, colours, draw, shorten
from palm.evaluation.weight_pictures import CORNERS, thin, triangle
from palm.portfolio.certify import folded
from palm.portfolio.portfolio import Portfolio


def cells_picture(portfolio: Portfolio, users: np.ndarray) -> str:
    """Which policy is best for which weight, with the policies' own weights, the users, and the worst weight.

    Args:
        portfolio: measured or planned.
        users: (U, K) weights.
    """
    drawn = thin(users)
    bases = len(portfolio.bases)
    if bases == 3:
        return draw("cells", (8.2, 5.2), lambda figure: _cells_triangle(figure, portfolio, drawn))
    if bases == 2:
        return draw("cells", (8.8, 4.4), lambda figure: _cells_line(figure, portfolio, drawn))
    height = 1.6 + 0.34 * max(len(portfolio) + 1, 8)
    return draw("cells", (9.4, height), lambda figure: _cells_table(figure, portfolio, drawn))


def cell_polygons(values: np.ndarray) -> list[np.ndarray]:
    """For K = 3, the polygon of weights where each policy is best, by clipping the triangle.

    Args:
        values: (m, 3) values with the KL cost folded in.

    Returns:
        for each policy the (c, 3) corners of its cell in order; c is 0 where it is never best.
    """
    cells = []
    for own in range(len(values)):
        corners = np.eye(3)
        for other in range(len(values)):
            ahead = values[own] - values[other]
            if other == own or len(corners) == 0:
                continue
            if not ahead.any():  # equal policies: the first has the cell
                corners = corners if own < other else corners[:0]
                continue
            corners = _clip(corners, ahead)
        cells.append(corners)
    return cells


def _clip(corners: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """The part of a convex polygon where w.ahead >= 0 (Sutherland and Hodgman)."""
    margin = corners @ ahead
    kept: list[np.ndarray] = []
    for row in range(len(corners)):
        after = (row + 1) % len(corners)
        if margin[row] >= 0:
            kept.append(corners[row])
        if (margin[row] >= 0) != (margin[after] >= 0):
            share = margin[row] / (margin[row] - margin[after])
            kept.append(corners[row] + share * (corners[after] - corners[row]))
    return np.array(kept).reshape(-1, 3) if len(kept) > 2 else np.zeros((0, 3))


def _cells_triangle(figure: Any, portfolio: Portfolio, users: np.ndarray) -> None:
    axis = triangle(figure, portfolio.bases)
    shades = [*colours(len(portfolio)), REFERENCE_COLOUR]
    best = portfolio.utilities(users).argmax(axis=1) if len(users) else np.zeros(0, dtype=np.intp)
    for position, cell in enumerate(cell_polygons(folded(portfolio.value, portfolio.cost, portfolio.reference))):
        if len(cell):
            axis.fill(*(cell @ CORNERS).T, color=shades[position], alpha=0.2, linewidth=0, zorder=0)
            axis.fill(*(cell @ CORNERS).T, facecolor="none", edgecolor="white", linewidth=2, zorder=2)
        mine = users[best == position]
        axis.scatter(*(mine @ CORNERS).T, s=11, c=shades[position], alpha=0.55, linewidths=0, zorder=4)
    for position, weight in enumerate(portfolio.weights):
        x, y = weight @ CORNERS
        axis.plot([x], [y], "o", color=shades[position], markersize=12, markeredgecolor="white", markeredgewidth=1.8, zorder=6)
        axis.text(
            x,
            y - 0.045,
            shorten(portfolio.ids[position], 14),
            ha="center",
            va="top",
            fontsize=9,
            zorder=7,
            bbox={"facecolor": "white", "alpha": 0.78, "linewidth": 0, "boxstyle": "round,pad=0.16"},
        )
    certificate = portfolio.certificate
    if certificate is not None:
        _star(axis, *(certificate.worst_weight_captured @ CORNERS), filled=True)
        _star(axis, *(certificate.worst_weight @ CORNERS), filled=False)
    axis.legend(
        handles=_legend(portfolio, stars=certificate is not None),
        loc="upper left",
        bbox_to_anchor=(0.86, 0.98),
        ncols=1 + len(portfolio) // 14,
    )


def _cells_line(figure: Any, portfolio: Portfolio, users: np.ndarray) -> None:
    axis = figure.subplots()
    at = np.linspace(0, 1, 401)
    weights = np.column_stack([1 - at, at])
    utilities = portfolio.utilities(weights)
    shades = [*colours(len(portfolio)), REFERENCE_COLOUR]
    axis.plot(at, utilities.max(axis=1), color=FAINT, linewidth=8, solid_capstyle="round", zorder=1)
    for position, shade in enumerate(shades):
        dashed = (0, (4, 3)) if position == len(portfolio) else "-"
        axis.plot(at, utilities[:, position], color=shade, linewidth=1.8, linestyle=dashed, zorder=3)
    for position, weight in enumerate(portfolio.weights):
        own = float(portfolio.utilities(weight)[0, position])
        axis.plot(
            [weight[1]], [own], "o", color=shades[position], markersize=10, markeredgecolor="white", markeredgewidth=1.6, zorder=5
        )
    low = float(utilities.min()) - 0.12 * max(float(np.ptp(utilities)), 1e-6)
    if len(users):
        best = portfolio.utilities(users).argmax(axis=1)
        axis.scatter(
            users[:, 1], np.full(len(users), low), s=90, c=[shades[row] for row in best], marker="|", linewidths=1, zorder=4
        )
    if portfolio.certificate is not None:
        for weight, filled in ((portfolio.certificate.worst_weight_captured, True), (portfolio.certificate.worst_weight, False)):
            _star(axis, float(weight[1]), float(portfolio.served(weight)[0]), filled=filled)
    axis.set_xlim(-0.01, 1.01)
    axis.set_xlabel(f"weight: 0 = only {shorten(portfolio.bases[0])}, 1 = only {shorten(portfolio.bases[1])} (ticks: users)")
    axis.set_ylabel("utility")
    handles = _legend(portfolio, stars=portfolio.certificate is not None)
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _cells_table(figure: Any, portfolio: Portfolio, users: np.ndarray) -> None:
    left, right = figure.subplots(1, 2)
    shades = [*colours(len(portfolio)), REFERENCE_COLOUR]
    ids = [*portfolio.ids, "reference"]
    certificate = portfolio.certificate
    rows = [*portfolio.weights]
    names = [shorten(name, 18) for name in portfolio.ids]
    if certificate is not None:
        rows.append(certificate.worst_weight_captured)
        names.append("★ worst served")
    _heat(left, np.array(rows).reshape(-1, len(portfolio.bases)), portfolio.bases)
    left.set_title("Weights of the policies")
    left.set_yticks(np.arange(len(rows)) + 0.5, names)
    for tick, shade in zip(left.get_yticklabels(), [*shades[:-1], INK], strict=False):
        tick.set_color(shade)
        tick.set_fontweight("bold")
    for y, row in enumerate(rows):
        for x, entry in enumerate(row):
            left.text(
                x + 0.5, y + 0.5, f"{entry:.2f}", ha="center", va="center", fontsize=8, color="white" if entry > 0.55 else INK
            )
    users = thin(users, 160)
    best = portfolio.utilities(users).argmax(axis=1) if len(users) else np.zeros(0, dtype=np.intp)
    order = np.lexsort([-users.max(axis=1), users.argmax(axis=1), best]) if len(users) else best
    _heat(right, users[order], portfolio.bases)
    right.set_title("Users, grouped by their best policy")
    right.set_yticks([])
    for position in range(len(ids)):
        mine = np.flatnonzero(best[order] == position)
        if len(mine):
            right.fill_betweenx([mine[0], mine[-1] + 1], -0.35, -0.05, color=shades[position], linewidth=0)
            right.text(
                -0.45, mine.mean() + 0.5, shorten(ids[position], 18), ha="right", va="center", fontsize=9, color=shades[position]
            )
    right.set_xlim(-0.35, len(portfolio.bases))


def _heat(axis: Any, weights: np.ndarray, bases: Sequence[str]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    blues = LinearSegmentedColormap.from_list("weights", ["#f5f8fc", "#8fb6e0", "#1c4a86"])
    if len(weights):
        edges = np.arange(len(bases) + 1), np.arange(len(weights) + 1)
        axis.pcolormesh(*edges, weights, cmap=blues, vmin=0, vmax=1, antialiased=False, linewidth=0)
    axis.set_ylim(max(len(weights), 1), 0)
    axis.set_xticks(np.arange(len(bases)) + 0.5, [shorten(name, 16) for name in bases], rotation=30, ha="right")
    axis.tick_params(length=0)
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _star(axis: Any, x: float, y: float, *, filled: bool) -> None:
    axis.plot(
        [x],
        [y],
        "*",
        color=GOLD if filled else "white",
        markeredgecolor=INK,
        markersize=17 if filled else 13,
        markeredgewidth=1.1,
        zorder=8 if filled else 7,
        clip_on=False,
    )


def _legend(portfolio: Portfolio, *, stars: bool) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shades = colours(len(portfolio))
    handles: list[Any] = [Patch(color=shade, label=shorten(name)) for name, shade in zip(portfolio.ids, shades, strict=True)]
    handles.append(Patch(color=REFERENCE_COLOUR, label="reference (base model)"))
    if stars:
        star: dict[str, Any] = {"linestyle": "none", "marker": "*", "markeredgecolor": INK}
        handles.append(Line2D([], [], color=GOLD, markersize=14, label="worst captured gain", **star))
        handles.append(Line2D([], [], color="white", markersize=11, label="worst gap ε", **star))
    return handles
