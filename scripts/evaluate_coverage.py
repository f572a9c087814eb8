#!/usr/bin/env python3
"""How well do policies cover everyone? Worst and mean gaps over the whole simplex and over users, with intervals.

    python scripts/evaluate_coverage.py runs/planted
    python scripts/evaluate_coverage.py --reference base.jsonl --policy short=short.jsonl --policy warm=warm.jsonl \\
        --kl 0.1 --users users.jsonl --plots pictures

The first form takes a finished run: its policies' measured values on held-out prompts. The second takes files that any tool wrote,
one line a prompt:

    {"prompt": "...", "responses": ["...", "..."], "rewards": [[0.2, 0.9], [0.4, 0.7]], "kl": [3.1, 2.8]}

`rewards`: K basis rewards in [0, 1] of each response; `kl`: an estimate of each response's KL from the reference in nats, such as
its log-ratio; the reference's file has none. --users: a weight a line, [0.2, 0.8] or {"user": "...", "weight": [0.2, 0.8]}.

What the numbers are, for a user of weight w, where OPT(w) is the best utility w.J - kl KL that any policy has on the reference's
candidates, and L(w) what the best of the given policies, the reference included, has:

    epsilon        OPT / L - 1, the multiplicative gap
    delta          OPT - L, the additive gap
    captured_gain  (L - reference) / (OPT - reference), the share of what could be gained

The worst over the simplex is exact, at the corners of the policies' cells (palm/portfolio/certify.py); means over the simplex are
over 4,096 uniform weights. Intervals are by paired bootstrap over prompts, users fixed. Prints a table and one JSON line.
"""

import argparse
from pathlib import Path

from benchmarks.policy_files import Evaluation, parse_policies, policy_parser, print_evaluation, refuse

from palm.evaluation.files import prompts_of, read_samples, read_users
from palm.evaluation.gaps import gap_table
from palm.evaluation.tables import markdown_table


def main() -> None:
    """Read, certify, print."""
    parser = policy_parser(__doc__)
    parser.add_argument("--kl", type=float, help="coefficient of the KL cost, in units of reward (files)")
    parser.add_argument("--users", type=Path, help="users' weights, JSON lines (files)")

    def evaluate(options: argparse.Namespace) -> Evaluation:
        record, lines = _of_run(parser, options) if options.run is not None else _of_files(parser, options)
        if options.plots is not None:
            from palm.evaluation.evaluation_pictures import write_pictures

            write_pictures(options.plots, coverage=record)
        return record, lines

    print_evaluation(parser, evaluate)


def _of_run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Evaluation:
    from palm.pipeline.evaluate import coverage_lines, coverage_of_run
    from palm.pipeline.finished import FinishedRun

    refuse(parser, options, "reference kl users", form="a run")
    record = coverage_of_run(FinishedRun.read(options.run), draws=options.draws, level=options.level, seed=options.seed)
    return record, coverage_lines(record)


def _of_files(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Evaluation:
    if options.kl is None or options.reference is None:
        parser.error("--reference, --kl: expected both with --policy, since the optimum is relative to the reference")
    policies = parse_policies(parser, options.policy)
    samples = {name: read_samples(path) for name, path in policies.items()}
    prompts = prompts_of(read_samples(options.reference), samples, kl=options.kl)
    users = None if options.users is None else read_users(options.users, prompts.rewards.shape[2])
    rows = [row.record() for row in gap_table(prompts, users, draws=options.draws, level=options.level, seed=options.seed)]
    record = {"rows": rows, "prompts": len(prompts.rewards), "level": options.level, "draws": options.draws}
    return record, markdown_table(rows)


if __name__ == "__main__":
    main()
