"""What data reward models are compared on, as command-line arguments shared by scripts."""

import argparse
from collections.abc import Callable

from palm.data.ratings import load_item_texts, load_ratings
from palm.evaluation.tasks import Task, item_features, judged_texts, pair_task, rating_task


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
    try:
        columns = dict(part.split("=", 1) for part in options.columns.split(",") if part)
    except ValueError:
        raise ValueError(f"--columns: expected name=column,name=column, got {options.columns!r}") from None
    if options.file is None:
        raise ValueError(f"file: expected one for {options.kind!r}, got none")
    if options.kind == "ratings":
        rated = {name: column for name, column in columns.items() if name != "text"}
        ratings, users = load_ratings(options.file, columns=rated), (options.users[0], options.users[1])
        sizes = {"train": options.train_pairs, "test": options.test_pairs}
        features = None
        if options.texts:
            texts = load_item_texts(options.texts, columns=columns)
            features = item_features(ratings, texts, options.features, dim=options.dim, seed=options.seed)
        return lambda seed: _with_pairs(rating_task(ratings, users=users, **sizes, seed=seed, features=features))
    judged = judged_texts(
        options.file,
        columns,
        features=options.features,
        min_pairs=options.min_pairs,
        dim=options.dim,
        until=options.group_until,
        seed=options.seed,
    )
    return lambda seed: _with_pairs(pair_task(judged, unseen=options.unseen, apart=options.apart, seed=seed))


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
