"""Imports go one way: a module may import from its own package and from what stands before it in ORDER, anywhere in its text."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import palm

ORDER = (
    "simplex",
    "seeds",
    "progress",
    "ranks",
    "threads",
    "artifacts",
    "locks",
    "arrays",
    "hub",
    "data",
    "lm",
    "features",
    "rewards",
    "backbone",
    "portfolio",
    "policies",
    "evaluation",
    "routing",
    "pipeline",
    "commands",
    "cli",
    "__main__",
)
SOURCE = Path(palm.__file__).parent


def modules_of(root):
    """Dotted name -> file, of every module below a package's folder; the package itself (its lazy face) is left out."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found.pop(root.name, None)
    return found


def imports_of(name, path, known, top):
    """Dotted names under `top` that a file imports anywhere: in functions, under TYPE_CHECKING, relatively."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    targets = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:  # "from palm.portfolio import certify" may mean the module or a name in __init__
                targets.add(deeper if (deeper := f"{base}.{alias.name}") in known else base)
    return {target for target in targets if target.split(".")[0] == top}


def problems(root, order):
    """What is wrong with a package's imports, as a list of sentences."""
    known = modules_of(root)
    graph = {name: imports_of(name, path, known, root.name) for name, path in known.items()}
    found = []
    for name, targets in graph.items():
        layer = name.split(".")[1]
        if layer not in order:
            found.append(f"{name}: {layer} has no place in the order")
            continue
        for target in sorted(targets):
            below = target.split(".")[1] if "." in target else None
            if below is None:
                found.append(f"{name}: imports from the top level, {target}")
            elif below not in order:
                found.append(f"{name}: imports {target}, which has no place in the order")
            elif below != layer and order.index(below) > order.index(layer):
                found.append(f"{name}: imports upward, {target}")
    try:
        tuple(graphlib.TopologicalSorter({name: targets - {name} for name, targets in graph.items()}).static_order())
    except graphlib.CycleError as error:
        found.append(f"cycle: {' -> '.join(error.args[1])}")
    return found


def test_palm_imports_go_one_way():
    assert problems(SOURCE, ORDER) == []


def test_the_order_names_what_there_is():
    assert {name.split(".")[1] for name in modules_of(SOURCE)} == set(ORDER)


def test_folders_are_no_deeper_than_a_package():
    assert [path for path in SOURCE.rglob("*.py") if len(path.relative_to(SOURCE).parts) > 2] == []


@pytest.fixture
def made_up(tmp_path):
    """Text by relative path -> a package `made` with these files, on top of two well-behaved layers."""

    def make(files):
        root = tmp_path / "made"
        defaults = {
            "__init__.py": "from made.high import top",
            "low.py": "import os",
            "mid/__init__.py": "from made.mid.a import x",
            "mid/a.py": "from made.low import os\nimport numpy",
            "mid/b.py": "from made.mid import a",
            "high.py": "import made.mid.b\nfrom .mid import a\ntop = 1",
        }
        for relative, text in {**defaults, **files}.items():
            path = root / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return problems(root, ("low", "mid", "high"))

    return make


def test_the_check_accepts_imports_that_go_one_way(made_up):
    assert made_up({}) == []


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"low.py": "from made.mid.a import x"}, "made.low: imports upward, made.mid.a"),
        ({"low.py": "def f():\n    import made.high"}, "made.low: imports upward, made.high"),
        (
            {"low.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from made.mid import x"},
            "made.low: imports upward, made.mid",
        ),
        ({"mid/a.py": "from ..high import top"}, "made.mid.a: imports upward, made.high"),
        ({"mid/b.py": "from .. import high"}, "made.mid.b: imports upward, made.high"),
        ({"mid/b.py": "from made import top"}, "made.mid.b: imports from the top level, made"),
        ({"high.py": "try:\n    import made\nexcept ImportError:\n    pass"}, "made.high: imports from the top level, made"),
        ({"mid/a.py": "from made.mid.b import y"}, "cycle: made.mid.a -> made.mid.b -> made.mid.a"),
        ({"mid/a.py": "def f():\n    from made.mid import x"}, "cycle: made.mid -> made.mid.a -> made.mid"),
        ({"new.py": ""}, "made.new: new has no place in the order"),
        ({"high.py": "import made.new"}, "made.high: imports made.new, which has no place in the order"),
    ],
)
def test_the_check_finds_what_goes_the_other_way(made_up, files, problem):
    found = made_up(files)
    if problem.startswith("cycle"):  # a cycle may be told from any of its members
        assert any(
            {*line.removeprefix("cycle: ").split(" -> ")} == {*problem.removeprefix("cycle: ").split(" -> ")} for line in found
        )
    else:
        assert problem in found


LIGHT = (
    "palm",
    "palm.routing",
    "palm.portfolio",
    "palm.simplex",
    "palm.artifacts",
    "palm.arrays",
    "palm.rewards.users",
    "palm.rewards",
)


def loaded_by(*statements):
    """Which of the heavy libraries a fresh interpreter has loaded after the statements."""
    code = "\n".join([*statements, "import sys", "print(*sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_planning_and_serving_do_without_torch():
    assert loaded_by(*(f"import {name}" for name in LIGHT), "palm.Router, palm.plan_portfolio, palm.coverage") == []


def test_torch_would_be_noticed():
    assert "torch" in loaded_by("import torch")
