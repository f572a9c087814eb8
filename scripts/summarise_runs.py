#!/usr/bin/env python3
"""One line per finished run, and their mean with a 95 % interval: how a configuration does over seeds.

    for seed in 0 1 2 3 4; do palm run recipes/configs/planted/pipeline.yaml seed=$seed output=runs/seed$seed; done
    python scripts/summarise_runs.py runs/seed*

The interval is Student's over runs. `ratio` is the portfolio's measured worst gap over that of the best single policy, the
smaller the better; `least share` the smallest share of the planned gain that a member reaches at its own weight; `routed gain`
the mean utility that unseen users get over one policy for all, and `worse off` the share of them whom routing serves worse; both
by the planted truth where there is one, by learned rewards otherwise.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from palm.artifacts import ArtifactError, read_json

COLUMNS = (
    "unseen accuracy",
    "BradleyTerry",
    "difference",
    "measured gap",
    "best single",
    "ratio",
    "captured gain",
    "of single",
    "least share",
    "routed gain",
    "worse off",
)


def row(folder: Path) -> list[float]:
    """A run's numbers, in the order of COLUMNS; NaN where a run has none."""
    measured, served = read_json(folder / "measure/measure.json"), read_json(folder / "route/served.json")
    table: dict[str, Any] = measured["accuracy"]
    main = next(iter(table))
    population = table.get("BradleyTerry", {}).get("unseen")
    singles = list(measured["singles"].values())
    gap, captured = measured["gap"]["epsilon"]["mean"], measured["gap"]["captured_gain"]["mean"]
    single = min((entry["epsilon"] for entry in singles if entry["epsilon"] is not None), default=np.nan)
    shares = [entry["share_of_planned_gain"] for entry in measured["members"] if entry["share_of_planned_gain"] is not None]
    routed = served.get("planted", served["learned"]).get("unseen")
    return [
        table[main]["unseen"]["accuracy"]["mean"] if "unseen" in table[main] else np.nan,
        population["accuracy"]["mean"] if population else np.nan,
        population["gain_of_main"]["mean"] if population else np.nan,
        np.nan if gap is None else gap,
        single,
        np.nan if gap is None or single == 0 else gap / single,
        captured,
        max((entry["captured_gain"] for entry in singles), default=np.nan),
        min(shares, default=np.nan),
        routed["gain"]["mean"] if routed else np.nan,
        routed["worse_off"] if routed else np.nan,
    ]


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    folders = parser.parse_args().runs
    try:
        numbers = np.array([row(folder) for folder in folders])
    except ArtifactError as error:
        sys.exit(f"{error}; is the run finished? `palm status` tells")
    print("| run | " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---:|" * len(COLUMNS))
    for folder, entries in zip(folders, numbers, strict=True):
        print(f"| {folder.name} | " + " | ".join(f"{entry:.3f}" for entry in entries) + " |")
    if len(folders) > 1:
        half = stats.t.ppf(0.975, len(folders) - 1) * numbers.std(axis=0, ddof=1) / np.sqrt(len(folders))
        cells = (f"{mean:.3f} ± {width:.3f}" for mean, width in zip(numbers.mean(axis=0), half, strict=True))
        print("| mean, 95 % | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
