"""What data reward models are compared on, as command-line arguments shared by scripts."""

import argparse
from collections.abc import Callable, Sequence

import numpy as np

from palm.data.ratings import load_item_texts, load_ratings
from palm.evaluation.tasks import JudgedTexts, Task, described_by, item_features, judged_texts, pair_task, rating_task


def add_task_arguments(parser: argparse.ArgumentParser, *, planted: bool = False) -> None:
    """Arguments that say which data, which features, who is unseen and what is held out; `planted` worlds need no file."""
    parser.add_argument("kind", choices=["ratings", "pairs", "planted"][: 3 if planted else 2])
    parser.add_argument("file", nargs="?" if planted else None)
    parser.add_argument("--columns", default="", help="what our columns are called there: user=user_id,group=topic")
    parser.add_argument("--users", type=int, nargs=2, default=[2000, 1000], help="ratings: seen and unseen (default: 2000 1000)")
    parser.add_argument("--train-pairs", type=int, default=100, help="ratings: of each seen user (default: 100)")
    parser.add_argument("--test-pairs", type=int, default=20, help="ratings: of each user (default: 20)")
    parser.add_argument("--texts", help="ratings: a table of item and text; items are told apart by identity unless given")
    parser.add_argument("--group-until", default="", help="pairs: groups that agree up to this text are one")
    parser.add_argument("--features", default="tfidf", help="of texts: tfidf, length, format, or a model (default: tfidf)")
    parser.add_argument("--dim", type=int, default=128, help="numbers of tfidf features (default: 128)")
    parser.add_argument("--min-pairs", type=int, default=20, help="pairs: of a user (default: 20)")
    parser.add_argument("--unseen", type=float, default=0.25, help="pairs: share of the users (default: 0.25)")
    parser.add_argument("--apart", choices=["everyone", "user"], default="everyone", help="pairs: whom groups are held out of")
    parser.add_argument("--seed", type=int, default=0, help="of the first split (default: 0)")
    parser.add_argument("--seeds", type=int, default=1, help="splits to average over (default: 1)")


def task_maker(options: argparse.Namespace) -> Callable[[int], Task]:
    """Read the data once; the result makes the task of a seed.

    Raises:
        ValueError: an argument is out of range, or the data has too little.
        OSError, ImportError: the file or an extra is missing.
    """
    return task_makers(options, [])[options.features]


def task_makers(options: argparse.Namespace, leaks: Sequence[str]) -> dict[str, Callable[[int], Task]]:
    """By name of features, `options.features` and `leaks`: what makes the task of a seed; the split is the same for all.

    Raises:
        ValueError: as of `task_maker`, or items have no texts for leaks to be of.
        OSError, ImportError: the file or an extra is missing.
    """
    try:
        columns = dict(part.split("=", 1) for part in options.columns.split(",") if part)
    except ValueError:
        raise ValueError(f"--columns: expected name=column,name=column, got {options.columns!r}") from None
    if options.file is None:
        raise ValueError(f"file: expected one for {options.kind!r}, got none")
    names = list(dict.fromkeys([options.features, *leaks]))
    encoding: dict[str, int] = {"dim": options.dim, "seed": options.seed}
    if options.kind == "ratings":
        if min(options.users) < 1:
            raise ValueError(f"--users: expected at least 1 seen and 1 unseen, got {options.users[0]} and {options.users[1]}")
        if leaks and not options.texts:
            raise ValueError("--leaks: expected --texts, since lengths and formats are those of texts; got none")
        rated = {name: column for name, column in columns.items() if name != "text"}
        ratings, users = load_ratings(options.file, columns=rated), (options.users[0], options.users[1])
        sizes = {"train": options.train_pairs, "test": options.test_pairs}
        described: dict[str, np.ndarray | None] = {options.features: None}
        if options.texts:
            texts = load_item_texts(options.texts, columns=columns)
            described = {name: item_features(ratings, texts, name, **encoding) for name in names}

        def rated_by(features: np.ndarray | None) -> Callable[[int], Task]:
            return lambda seed: _with_pairs(rating_task(ratings, users=users, **sizes, seed=seed, features=features))

        return {name: rated_by(features) for name, features in described.items()}
    judged = judged_texts(
        options.file, columns, features=options.features, min_pairs=options.min_pairs, until=options.group_until, **encoding
    )

    def judged_by(texts: JudgedTexts) -> Callable[[int], Task]:
        return lambda seed: _with_pairs(pair_task(texts, unseen=options.unseen, apart=options.apart, seed=seed))

    return {name: judged_by(judged if name == options.features else described_by(judged, name, **encoding)) for name in names}


def features_of(options: argparse.Namespace) -> str:
    """What a record says that texts or items are known by: features by name, "identity" or "planted"."""
    if options.kind == "planted":
        return "planted"
    return str(options.features) if options.kind == "pairs" or options.texts else "identity"


def seeds_of(options: argparse.Namespace) -> range:
    """Seeds of the splits.

    Raises:
        ValueError: there are none.
    """
    if options.seeds < 1:
        raise ValueError(f"--seeds: expected at least 1, got {options.seeds}")
    return range(options.seed, options.seed + options.seeds)


def _with_pairs(task: Task) -> Task:
    for name, part in vars(task).items():
        if len(part) == 0:
            raise ValueError(f"{name}: expected pairs, got none; ask for more users or pairs")
    return task
