"""What a stage depends on outside of the run: every file of it counts, whatever its name."""

from dataclasses import replace
from pathlib import Path

import pytest

from palm.pipeline.config import Config
from palm.pipeline.data_stages import outside_features


def test_functions_in_files_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    names = []
    for package in ("first_rewards", "second_rewards"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("def score(prompts, responses):\n    return [0.0] * len(responses)\n")
        names.append(f"{package}:score")
    config = replace(Config(), features=replace(Config().features, functions=names))
    before = outside_features(config)
    for package in ("first_rewards", "second_rewards"):
        with (tmp_path / package / "__init__.py").open("a") as file:
            file.write("# changed\n")
        after = outside_features(config)
        assert after != before
        before = after


def test_models_in_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    models = []
    for parent in ("a", "b"):
        (tmp_path / parent / "reward").mkdir(parents=True)
        (tmp_path / parent / "reward" / "weights").write_text("0")
        models.append(str(tmp_path / parent / "reward"))
    config = replace(Config(), features=replace(Config().features, reward_models=models))
    before = outside_features(config)
    (tmp_path / "a" / "reward" / "weights").write_text("1")
    assert outside_features(config) != before
