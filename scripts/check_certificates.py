#!/usr/bin/env python3
"""Certificates against brute force: no weight may break what they say, and their own worst weight must attain it.

    python scripts/check_certificates.py                     # all 300 tensors, about a minute of one core
    python scripts/check_certificates.py --first 0 --last 99 # a part of them
    python scripts/check_certificates.py --coverage          # how often "with 95 % confidence" holds

The tensors have 2 to 6 bases and kl from 0.02 to 1: plain ones, ones with heavy ties, duplicate candidates, constant rewards,
duplicate and opposed bases, a single prompt. Every certificate is tried at 100,000 random weights and by local ascent from the
100 worst of them for each of its statements. `excess` is the most by which any weight breaks a statement and `short` the most by
which a statement's worst weight misses equality, both relative to the optimum; `nearest` is how close brute force came to
equality, for the statement for which it came least close. Prints a table by kind and one JSON line; the exit status is 1 if any
excess or shortfall is above 1e-9.

With --coverage, prompts are drawn 200 times from each of nine worlds (K = 2, 3, 4; prompts that vary alike, ones of which a tenth
decide, rewards of three levels) whose gaps over all 20,000 prompts are known, 60, 100 and 300 at a time. For each gap: its true
value, the median one-sided bound, and the shares of repetitions in which the one-sided bound by resampling, the one by Bernstein's
inequality and the two-sided interval hold; `bare` is how often the gap on the drawn prompts, without any allowance, is not better
than the true one. The exit status is 1 if a share is below the level by more than chance explains (a one-sided binomial test at
1 in 1,000 for each row).
"""

import argparse
import json
import sys

from benchmarks.certificates import KINDS, Tried, try_certificate
from benchmarks.coverage import WORLDS, make_world, try_confidence
from benchmarks.table import print_table

from palm.progress import bars

_ALLOWED = 1e-9
_LEVEL = 0.95


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


def coverage(arguments: argparse.Namespace) -> int:
    """How often bounds hold."""
    from scipy.stats import binom

    rows, low = [], 0
    with bars("drawing prompts", len(arguments.worlds) * len(arguments.bases) * len(arguments.prompts)) as advance:
        for kind in arguments.worlds:
            for bases in arguments.bases:
                world = make_world(kind, bases, arguments.seed)
                for prompts in arguments.prompts:
                    made = {"repeats": arguments.repeats, "level": _LEVEL, "draws": arguments.draws, "seed": arguments.seed + 1}
                    rows.append({"world": kind, "K": bases, **try_confidence(world, prompts=prompts, **made)})
                    advance(1)
    flat = []
    for entry in rows:
        for name in ("epsilon", "delta", "captured_gain"):
            numbers = entry[name]
            low += binom.cdf(round(numbers["bootstrap"] * arguments.repeats), arguments.repeats, _LEVEL) < 1e-3
            shown = {"gap": name, "truth": f"{numbers['truth']:.4f}", "median bound": f"{numbers['median_bound']:.4f}"}
            shares = {kind: f"{numbers[kind]:.3f}" for kind in ("bootstrap", "bernstein", "interval")}
            flat.append({**{key: entry[key] for key in ("world", "K", "policies", "prompts")}, **shown, **shares})
            flat[-1]["bare"] = f"{numbers['estimate']:.3f}"
    print_table(flat)
    print(json.dumps({"repeats": arguments.repeats, "level": _LEVEL, "rows": rows, "too_low": int(low)}))
    return int(low > 0)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, help="seed of the first tensor")
    parser.add_argument("--last", type=int, default=299, help="seed of the last")
    parser.add_argument("--weights", type=int, default=100_000, help="random weights for each")
    parser.add_argument("--starts", type=int, default=100, help="climbs for each statement")
    parser.add_argument("--coverage", action="store_true", help="how often confidence bounds hold, instead")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=WORLDS, help="which (with --coverage; default: all)")
    parser.add_argument("--bases", type=int, nargs="+", default=[2, 3, 4], help="K of each (with --coverage; default: 2 3 4)")
    parser.add_argument("--prompts", type=int, nargs="+", default=[60, 100, 300], help="P (with --coverage; default: 60 100 300)")
    parser.add_argument("--repeats", type=int, default=200, help="of drawing prompts (with --coverage)")
    parser.add_argument("--draws", type=int, default=500, help="of each bootstrap (with --coverage)")
    parser.add_argument("--seed", type=int, default=0, help="of the worlds (with --coverage)")
    arguments = parser.parse_args()
    if arguments.coverage:
        for name, least in (("bases", 2), ("prompts", 2)):
            if min(getattr(arguments, name)) < least:
                parser.error(f"--{name}: expected at least {least}, got {min(getattr(arguments, name))}")
        return coverage(arguments)
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
