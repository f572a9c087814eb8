#!/usr/bin/env python3
"""Would the tests notice? Seeds one fault at a time into a module and runs its tests on a copy of the repository.

    python scripts/mutate.py palm/portfolio/certify.py tests/portfolio/test_certify.py
    python scripts/mutate.py palm/portfolio/select.py tests/portfolio/test_select.py --sample 30
    python scripts/mutate.py palm/portfolio/certify.py tests/portfolio/test_certify_bounds.py --lines 180 232

Faults: + for - and * for / and the other way round, < for <= and so on, min for max, argmin for argmax, any for all, a minus sign
lost, `and` for `or`, `not` lost. Messages of errors, annotations and defaults are left alone. A fault that no test notices is
listed: either a test is missing, or the fault changes nothing that anybody could see. Prints the survivors and one JSON line.
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_NAMES = {"min": "max", "argmin": "argmax", "minimum": "maximum", "any": "all"}
_NAMES |= {other: one for one, other in _NAMES.items()}


def faults(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, what is changed, and the source with that one fault, for every fault."""
    count = sum(1 for _ in _places(ast.parse(source)))
    for number in range(count):
        tree = ast.parse(source)
        node = list(_places(tree))[number]
        before = ast.unparse(node)
        line = node.lineno
        _break(node)
        ast.fix_missing_locations(tree)
        yield line, f"{before}  ->  {ast.unparse(node)}", ast.unparse(tree)


def _places(node: ast.AST) -> Iterator[ast.expr]:
    """Expressions that can be broken, outside of messages and signatures."""
    if isinstance(node, ast.Raise | ast.arguments | ast.AnnAssign | ast.JoinedStr | ast.Assert):
        return
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in _SWAPPED:
        yield node
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _SWAPPED:
        yield node
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield node
    if isinstance(node, ast.Call) and _name(node.func) in _NAMES:
        yield node
    for child in ast.iter_child_nodes(node):
        yield from _places(child)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _break(node: ast.expr) -> None:
    if isinstance(node, ast.BinOp | ast.BoolOp):
        node.op = _SWAPPED[type(node.op)]()  # type: ignore[assignment]
    elif isinstance(node, ast.Compare):
        node.ops[0] = _SWAPPED[type(node.ops[0])]()  # type: ignore[call-overload]
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd()  # `not x` becomes `+x`, as true as x
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        node.func.id = _NAMES[node.func.id]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        node.func.attr = _NAMES[node.func.attr]


def main() -> None:
    """Break, test, list what survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", type=Path)
    parser.add_argument("tests", type=Path, nargs="+")
    parser.add_argument("--sample", type=int, default=0, help="so many faults, evenly spread (default: all)")
    parser.add_argument("--lines", type=int, nargs=2, default=(1, 10**9), help="the first and last line to break (default: all)")
    parser.add_argument("--seconds", type=float, default=180, help="after which a run counts as noticed (default: 180)")
    options = parser.parse_args()
    for path in (options.module, *options.tests):
        if not (ROOT / path).is_file():
            parser.error(f"{path}: expected a file of the repository, there is none")
    first, last = options.lines
    found = [fault for fault in faults((ROOT / options.module).read_text(encoding="utf-8")) if first <= fault[0] <= last]
    if options.sample and options.sample < len(found):
        found = [found[int((number + 0.5) * len(found) / options.sample)] for number in range(options.sample)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("palm", "tests", "scripts", "recipes"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(ROOT / "pyproject.toml", copy)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *map(str, options.tests)]
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}

        def passes() -> bool:
            try:
                run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=options.seconds, check=False)
            except subprocess.TimeoutExpired:
                return False
            return run.returncode == 0

        if not passes():
            parser.error("tests: expected them to pass before anything is broken; they do not, or take too long")
        for number, (line, change, source) in enumerate(found, start=1):
            (copy / options.module).write_text(source, encoding="utf-8")
            noticed = not passes()
            print(
                f"{number}/{len(found)} {'noticed ' if noticed else 'SURVIVED'} line {line}: {change}", file=sys.stderr, flush=True
            )
            if not noticed:
                survivors.append({"line": line, "change": change})
    print(f"{options.module}: {len(found) - len(survivors)} of {len(found)} faults noticed")
    for survivor in survivors:
        print(f"  line {survivor['line']}: {survivor['change']}")
    print(json.dumps({"module": str(options.module), "faults": len(found), "survivors": survivors}))


if __name__ == "__main__":
    main()
