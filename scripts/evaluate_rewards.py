#!/usr/bin/env python3
"""Reward models on one data set: accuracy for seen users, and for unseen ones by how many pairs they gave, against Bradley-Terry.

    python scripts/evaluate_rewards.py ratings ../shared/data/jester5k/ratings.csv.gz \\
        --columns user=user_id,item=joke_id,score=rating --users 2000 1000
    python scripts/evaluate_rewards.py pairs ../shared/data/ukpconvarg1/pairs.jsonl.gz \\
        --columns user=user_id,group=topic --group-until _ --min-pairs 50 --features tfidf

Ratings: items are told apart by identity alone, and a quarter of each user's items is held out before pairs are made, since
pairs of the same items follow from each other. Pairs: whole groups (debates, questions) are held out of each user. Features of
texts are `tfidf`, `length`, `format` (the last two find leaks), or the folder or Hub id of a model. Every gain is over
Bradley-Terry on the same users, with a 95 % interval over users. Prints a table and one JSON line.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import yaml

from palm.data.loaders import load_pairs
from palm.data.ratings import Ratings, load_ratings
from palm.data.splits import split_users
from palm.evaluation import Accuracy, accuracy, compare
from palm.evaluation.few_shot import rank_within_user
from palm.features.encode import distinct_texts
from palm.features.pairs import PairFeatures
from palm.features.surface import format_features, length_features, tfidf_features
from palm.rewards import METHODS, Estimator, RewardModel

BASELINE = "BradleyTerry"
SURFACES: dict[str, Callable[..., np.ndarray]] = {"tfidf": tfidf_features, "length": length_features, "format": format_features}


@dataclass(frozen=True)
class Task:
    """What methods are fitted and judged on.

    Attributes:
        train, seen_test: pairs of the seen users.
        context, unseen_test: pairs of the unseen users.
    """

    train: PairFeatures
    seen_test: PairFeatures
    context: PairFeatures
    unseen_test: PairFeatures


def rating_task(ratings: Ratings, *, users: tuple[int, int], train: int, test: int, seed: int) -> Task:
    """Seen and unseen users of a set of ratings, with identity features of the items."""
    ids = np.unique(ratings.user)
    if sum(users) > len(ids):
        raise SystemExit(f"--users: expected at most {len(ids)} altogether, got {users[0]} and {users[1]}")
    drawn = np.random.default_rng(seed).permutation(ids)
    items = np.unique(ratings.item)
    early, late = ratings.split(0.25, seed=seed)
    identity = np.eye(len(items), dtype=np.float32)

    def made(side: Ratings, part: np.ndarray, most: int | None) -> PairFeatures:
        pairs = side.of(part).pairs(per_user=most, least_gap=1e-9, seed=seed)
        return PairFeatures.from_items(
            pairs["user"], identity, np.searchsorted(items, pairs["chosen"]), np.searchsorted(items, pairs["rejected"])
        )

    seen, unseen = drawn[: users[0]], drawn[users[0] : sum(users)]
    fitted, tested = made(early, seen, train), made(late, seen, test)
    tested = tested.select(np.flatnonzero(np.isin(tested.user, fitted.ids)))  # ties may leave someone nothing to be fitted on
    return Task(fitted, tested, made(early, unseen, None), made(late, unseen, test))


def pair_task(
    path: str, columns: dict[str, str], *, features: str, min_pairs: int, unseen: float, dim: int, until: str, seed: int
) -> Task:
    """Seen and unseen users of a file of pairs, groups apart; contexts are all pairs outside the tested groups."""
    pairs = load_pairs(path, columns=columns, drop_invalid=True)
    if until:
        pairs = pairs.map(lambda row: {"group": row["group"].split(until)[0]})
    splits = split_users(pairs, unseen=0, shots=0, min_pairs=min_pairs, seed=seed)  # a test side for everyone
    texts = distinct_texts(pairs)
    if features in SURFACES:
        options = {"dim": dim, "seed": seed} if features == "tfidf" else {}
        items = SURFACES[features](texts.texts, **options)
    else:
        from palm.features.encode import load_encoder

        items = load_encoder(features, pooling="mean+last", max_length=384).encode(texts.texts)[0]
    user, group = (np.asarray(pairs[name], dtype=object).astype(str) for name in ("user", "group"))
    early, late = splits.rows["seen_train"], splits.rows["seen_test"]
    drawn = np.random.default_rng(seed).permutation(np.unique(user[late]))
    new = drawn[: max(1, round(unseen * len(drawn)))]

    def made(rows: np.ndarray, are_new: bool) -> PairFeatures:
        rows = rows[np.isin(user[rows], new) == are_new]
        return PairFeatures.from_items(user[rows], items, texts.chosen[rows], texts.rejected[rows], group=group[rows])

    return Task(made(early, False), made(late, False), made(early, True), made(late, True))


def evaluate(task: Task, methods: list[str], *, shots: list[int], seed: int) -> list[dict[str, Any]]:
    """A row per method: accuracy on seen users, and on unseen ones after each number of pairs and after all."""
    rank = rank_within_user(task.context, seed)
    contexts = {f"unseen {size}": task.context.select(np.flatnonzero(rank < size)) for size in shots}
    contexts["unseen all"] = task.context
    base: dict[str, Accuracy] = {}
    rows = []
    for spec in [BASELINE, *(method for method in methods if method != BASELINE)]:
        start = time.perf_counter()
        model = _estimator(spec).fit(task.train, seed=seed)
        row: dict[str, Any] = {"method": spec, "seconds": round(time.perf_counter() - start, 1)}
        for part, found in _judge(model, task, contexts, seed).items():
            base.setdefault(part, found)
            row[part] = found.overall.record()
            row[f"{part} gain"] = compare(found, base[part], seed=seed).record()
        rows.append(row)
    return rows


def _estimator(spec: str) -> Estimator:
    """What `LoRe:rank=5,preset=joint` names.

    Raises:
        ValueError: there is no such method or option, or features here cannot feed it.
    """
    name, _, text = spec.partition(":")
    able = [known for known in METHODS if known not in ("Reference", "Given")]
    if name not in able:
        raise ValueError(f"expected names out of {', '.join(able)}, got {name!r}")
    options = yaml.safe_load("{" + text.replace("=", ": ") + "}") or {}
    known = signature(METHODS[name]).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; known: {', '.join(known)}")
    return METHODS[name](**options)


def _judge(model: RewardModel, task: Task, contexts: dict[str, PairFeatures], seed: int) -> dict[str, Accuracy]:
    known = model.users.select(task.seen_test.ids) if model.users is not None else model.infer(task.seen_test)
    found = {"seen": accuracy(model, task.seen_test, known, seed=seed)}
    for part, context in contexts.items():
        users = model.infer(context, ids=task.unseen_test.ids)
        found[part] = accuracy(model, task.unseen_test, users, seed=seed)
    return found


def _print_table(rows: list[dict[str, Any]]) -> None:
    parts = [name for name in rows[0] if name not in ("method", "seconds") and not name.endswith(" gain")]
    print("| method | " + " | ".join(parts) + " | s |\n|---|" + "---|" * (len(parts) + 1))
    for row in rows:
        cells = []
        for part in parts:
            gain = row[f"{part} gain"]
            more = "" if row is rows[0] else f" ({gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}])"
            cells.append(f"{row[part]['mean']:.3f}{more}")
        print(f"| {row['method']} | " + " | ".join(cells) + f" | {row['seconds']} |")


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
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        columns = dict(part.split("=", 1) for part in options.columns.split(",") if part)
    except ValueError:
        parser.error(f"--columns: expected name=column,name=column, got {options.columns!r}")
    for spec in options.methods:
        try:
            _estimator(spec)
        except ValueError as error:
            parser.error(f"--methods: {error}")
    if min(options.shots, default=0) < 0:
        parser.error(f"--shots: expected numbers of at least 0, got {min(options.shots)}")
    try:
        if options.kind == "ratings":
            ratings = load_ratings(options.file, columns=columns)
            users = (options.users[0], options.users[1])
            task = rating_task(ratings, users=users, train=options.train_pairs, test=options.test_pairs, seed=options.seed)
        else:
            task = pair_task(
                options.file,
                columns,
                features=options.features,
                min_pairs=options.min_pairs,
                unseen=options.unseen,
                dim=options.dim,
                until=options.group_until,
                seed=options.seed,
            )
        for name, part in vars(task).items():
            if len(part) == 0:
                raise ValueError(f"{name}: expected pairs, got none; ask for more users or pairs")
    except (OSError, ValueError, ImportError) as error:
        parser.error(str(error))
    rows = evaluate(task, options.methods, shots=options.shots, seed=options.seed)
    sizes = {"seen users": len(task.train.ids), "unseen users": len(task.unseen_test.ids), "training pairs": len(task.train)}
    print(", ".join(f"{name}: {count}" for name, count in sizes.items()) + "\n")
    _print_table(rows)
    print(
        json.dumps(
            {
                "file": options.file,
                "features": options.features if options.kind == "pairs" else "identity",
                "seed": options.seed,
                **sizes,
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
