"""Pictures of users' weights, and the triangle of weights over three bases.

Three bases give a triangle, two a line; with any other number, weights are shown basis by basis.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from palm.evaluation.pictures import FAINT, INK, draw, shorten

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
_MOST = 1500  # users drawn; more would only make the file large
_PARTS = {"seen": ("#2f6db5", "o"), "unseen": ("#e07b2a", "D")}


def users_picture(users: Mapping[str, np.ndarray], bases: Sequence[str]) -> str:
    """Where users' weights lie.

    Args:
        users: (U, K) weights of the parts "seen" and "unseen".
        bases: K names.
    """
    drawn = {part: thin(weights) for part, weights in users.items() if len(weights)}
    if len(bases) == 3:
        return draw("users", (7.2, 4.6), lambda figure: _users_triangle(figure, drawn, bases))
    if len(bases) == 2:
        return draw("users", (8.6, 3.2), lambda figure: _users_line(figure, drawn, bases))
    return draw("users", (8.6, 1.4 + 0.5 * len(bases)), lambda figure: _users_by_basis(figure, drawn, bases))


def thin(weights: np.ndarray, most: int = _MOST) -> np.ndarray:
    """At most so many rows, evenly taken."""
    if len(weights) <= most:
        return weights
    return weights[np.linspace(0, len(weights) - 1, most).astype(np.int64)]


def triangle(figure: Any, bases: Sequence[str]) -> Any:
    """Axes of a triangle with its corners named and a faint grid of quarters."""
    axis = figure.subplots()
    axis.set_aspect("equal")
    axis.axis("off")
    for share in (0.25, 0.5, 0.75):
        for basis in range(3):
            ends = np.zeros((2, 3))
            ends[:, basis] = share
            ends[0, (basis + 1) % 3] = ends[1, (basis + 2) % 3] = 1 - share
            axis.plot(*(ends @ CORNERS).T, color=FAINT, linewidth=0.7, zorder=1)
    axis.plot(*CORNERS[[0, 1, 2, 0]].T, color="#7c8796", linewidth=1.2, zorder=3, solid_joinstyle="round")
    for basis, (x, y) in enumerate(CORNERS):
        above = basis == 2
        axis.text(
            x,
            y + (0.03 if above else -0.03),
            f"only {shorten(bases[basis])}",
            ha="center",
            va="bottom" if above else "top",
            fontweight="bold",
        )
    axis.set_xlim(-0.12, 1.12)
    axis.set_ylim(-0.1, 0.97)
    return axis


def _users_triangle(figure: Any, users: Mapping[str, np.ndarray], bases: Sequence[str]) -> None:
    axis = triangle(figure, bases)
    for part, weights in users.items():
        colour, marker = _PARTS[part]
        axis.scatter(
            *(weights @ CORNERS).T,
            s=20,
            c=colour,
            marker=marker,
            alpha=0.6,
            linewidths=0.4,
            edgecolors="white",
            zorder=4,
            label=f"{part} users",
        )
    if users:
        mean = np.vstack(list(users.values())).mean(axis=0)
        axis.plot(
            *(mean @ CORNERS), "P", color="white", markeredgecolor=INK, markersize=10, zorder=6, linestyle="none", label="mean"
        )
        axis.legend(loc="upper left", bbox_to_anchor=(0.8, 0.98), handletextpad=0.3)


def _users_line(figure: Any, users: Mapping[str, np.ndarray], bases: Sequence[str]) -> None:
    axis = figure.subplots()
    stacked = [weights[:, 1] for weights in users.values()]
    if stacked:
        shown = [_PARTS[part][0] for part in users]
        axis.hist(
            stacked, bins=np.linspace(0, 1, 26), stacked=True, color=shown, label=[f"{part} users" for part in users], rwidth=0.92
        )
        axis.axvline(float(np.concatenate(stacked).mean()), color=INK, linewidth=1.2, linestyle=(0, (4, 3)), label="mean")
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axis.set_xlim(0, 1)
    axis.set_xlabel(f"weight: 0 = only {shorten(bases[0])}, 1 = only {shorten(bases[1])}")
    axis.set_ylabel("users")


def _users_by_basis(figure: Any, users: Mapping[str, np.ndarray], bases: Sequence[str]) -> None:
    axis = figure.subplots()
    rng = np.random.default_rng(0)
    for part, weights in users.items():
        colour, marker = _PARTS[part]
        for basis in range(len(bases)):
            y = basis + rng.uniform(-0.28, 0.28, len(weights))
            label = f"{part} users" if basis == 0 else None
            axis.scatter(weights[:, basis], y, s=12, c=colour, marker=marker, alpha=0.4, linewidths=0, zorder=3, label=label)
    if users:
        everyone = np.vstack(list(users.values()))
        axis.plot(
            everyone.mean(axis=0), range(len(bases)), "|", color=INK, markersize=22, markeredgewidth=2.2, zorder=5, label="mean"
        )
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.3)
    axis.set_yticks(range(len(bases)), [shorten(name) for name in bases])
    axis.set_ylim(len(bases) - 0.5, -0.5)
    axis.set_xlim(-0.02, 1.02)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("weight that a user gives the basis")
