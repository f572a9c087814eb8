#!/usr/bin/env python3
"""Performance claims, as ratios measured in one run against the obvious alternative. Prints a table and one JSON line.

    python scripts/bench.py steps    # a step of soft-label training: layouts and heads
    python scripts/bench.py adapt    # users' weights from a few pairs each, against a loop of Adam steps per user

What each compares, and with what, is in scripts/benchmarks/.
"""

import argparse
import json
import platform
from typing import Any

import numpy as np
import torch


def main() -> None:
    """Run the benchmark that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benches = parser.add_subparsers(dest="what", required=True)
    steps = benches.add_parser("steps", help="a step of soft-label training: layouts and heads")
    steps.add_argument("--responses", type=_at_least(2), nargs="+", default=[8, 16, 32], help="sizes of a group (default: 8 16 32)")
    steps.add_argument("--rounds", type=_at_least(1), default=40, help="groups timed for each size (default: 40)")
    adapt = benches.add_parser("adapt", help="users' weights from a few pairs each, against a loop of Adam steps per user")
    adapt.add_argument("--pairs", type=_at_least(1), default=9, help="of each user (default: 9)")
    adapt.add_argument("--bases", type=_at_least(2), default=8, help="K (default: 8)")
    sizes = [1000, 10_000, 100_000, 1_000_000]
    adapt.add_argument("--users", type=_at_least(1), nargs="+", default=sizes, help="at a time (default: 10^3 to 10^6)")
    adapt.add_argument("--loop-users", type=_at_least(1), default=20, help="users that the loop is timed on (default: 20)")
    arguments = parser.parse_args()
    rows = _run(arguments)
    _print_table(rows)
    machine = {"cpu": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__, "numpy": np.__version__}
    print(json.dumps({"bench": arguments.what, **machine, "rows": rows}))


def _run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    if arguments.what == "steps":
        from benchmarks.steps import bench_steps

        return bench_steps(arguments.responses, arguments.rounds)
    from benchmarks.adapt import bench_adapt

    return bench_adapt(pairs=arguments.pairs, bases=arguments.bases, sizes=sorted(arguments.users), loop_users=arguments.loop_users)


def _print_table(rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(f"{row.get(name, '')}" for name in columns) + " |")


def _at_least(least: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, got {value}")
        return value

    return number


if __name__ == "__main__":
    main()
