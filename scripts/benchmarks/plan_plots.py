"""Pictures of what `bench.py plan` measured."""

from pathlib import Path
from typing import Any

from palm.artifacts import write_text
from palm.evaluation.pictures import COLOURS, draw
from palm.evaluation.plan_pictures import stand_alone


def save_quality(rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """A picture quality-kK.svg for each K of the section "quality": worst and mean gap against the number of policies.

    Args:
        rows: of `bench_quality`; others are passed over.
        folder: made if it is not there.
    """
    quality = [row for row in rows if row["section"] == "quality"]
    paths = []
    for bases in sorted({row["K"] for row in quality}):
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / f"quality-k{bases}.svg")
        of_k = [row for row in quality if row["K"] == bases]
        write_text(paths[-1], stand_alone(draw(f"quality-k{bases}", (10.4, 4.4), lambda figure, of_k=of_k: _paint(figure, of_k))))
    return paths


def _paint(figure: Any, rows: list[dict[str, Any]]) -> None:
    axes = figure.subplots(1, 2)
    for number, way in enumerate(dict.fromkeys(row["way"] for row in rows)):
        own = sorted((row for row in rows if row["way"] == way), key=lambda row: row["m"])
        style = {"color": COLOURS[number], "marker": "o", "markersize": 3.5, "linewidth": 2.4 if way == "planned" else 1.3}
        sizes = [row["m"] for row in own]
        axes[0].errorbar(
            sizes, [100 * row["worst_gap"] for row in own], [196 * row["standard_error"] for row in own], label=way, **style
        )
        axes[1].plot(sizes, [100 * row["mean_gap"] for row in own], label=way, **style)
    for axis, title in zip(axes, ("at the worst weight, certified (95 %)", "mean over weights"), strict=True):
        axis.set_title(title)
        axis.set_yscale("log")
        for which in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            which(lambda value, _: f"{value:g}")
        axis.set_xlabel("number of policies")
        axis.set_ylabel("gap ε (%)")
    axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
