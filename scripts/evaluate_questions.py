#!/usr/bin/env python3
"""What it is worth to choose which pairs a new user is asked: accuracy after few questions, chosen or random.

    python scripts/evaluate_questions.py planted --seeds 5
    python scripts/evaluate_questions.py ratings ../shared/data/jester5k/ratings.csv.gz \\
        --columns user=user_id,item=joke_id,score=rating --users 2000 1000 --train-pairs 300

`information` asks for the answer that tells most of the user's weight, `design` is PReF's D-optimal rule, and `random` draws (see
palm.rewards.questions). Every unseen user is asked pairs out of those they judged, outside the tested items or groups; on planted
worlds (scripts/benchmarks/planted.py) 500 users are seen and 400 unseen, with 60 pairs each to be asked. Intervals are 95 % over
users, paired; with several seeds, users and what is held out are drawn anew. Prints a table and one JSON line.
"""

import argparse
import json

from benchmarks.planted import plant
from benchmarks.table import print_table
from benchmarks.task_arguments import add_task_arguments, features_of, seeds_of, task_maker

from palm.evaluation.asking import question_curve
from palm.evaluation.methods import estimator
from palm.evaluation.tasks import Task
from palm.progress import bars


def planted_task(seed: int) -> Task:
    """A planted world, d 64 and K 4, whose unseen users can be asked 60 pairs each."""
    world = plant(users=500, pairs=40, unseen=400, shots=60, seed=seed)
    return Task(world.train, world.seen_test, world.context, world.unseen_test)


def main() -> None:
    """Fit, ask, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_task_arguments(parser, planted=True)
    parser.add_argument("--method", default="LoRe", help="as LoRe:rank=4 (default: LoRe)")
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 2, 3, 5, 10], help="how many (default: 1 2 3 5 10)")
    options = parser.parse_args()
    if min(options.questions) < 0:
        parser.error(f"--questions: expected numbers of at least 0, got {options.questions}")
    try:
        estimator(options.method)
        make = planted_task if options.kind == "planted" else task_maker(options)
        rows = question_curve(make, options.method, budgets=options.questions, seeds=seeds_of(options), track=bars)
    except (OSError, TypeError, ValueError, ImportError) as error:
        parser.error(str(error))
    print_table(rows)
    print(json.dumps({**vars(options), "features": features_of(options), "rows": rows}))


if __name__ == "__main__":
    main()
