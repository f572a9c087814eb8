"""Pictures of an evaluation, as SVG files: gaps with their intervals, whom policies serve, how far policies are apart.

Needs Matplotlib (the extra `plot`); everything is drawn from the records that the tables and the JSON are made of.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from palm.artifacts import write_text
from palm.evaluation.intervals import Estimate
from palm.evaluation.pictures import COLOURS, REFERENCE_COLOUR, Span, colours, draw, shorten, span_picture

Record = Mapping[str, Any]


def write_pictures(folder: Path, *, coverage: Record | None = None, diversity: Record | None = None) -> list[Path]:
    """Draw what there is.

    Args:
        folder: where coverage.svg, serving.svg and divergence.svg go.
        coverage, diversity: as `palm evaluate` records them.

    Returns:
        the files.

    Raises:
        ValueError: Matplotlib is not installed.
    """
    from palm.evaluation.report import check_plots

    check_plots()
    made = {}
    if coverage is not None:
        made["coverage"] = _gaps(coverage["rows"])
    if diversity is not None:
        made["serving"] = _serving(diversity["serving"])
        if diversity["divergence"] is not None:
            made["divergence"] = _divergence(diversity["divergence"])
    for name, svg in made.items():
        file = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ', 1)
        write_text(folder / f"{name}.svg", '<?xml version="1.0" encoding="utf-8"?>\n' + file + "\n")
    return [folder / f"{name}.svg" for name in made]


def _gaps(rows: Sequence[Record]) -> str:
    spans = []
    for row in rows:
        for colour, name in zip(COLOURS, ("epsilon", "delta", "captured_gain"), strict=False):
            entry = row[name]
            if all(entry[end] is not None and abs(entry[end]) < 1e6 for end in ("mean", "low", "high")):
                spans.append(Span(f"{row['over']}, {row['statistic']}", colour, _estimate(entry), {}))
    legend = [(COLOURS[0], "gap ε"), (COLOURS[1], "gap δ"), (COLOURS[2], "captured gain")]
    return span_picture("coverage", spans, label="measured on held-out prompts, with intervals over prompts", legend=legend)


def _serving(rows: Sequence[Record]) -> str:
    shades = (COLOURS[0], COLOURS[1])
    spans = [
        Span(name, colour, _estimate(entry), {})
        for row, colour in zip(rows, shades, strict=False)
        for name, entry in row["share"].items()
    ]
    legend = [(colour, f"share of the {row['over']}") for row, colour in zip(rows, shades, strict=False)]
    return span_picture("serving", spans, label="whom the policy serves best", legend=legend)


def _divergence(record: Record) -> str:
    ids, kl = record["ids"], record["kl"]
    most = max(max(row) for row in kl) or 1.0
    shades = dict(zip(ids, [REFERENCE_COLOUR, *colours(len(ids) - 1)], strict=True))

    def paint(figure: Any) -> None:
        axis = figure.subplots()
        axis.imshow(kl, cmap="Blues", vmin=0, vmax=most)
        axis.set_xticks(range(len(ids)), [shorten(name, 14) for name in ids], rotation=40, ha="right")
        axis.set_yticks(range(len(ids)), [shorten(name, 14) for name in ids])
        axis.grid(visible=False)
        axis.set_title("KL(row || column), nats")
        for row, name in enumerate(ids):
            axis.get_yticklabels()[row].set_color(shades[name])
            for column in range(len(ids)):
                if row != column:
                    ink = "white" if kl[row][column] > 0.6 * most else "black"
                    axis.text(column, row, f"{kl[row][column]:.2f}", ha="center", va="center", color=ink, fontsize=9)

    side = 2.4 + 0.62 * len(ids)
    return draw("divergence", (side + 0.6, side), paint)


def _estimate(record: Record) -> Estimate:
    return Estimate(record["mean"], record["low"], record["high"], int(record["count"]))
