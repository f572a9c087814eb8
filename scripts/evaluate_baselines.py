#!/usr/bin/env python3
"""The trained portfolio against what else could be done with the same candidates, prompts and adapters.

    python scripts/evaluate_baselines.py runs/planted
    python scripts/evaluate_baselines.py runs/planted --families singles best-of-n basis soup mod uniform random --weights 16

All are measured on the run's held-out prompts, with as many responses and the same seeds as its measure stage:

    singles     each single policy that the run trained, for everyone
    best-of-n   the best of n candidates of the reference by w; n is chosen on the planning prompts; n responses for each served one
    basis       K policies trained for one basis reward each, as the members were; everyone gets the best for them
    soup        rewarded soups: the K changes of the base mixed by each user's weight, exactly; an adapter for every user
    member-soup the portfolio's members mixed likewise, in the shares that come nearest to the user's weight
    mod         multi-objective decoding: the K policies' log-probabilities mixed by each user's weight; K passes for every token
    uniform, random   as many policies as the portfolio has, at weights spread evenly or drawn at random, with no plan

What is trained begins where the run's members did: with `train.start`, each from the nearest of that portfolio's adapters.

Test weights: where the portfolio's certificate is worst, the users' mean, and users' own.

    gain                 utility over the reference's, KL cost included, mean over the test weights
    share_of_gain        of what the optimum on the candidates would gain; worst_share: at the worst test weight
    less_than_portfolio  how much less than the portfolio's, paired over prompts; below 0 where the baseline is better
    epsilon, captured_gain  of a few policies for everyone: gap and captured gain at the worst of all weights, tested or not

Intervals are 95 % over prompts. RUN/evaluation/baselines keeps the adapters: a second call trains only what is missing. Prints a
table and one JSON line.
"""

import argparse
from pathlib import Path

from palm.artifacts import ArtifactError, json_line
from palm.commands.guarded import quiet
from palm.evaluation.tables import markdown_table
from palm.pipeline.baselines import DEFAULT, FAMILIES, compare_baselines
from palm.pipeline.finished import FinishedRun
from palm.pipeline.runner import PipelineError
from palm.progress import bars


def main() -> None:
    """Train what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument(
        "--families", nargs="+", default=list(DEFAULT), help=f"out of {', '.join(FAMILIES)} (default: the first six)"
    )
    parser.add_argument("--weights", type=int, default=8, help="test weights (default: 8)")
    parser.add_argument("--most", type=int, default=16, help="largest n of best-of-n (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of users (default: 0)")
    options = parser.parse_args()
    quiet()
    try:
        record = compare_baselines(
            FinishedRun.read(options.run),
            weights=options.weights,
            families=options.families,
            most=options.most,
            seed=options.seed,
            track=bars,
        )
    except (ArtifactError, PipelineError, OSError, ValueError) as error:
        parser.error(str(error))
    print("\n".join(markdown_table(record["rows"])))
    print(json_line({"run": str(options.run), **record}))


if __name__ == "__main__":
    main()
