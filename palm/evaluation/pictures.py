"""The report's pictures as SVG text: gap against size, planned against measured, accuracy.

Every picture is made anew from Matplotlib's own defaults, with fixed ids and without a date: equal numbers give equal text.
Matplotlib is imported where it is used, so that everything else works without it. Pictures of weights on the simplex are in
`palm.evaluation.weight_pictures`.
"""

import colorsys
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from palm.evaluation.intervals import Estimate

COLOURS = (
    "#2f6db5",
    "#e07b2a",
    "#2e9463",
    "#b3478c",
    "#7a5bb8",
    "#c4403a",
    "#1d99ad",
    "#97962a",
    "#8a6247",
    "#56657a",
)
REFERENCE_COLOUR = "#8d939c"
INK = "#1f2733"
FAINT = "#d9dde3"
GOLD = "#ffc531"

_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # names are anyone's: a dollar sign is a dollar sign
    "text.color": INK,
    "axes.edgecolor": "#aab0ba",
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e9ecf0",
    "xtick.color": "#4a5463",
    "ytick.color": "#4a5463",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}


@dataclass(frozen=True)
class SizePoint:
    """A planned portfolio of one size.

    Attributes:
        size: policies allowed.
        epsilon: its multiplicative gap; None if unbounded.
        captured_gain: the share of personalisation's gain that the worst-served weight gets.
        size_at_least: proven lower bound on the size of any portfolio with this gap.
        epsilon_at_least: no portfolio of this size has a smaller gap; None if that is without bound, or was not looked for.
        hypervolume: of the values above 0, the reference's among them; None if it was not computed.
    """

    size: int
    epsilon: float | None
    captured_gain: float
    size_at_least: int
    epsilon_at_least: float | None = None
    hypervolume: float | None = None


@dataclass(frozen=True)
class Span:
    """A number with its interval to draw in one row.

    Attributes:
        row: the row's name.
        colour: of the mark.
        estimate: what was measured.
        marks: other numbers in the row, by the kind of mark: "reference" or "planned".
    """

    row: str
    colour: str
    estimate: Estimate
    marks: dict[str, float]


def colours(count: int) -> list[str]:
    """One colour for each of `count` policies; the first ten are told apart best."""
    extra = max(count - len(COLOURS), 0)
    further = [colorsys.hls_to_rgb((0.08 + 0.618034 * number) % 1.0, 0.36, 0.5) for number in range(extra)]
    return [*COLOURS[:count], *("#" + "".join(f"{round(255 * part):02x}" for part in rgb) for rgb in further)]


def shorten(name: str, most: int = 26) -> str:
    """A name that fits into a picture."""
    name = " ".join(name.split())
    return name if len(name) <= most else name[: most - 1] + "…"


def draw(name: str, size: tuple[float, float], paint: Callable[[Any], None]) -> str:
    """An SVG element to put into HTML.

    Args:
        name: of the picture; makes its ids different from other pictures' in the same page.
        size: width and height in inches.
        paint: is given the Matplotlib figure.

    Returns:
        `<svg ...>...</svg>` without XML prolog, namespaces, comments or metadata, so that no address is named in it.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": f"palm {name}"})
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        buffer = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=metadata, bbox_inches="tight", pad_inches=0.04, transparent=True)
    return _inline(buffer.getvalue(), name)


def _inline(svg: str, name: str) -> str:
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r"<style.*?</style>\s*", "", svg, flags=re.DOTALL)  # it would hold for the whole page
    svg = svg.replace("<svg ", '<svg style="stroke-linejoin: round; stroke-linecap: butt" ', 1)

    def own(tag: re.Match[str]) -> str:
        text = re.sub(r'(\sid=")', rf"\g<1>{name}-", tag.group())
        text = re.sub(r'\sxlink:href="#', f' href="#{name}-', text)
        return re.sub(r"url\(#", f"url(#{name}-", text)

    return re.sub(r"<[^>]+>", own, svg)


def size_picture(
    curve: Sequence[SizePoint],
    *,
    size: int,
    held_out: SizePoint,
    epsilon: Estimate | None,
    captured: Estimate,
    single: float | None,
) -> str:
    """Gap and captured gain against the number of policies.

    Args:
        curve: planned portfolios, by size.
        size: m of the portfolio that was trained.
        held_out: its plan on other prompts.
        epsilon, captured: what was measured of it; epsilon None if it is unbounded.
        single: captured gain of the best single policy that was trained, if one was.
    """

    def paint(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        bounded = [point for point in curve if point.epsilon is not None]
        line = {"color": COLOURS[0], "marker": "o", "markersize": 5, "linewidth": 1.8, "label": "planned, prompts it was chosen on"}
        left.plot([point.size for point in bounded], [100 * (point.epsilon or 0.0) for point in bounded], **line)
        right.plot([point.size for point in curve], [100 * point.captured_gain for point in curve], **line)
        paint_proven(left, curve)
        for axis, planned, measured in ((left, held_out.epsilon, epsilon), (right, held_out.captured_gain, captured)):
            if planned is not None:
                axis.plot(
                    [size],
                    [100 * planned],
                    "D",
                    color="white",
                    markeredgecolor=INK,
                    markersize=6,
                    label="planned, held-out prompts",
                )
            if measured is not None:
                _bar(axis, size, measured, scale=100, colour=COLOURS[5], upright=True, label="measured from trained policies")
            axis.set_xlabel("number of policies")
            sizes = sorted({*(point.size for point in curve), size, *([1] if single is not None else [])})
            axis.set_xticks(sizes)
            axis.set_xlim(min(sizes) - 0.5, max(sizes) + 0.5)
            axis.set_ylim(bottom=0)
        if single is not None:
            right.plot([1], [100 * single], "s", color=REFERENCE_COLOUR, markersize=7, label="one trained policy for everyone")
        right.set_ylim(0, 105)
        left.set_title("Gap ε at the worst weight: lower is better")
        left.set_ylabel("gap ε (%)")
        right.set_title("Captured gain at the worst weight: higher is better")
        right.set_ylabel("captured gain (%)")
        handles, labels = right.get_legend_handles_labels()
        known = set(labels)
        for handle, label in zip(*left.get_legend_handles_labels(), strict=True):
            if label not in known:
                handles, labels = [*handles, handle], [*labels, label]
        figure.legend(handles, labels, loc="outside lower center", ncols=2)

    return draw("sizes", (9.6, 4.2), paint)


def paint_proven(axis: Any, curve: Sequence[SizePoint]) -> None:
    """Below the proven bounds, in percent, where no portfolio of a size can be: shaded, with a mark per size."""
    known = [(point.size, 100 * point.epsilon_at_least) for point in curve if point.epsilon_at_least is not None]
    if known:
        sizes, least = zip(*known, strict=True)
        axis.fill_between(sizes, 0, least, color=COLOURS[0], alpha=0.1, linewidth=0, zorder=1)
        style = {"linestyle": (0, (4, 3)), "linewidth": 1.2, "marker": "_", "markersize": 9}
        axis.plot(sizes, least, color=COLOURS[0], label="proven: no portfolio of that size has less", **style)


def span_picture(
    name: str, spans: Sequence[Span], *, label: str, legend: Sequence[tuple[str, str]], chance: float | None = None
) -> str:
    """Numbers with their intervals, one row each.

    Args:
        name: of the picture.
        spans: rows, from top to bottom; rows of equal name share a line.
        label: of the horizontal axis.
        legend: kind of mark and what it stands for; kinds are "measured", those of the spans' marks, or a colour.
        chance: where to draw a line for guessing.
    """
    rows = list(dict.fromkeys(span.row for span in spans))

    def paint(figure: Any) -> None:
        axis = figure.subplots()
        beside = {row: [span for span in spans if span.row == row] for row in rows}
        for position, row in enumerate(rows):
            for number, span in enumerate(beside[row]):
                y = position + 0.22 * (number - (len(beside[row]) - 1) / 2)
                ends = [*span.marks.values(), span.estimate.mean]
                if len(ends) > 1:
                    axis.plot([min(ends), max(ends)], [y, y], color=FAINT, linewidth=5, solid_capstyle="round", zorder=1)
                for kind, value in span.marks.items():
                    axis.plot([value], [y], color=span.colour, linestyle="none", zorder=3, **_MARKS[kind])
                _bar(axis, y, span.estimate, colour=span.colour)
        if chance is not None:
            axis.axvline(chance, color=REFERENCE_COLOUR, linestyle=(0, (4, 3)), linewidth=1)
        axis.set_yticks(range(len(rows)), [shorten(row) for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.grid(visible=False, axis="y")
        axis.set_xlabel(label)
        handles = [_handle(kind, text) for kind, text in legend]
        figure.legend(handles=handles, loc="outside lower center", ncols=max(len(handles), 1))

    return draw(name, (8.6, 1.5 + 0.42 * len(rows)), paint)


_MARKS: dict[str, dict[str, Any]] = {
    "reference": {
        "marker": "o",
        "markersize": 7,
        "markerfacecolor": "white",
        "markeredgecolor": REFERENCE_COLOUR,
        "markeredgewidth": 1.6,
    },
    "planned": {"marker": "D", "markersize": 7, "markerfacecolor": "white", "markeredgewidth": 1.6},
    "measured": {"marker": "o", "markersize": 7},
}


def _handle(kind: str, text: str) -> Any:
    from matplotlib.lines import Line2D

    colour = kind if kind.startswith("#") else INK
    return Line2D([], [], color=colour, linestyle="none", label=text, **_MARKS["measured" if kind.startswith("#") else kind])


def _bar(
    axis: Any, at: float, estimate: Estimate, *, colour: str, scale: float = 1, upright: bool = False, label: str | None = None
) -> None:
    """A dot with its interval."""
    low, high = max(estimate.mean - estimate.low, 0.0), max(estimate.high - estimate.mean, 0.0)
    error = [[scale * low], [scale * high]]
    style = {"fmt": "o", "color": colour, "markersize": 7, "elinewidth": 1.8, "capsize": 4, "zorder": 4, "label": label}
    if upright:
        axis.errorbar([at], [scale * estimate.mean], yerr=error, **style)
    else:
        axis.errorbar([scale * estimate.mean], [at], xerr=error, **style)
