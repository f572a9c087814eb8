"""Arguments of the scripts that evaluate policies, of a finished run or from plain files."""

import argparse
from pathlib import Path


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the policies are, and of intervals and pictures."""
    parser.add_argument("run", nargs="?", type=Path, help="folder of a finished run, such as runs/planted")
    parser.add_argument("--policy", action="append", default=[], metavar="NAME=FILE", help="a policy's samples; several times")
    parser.add_argument("--reference", type=Path, metavar="FILE", help="the reference policy's samples, its candidates (files)")
    parser.add_argument("--draws", type=int, default=400, help="bootstrap samples (default: 400)")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals (default: 0.95)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write pictures there, as SVG (needs Matplotlib)")


def check_form(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """See that either a run or files are given."""
    if (options.run is None) == (not options.policy):
        given = "both" if options.policy else "neither"
        parser.error(f"RUN, --policy: expected the folder of a run or policies' files, got {given}")


def parse_policies(parser: argparse.ArgumentParser, given: list[str]) -> dict[str, Path]:
    """Files by name, from NAME=FILE."""
    policies: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not name or not equals or not path or name in policies or name == "reference":
            parser.error(f"--policy: expected different names, each as NAME=FILE (reference has its own option), got {text!r}")
        policies[name] = Path(path)
    return policies
