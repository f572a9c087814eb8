#!/usr/bin/env python3
"""Reward models on one data set: accuracy for seen users, and for unseen ones by how many pairs they gave, against Bradley-Terry.

    python scripts/evaluate_rewards.py ratings ../shared/data/jester5k/ratings.csv.gz \\
        --columns user=user_id,item=joke_id,score=rating --users 2000 1000
    python scripts/evaluate_rewards.py pairs ../shared/data/ukpconvarg1/pairs.jsonl.gz \\
        --columns user=user_id,group=topic --group-until _ --min-pairs 50 --features tfidf

Ratings: items are told apart by identity alone, and a quarter of each user's items is held out before pairs are made, since
pairs of the same items follow from each other. Pairs: whole groups (debates, questions) are held out, of everyone unless
`--apart user` says that others may be trained on what somebody is tested on. Features of texts are `tfidf`, `length`, `format`
(the last two find leaks), or the folder or Hub id of a model. Every gain is over Bradley-Terry on the same users, with a 95 %
interval over users; with several seeds, users and what is held out are drawn anew for each.
Prints a table and one JSON line, which has more: log-loss, calibration, accuracy by how well a user is known, times.
"""

import argparse
import json
from typing import Any

from palm.data.ratings import Ratings, load_ratings
from palm.evaluation.methods import compare_methods, estimator
from palm.evaluation.tasks import JudgedTexts, Task, judged_texts, pair_task, rating_task
from palm.progress import bars


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


def main() -> None:
    """Read the data, fit every method, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["ratings", "pairs"])
    parser.add_argument("file")
    parser.add_argument("--columns", default="", help="what our columns are called there: user=user_id,group=topic")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["LoRe", "PReF", "VRF"],
        help="as LoRe:rank=5,preset=joint; see palm.rewards.METHODS",
    )
    parser.add_argument("--shots", type=int, nargs="*", default=[10, 20], help="pairs of context besides all (default: 10 20)")
    parser.add_argument("--users", type=int, nargs=2, default=[2000, 1000], help="ratings: seen and unseen (default: 2000 1000)")
    parser.add_argument("--train-pairs", type=int, default=100, help="ratings: of each seen user (default: 100)")
    parser.add_argument("--test-pairs", type=int, default=20, help="ratings: of each user (default: 20)")
    parser.add_argument("--group-until", default="", help="pairs: groups that agree up to this text are one")
    parser.add_argument("--features", default="tfidf", help="pairs: tfidf, length, format, or a model (default: tfidf)")
    parser.add_argument("--dim", type=int, default=128, help="pairs: numbers of tfidf features (default: 128)")
    parser.add_argument("--min-pairs", type=int, default=20, help="pairs: of a user (default: 20)")
    parser.add_argument("--unseen", type=float, default=0.25, help="pairs: share of the users (default: 0.25)")
    parser.add_argument("--apart", choices=["everyone", "user"], default="everyone", help="pairs: whom groups are held out of")
    parser.add_argument("--seed", type=int, default=0, help="of the first split (default: 0)")
    parser.add_argument("--seeds", type=int, default=1, help="splits to average over (default: 1)")
    options = parser.parse_args()
    try:
        columns = dict(part.split("=", 1) for part in options.columns.split(",") if part)
    except ValueError:
        parser.error(f"--columns: expected name=column,name=column, got {options.columns!r}")
    for spec in options.methods:
        try:
            estimator(spec)
        except ValueError as error:
            parser.error(f"--methods: {error}")
    if min(options.shots, default=0) < 0:
        parser.error(f"--shots: expected numbers of at least 0, got {min(options.shots)}")
    if options.seeds < 1:
        parser.error(f"--seeds: expected at least 1, got {options.seeds}")
    sizes: list[dict[str, int]] = []
    ratings: Ratings | None = None
    judged: JudgedTexts | None = None

    def make(seed: int) -> Task:
        if ratings is not None:
            users = (options.users[0], options.users[1])
            task = rating_task(ratings, users=users, train=options.train_pairs, test=options.test_pairs, seed=seed)
        else:
            assert judged is not None
            task = pair_task(judged, unseen=options.unseen, apart=options.apart, seed=seed)
        for name, part in vars(task).items():
            if len(part) == 0:
                raise ValueError(f"{name}: expected pairs, got none; ask for more users or pairs")
        sizes.append(
            {"seen users": len(task.train.ids), "unseen users": len(task.unseen_test.ids), "training pairs": len(task.train)}
        )
        return task

    seeds = range(options.seed, options.seed + options.seeds)
    try:
        if options.kind == "ratings":
            ratings = load_ratings(options.file, columns=columns)
        else:
            judged = judged_texts(
                options.file,
                columns,
                features=options.features,
                min_pairs=options.min_pairs,
                dim=options.dim,
                until=options.group_until,
                seed=options.seed,
            )
        rows = compare_methods(make, options.methods, shots=options.shots, seeds=seeds, track=bars)
    except (OSError, ValueError, ImportError) as error:
        parser.error(str(error))
    print("; ".join(", ".join(f"{name}: {count}" for name, count in size.items()) for size in sizes) + "\n")
    _print_table(rows)
    features = options.features if options.kind == "pairs" else "identity"
    print(json.dumps({"file": options.file, "features": features, "seeds": list(seeds), "splits": sizes, "rows": rows}))


if __name__ == "__main__":
    main()
