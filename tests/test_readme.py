"""Every command and every example of README.md is run, as it stands there, in a copy of the repository made small.

What is changed is in the files that the commands name: configurations ask for less of everything, and the launch preset for many
GPUs is the one for two CPUs.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from palm.data.planted import make_world

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COPIED = ("palm", "recipes", "scripts", "pyproject.toml", "README.md", "LICENSE")
REAL_DATA = ROOT / "../shared/data/ukpconvarg1/pairs.jsonl.gz"

_ARCHITECTURE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
_SMALL: dict[str, Any] = {
    "base": {"texts": 240, "vocabulary": 400, "architecture": _ARCHITECTURE, "sft": {"max_steps": 12}, "max_length": 96},
    "features": {"pooling": "mean+last", "max_length": 96},
    "candidates": {"prompts": 6, "held_out": 4, "per_prompt": 6, "max_new_tokens": 24},
    "plan": {"curve": 2},
    "train": {"max_length": 96, "group": 3, "baselines": False, "lora": {"r": 8}, "dpo": {"max_steps": 3}},
    "measure": {"samples": 3, "draws": 20},
}


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.strip().splitlines()]


def merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A configuration with a few entries changed, section by section."""
    result = dict(config)
    for key, value in changes.items():
        result[key] = merged(result.get(key) or {}, value) if isinstance(value, dict) else value
    return result


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line in a folder, with this environment's commands and nothing installed anew."""
    environment = {**os.environ, "PALM_INSTALLED": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=540, check=False
    )


def shrink(path: Path, changes: dict[str, Any]) -> None:
    """Make a configuration small; 1e-4 in it is a number to palm, and text to PyYAML, which palm accepts as well."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(merged(merged(config, _SMALL), changes)).replace("'1e-4'", "1e-4"), encoding="utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with small configurations, where the first command has been run."""
    folder = tmp_path_factory.mktemp("clone") / "palm"
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    (folder / "tests").mkdir()
    shutil.copy2(ROOT / "tests/test_simplex.py", folder / "tests")  # test.sh must run a test, not all of them within one
    recipes = folder / "recipes/configs"
    for name in ("learning_rate", "warmup_steps", "lr_scheduler_type"):
        assert name in (recipes / "planted/pipeline.yaml").read_text(encoding="utf-8")
    learning = {"sft": {"learning_rate": 4e-3}}, {"dpo": {"learning_rate": 1e-3, "warmup_steps": 1}}
    world = {"planted": {"users": 24, "pairs_per_user": 12}, "unseen": 4, "shots": 4}
    shrink(recipes / "planted/pipeline.yaml", {"data": world, "base": learning[0], "train": learning[1]})
    shutil.copy2(recipes / "accelerate/cpu.yaml", recipes / "accelerate/multi_gpu.yaml")
    if REAL_DATA.exists():
        real = {"data": {"source": str(REAL_DATA.resolve()), "min_pairs": 200}, "candidates": {"held_out": 0.3}}
        shrink(
            recipes / "ukpconvarg1/pipeline.yaml",
            merged(real, {"base": {"model": "runs/planted/base/model"}, "train": learning[1]}),
        )

    scored = recipes / "nlg_multiattr/topical_chat.yaml"
    scored.write_text(scored.read_text(encoding="utf-8").replace("../shared/data", str(ROOT.parent / "shared/data")))

    first = run(COMMANDS[0], folder)
    assert first.returncode == 0, first.stdout + first.stderr
    assert COMMANDS[0] == "scripts/quickstart.sh"
    assert "runs/planted/report/index.html" in first.stdout

    (folder / "my.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    shrink(folder / "my.yaml", {"base": {"model": "runs/planted/base/model"}, "data": {"min_pairs": 5, "unseen": 4, "shots": 4}})
    rows = make_world(users=20, bases=3, pairs_per_user=12, seed=1).rows
    lines = (json.dumps({**row, "annotator": row["user"], "user": None}) for row in rows)
    (folder / "my_pairs.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def test_the_two_commands_come_first() -> None:
    assert COMMANDS[:2] == ["scripts/quickstart.sh", "scripts/test.sh"]


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_command(command: str, checkout: Path) -> None:
    if ("ukpconvarg1" in command or "nlg_multiattr" in command) and not REAL_DATA.exists():
        pytest.skip("the real data is not beside the repository")
    if command.startswith("accelerate launch"):  # the stage again, by two processes
        stage = "embed" if "embed.py" in command else "train"
        shutil.rmtree(checkout / "runs/my" / stage)
    if command.startswith(("palm train", "palm jobs")):
        shutil.rmtree(checkout / "runs/my/train")
    done = run(command, checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = {
        "scripts/test.sh": " passed",
        "palm run": "report: runs/",
        "palm status": "report   done",
        "palm route": "0.2,0.3,0.5: ",
        "palm show": "certificate, for every weight:",
        "palm verify": " 0 fail, ",
        "palm diff": "origin: planned -> measured",
        "palm evaluate": "written: runs/planted/evaluation",
        "palm plan --help": "certify",
        "palm plan-scores": "report: runs/nlg_multiattr/topical_chat/report.md",
        "palm train": "train: runs/my/train",
        "palm jobs": "sbatch members.slurm",
        "palm refine": "record: runs/planted/refine/served/refine.json",
        "accelerate launch": " s\n",  # the time that the stage took
    }
    known = [text for start, text in expected.items() if command.startswith(start)]
    assert known, f"say what {command!r} should print"
    assert known[0] in done.stdout


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_example(number: int, checkout: Path) -> None:
    (checkout / "example.py").write_text(blocks("python")[number], encoding="utf-8")
    done = run("python example.py", checkout)
    assert done.returncode == 0, done.stderr
    told = ("policy-", "reference", r"ask pair \d+, worth 0\.\d+ nats; (go on|stop)", r"\d+ trainings, [1-9] policies kept")
    assert re.search("|".join(told), done.stdout)


def test_the_library_example_is_short() -> None:
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) <= 20


def test_every_file_of_the_table_exists() -> None:
    table = README[README.index("## Where things are") :]
    named = re.findall(r"^\| `([\w./]+)`", table, flags=re.MULTILINE)
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).exists(), name
