"""What the scripts that evaluate policies share, of a finished run or from plain files: arguments, errors, what is printed."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from palm.artifacts import ArtifactError, json_line
from palm.commands.guarded import quiet

Evaluation = tuple[dict[str, Any], list[str]]


def policy_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with arguments for where the policies are, and of intervals and pictures."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="folder of a finished run, such as runs/planted")
    parser.add_argument("--policy", action="append", default=[], metavar="NAME=FILE", help="a policy's samples; several times")
    parser.add_argument("--reference", type=Path, metavar="FILE", help="the reference policy's samples, its candidates (files)")
    parser.add_argument("--draws", type=int, default=400, help="bootstrap samples (default: 400)")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals (default: 0.95)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write pictures there, as SVG (needs Matplotlib)")
    return parser


def print_evaluation(parser: argparse.ArgumentParser, evaluate: Callable[[argparse.Namespace], Evaluation]) -> None:
    """Read the arguments, evaluate, and print a table and one JSON line; expected errors are the parser's.

    Args:
        parser: of `policy_parser`.
        evaluate: options -> the record for the JSON line, and the table's lines.
    """
    options = parser.parse_args()
    quiet()
    if (options.run is None) == (not options.policy):
        given = "both" if options.policy else "neither"
        parser.error(f"RUN, --policy: expected the folder of a run or policies' files, got {given}")
    try:
        record, lines = evaluate(options)
    except (ArtifactError, OSError, ValueError) as error:
        parser.error(str(error))
    print("\n".join(lines))
    print(json_line(record))


def refuse(parser: argparse.ArgumentParser, options: argparse.Namespace, names: str, *, form: str) -> None:
    """See that no option is given that would not be heeded: its user would take the numbers for those that it asks for."""
    for name in names.split():
        if (given := getattr(options, name)) != parser.get_default(name):
            parser.error(f"--{name}: expected it not to be given with {form}, which it says nothing of; got {given}")


def parse_policies(parser: argparse.ArgumentParser, given: list[str]) -> dict[str, Path]:
    """Files by name, from NAME=FILE."""
    policies: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not name or not equals or not path or name in policies or name == "reference":
            parser.error(f"--policy: expected different names, each as NAME=FILE (reference has its own option), got {text!r}")
        policies[name] = Path(path)
    return policies
