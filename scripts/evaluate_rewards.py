#!/usr/bin/env python3
"""Reward models on one data set: accuracy for seen users, and for unseen ones by how many pairs they gave, against Bradley-Terry.

    python scripts/evaluate_rewards.py ratings ../shared/data/jester5k/ratings.csv.gz \\
        --columns user=user_id,item=joke_id,score=rating --users 2000 1000 --texts ../shared/data/jester5k/jokes.jsonl.gz
    python scripts/evaluate_rewards.py pairs ../shared/data/ukpconvarg1/pairs.jsonl.gz \\
        --columns user=user_id,group=topic --group-until _ --min-pairs 50 --features tfidf

Ratings: items are told apart by identity alone unless `--texts` has what they say; a quarter of each user's items is held out
before pairs are made, since pairs of the same items follow from each other. Pairs: whole groups (debates, questions) are held out,
of everyone unless `--apart user` says that others may be trained on what somebody is tested on. Features of texts are `tfidf`,
`length`, `format`, or the folder or Hub id of a model. Every gain is over Bradley-Terry on the same users, with a 95 % interval
over users; with several seeds, users and what is held out are drawn anew for each, and the principal angles between the basis
rewards that two seeds find say how stable they are. `--leaks` adds Bradley-Terry on length alone and on format alone, on the same
splits: where these come near the methods, it is not what responses say that is told apart.
Prints a table and one JSON line, which has more: log-loss, calibration, accuracy by how well a user is known, times.
"""

import argparse
import json
from typing import Any

import numpy as np
from benchmarks.task_arguments import add_task_arguments, features_of, seeds_of, task_makers

from palm.evaluation.methods import compare_methods, estimator
from palm.evaluation.tasks import Task
from palm.progress import bars

LEAKS = ("length", "format")
"""Features that say nothing of what a response says."""


def _print_table(rows: list[dict[str, Any]]) -> None:
    parts = [name.removesuffix(" gain") for name in rows[0] if name.endswith(" gain")]
    heads = [*parts, "log-loss", "calibration error", "fit s", "adapt ms"]
    print("| method | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads))
    for row in rows:
        cells = []
        for part in parts:
            gain = row[f"{part} gain"]
            more = "" if row is rows[0] else f" ({gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}])"
            cells.append(f"{row[part]['mean']:.3f}{more}")
        cells += [f"{row[parts[-1]]['log_loss']:.3f}", f"{row['calibration']:.3f}"]
        cells += [f"{row['fit_seconds']:.1f}", f"{row['adapt_ms']:.2f}"]
        print(f"| {row['method']} | " + " | ".join(cells) + " |")


def _print_angles(rows: list[dict[str, Any]]) -> None:
    """A line per method: means over pairs of seeds."""
    for row in rows:
        degrees = [pair["degrees"] for pair in row.get("basis_angles", []) if pair["degrees"]]
        if degrees:
            mean, largest = np.mean([np.mean(each) for each in degrees]), np.mean([each[0] for each in degrees])
            print(
                f"{row['method']}: bases of two seeds are {mean:.1f} degrees apart by the mean angle, {largest:.1f} by the largest"
            )


def main() -> None:
    """Read the data, fit every method, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_task_arguments(parser)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["LoRe", "PReF", "VRF"],
        help="as LoRe:rank=5,preset=joint; see palm.rewards.METHODS",
    )
    parser.add_argument("--shots", type=int, nargs="*", default=[10, 20], help="pairs of context besides all (default: 10 20)")
    parser.add_argument("--leaks", action="store_true", help="also Bradley-Terry on length alone and on format alone")
    options = parser.parse_args()
    for spec in options.methods:
        try:
            estimator(spec)
        except ValueError as error:
            parser.error(f"--methods: {error}")
    if min(options.shots, default=0) < 0:
        parser.error(f"--shots: expected numbers of at least 0, got {min(options.shots)}")
    sizes: list[dict[str, int]] = []

    def sized(task: Task) -> Task:
        seen, unseen = len(task.train.ids), len(task.unseen_test.ids)
        sizes.append({"seen users": seen, "unseen users": unseen, "training pairs": len(task.train)})
        return task

    try:
        seeds = seeds_of(options)
        leaks = LEAKS if options.leaks else ()
        makers = task_makers(options, leaks)
        rows = compare_methods(
            lambda seed: sized(makers[options.features](seed)),
            options.methods,
            shots=options.shots,
            seeds=seeds,
            leaks={name: makers[name] for name in leaks},
            track=bars,
        )
    except (OSError, ValueError, ImportError) as error:
        parser.error(str(error))
    print("; ".join(", ".join(f"{name}: {count}" for name, count in size.items()) for size in sizes) + "\n")
    _print_table(rows)
    _print_angles(rows)
    record = {"file": options.file, "features": features_of(options), "seeds": list(seeds), "splits": sizes, "rows": rows}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
