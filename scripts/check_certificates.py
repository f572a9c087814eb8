#!/usr/bin/env python3
"""Certificates against brute force: no weight may break what they say, and their own worst weight must attain it.

    python scripts/check_certificates.py                     # all 300 tensors, about a minute of one core
    python scripts/check_certificates.py --first 0 --last 99 # a part of them

The tensors have 2 to 6 bases and kl from 0.02 to 1: plain ones, ones with heavy ties, duplicate candidates, constant rewards,
duplicate and opposed bases, a single prompt. Every certificate is tried at 100,000 random weights and by local ascent from the
100 worst of them for each of its statements. `excess` is the most by which any weight breaks a statement and `short` the most by
which a statement's worst weight misses equality, both relative to the optimum; `nearest` is how close brute force came to
equality, for the statement for which it came least close. Prints a table by kind and one JSON line; the exit status is 1 if any
excess or shortfall is above 1e-9.
"""

import argparse
import json
import sys

from benchmarks.certificates import KINDS, Tried, try_certificate
from benchmarks.table import print_table

from palm.progress import bars

_ALLOWED = 1e-9


def row(name: str, tried: list[Tried]) -> dict[str, object]:
    """The worst of some tensors."""
    return {
        "kind": name,
        "tensors": len(tried),
        "corners": max(one.corners for one in tried),
        "excess": max(one.excess for one in tried),
        "short": max(one.short for one in tried),
        "nearest": max(one.nearest for one in tried),
        "broken": sum(one.excess > _ALLOWED or one.short > _ALLOWED for one in tried),
        "seconds": round(sum(one.seconds for one in tried), 1),
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, help="seed of the first tensor")
    parser.add_argument("--last", type=int, default=299, help="seed of the last")
    parser.add_argument("--weights", type=int, default=100_000, help="random weights for each")
    parser.add_argument("--starts", type=int, default=100, help="climbs for each statement")
    arguments = parser.parse_args()
    if arguments.last < arguments.first:
        parser.error(f"--last: expected at least {arguments.first}, got {arguments.last}")
    tried = []
    with bars("certificates tried", arguments.last - arguments.first + 1) as advance:
        for seed in range(arguments.first, arguments.last + 1):
            tried.append(try_certificate(seed, count=arguments.weights, starts=arguments.starts))
            advance(1)
    rows = [row(kind, few) for kind in KINDS if (few := [one for one in tried if one.kind == kind])] + [row("all", tried)]
    print_table([{**one, **{name: f"{one[name]:.1e}" for name in ("excess", "short", "nearest")}} for one in rows])
    broken = [one.seed for one in tried if one.excess > _ALLOWED or one.short > _ALLOWED]
    print(json.dumps({"first": arguments.first, "last": arguments.last, "rows": rows, "broken": broken}))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
