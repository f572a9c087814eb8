"""palm.pipeline.runner: what runs, what is left alone, and why, on four small stages that write real files."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from palm.artifacts import ArtifactError
from palm.pipeline import Config, Pipeline, PipelineError, State
from palm.pipeline.config import PlanConfig, ReportConfig
from palm.pipeline.runner import Context, Stage


def _first_letter(context: Context) -> None:
    (context.folder / "letter.txt").write_text(context.config.report.title[:1])


def _letter_and_kl(context: Context) -> None:
    letter = (context.inputs["one"] / "letter.txt").read_text()
    (context.folder / "sub").mkdir(exist_ok=True)
    (context.folder / "sub" / "both.txt").write_text(f"{letter} {context.config.plan.kl}")


def _copy(context: Context) -> None:
    (context.folder / "copy.txt").write_text((context.inputs["two"] / "sub" / "both.txt").read_text())


def _alone(context: Context) -> None:
    (context.folder / "seed.txt").write_text(str(context.seed))


def _stage(name: str, run: Callable[[Context], None], *needs: str, **options: Callable[[Config], dict[str, object]]) -> Stage:
    settings = options.pop("settings", lambda config: {})
    return Stage(name, f"make {name}", needs=lambda config: needs, settings=settings, run=run, **options)


STAGES = (
    _stage("one", _first_letter, settings=lambda config: {"title": config.report.title}),
    _stage("two", _letter_and_kl, "one", settings=lambda config: {"kl": config.plan.kl}),
    _stage("three", _copy, "two"),
    _stage("alone", _alone),
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(output=str(tmp_path / "run"), report=ReportConfig(title="title"))


def _states(config: Config) -> dict[str, str]:
    pipeline = Pipeline(STAGES, config)
    return {name: pipeline.state(name).state for name in pipeline.stages}


def test_everything_runs_once_in_order(config: Config) -> None:
    assert _states(config) == {"one": "missing", "two": "waiting", "three": "waiting", "alone": "missing"}
    lines: list[str] = []
    pipeline = Pipeline(STAGES, config, say=lines.append)
    assert pipeline.run() == ["one", "two", "three", "alone"]
    assert [line for line in lines if not line.endswith(" s")] == [f"{name}: make {name}" for name in pipeline.stages]
    assert (pipeline.result("three") / "copy.txt").read_text() == "t 0.1"
    assert _states(config) == dict.fromkeys(pipeline.stages, "done")
    lines.clear()
    assert Pipeline(STAGES, config, say=lines.append).run() == []
    assert lines == [f"{name}: done before, nothing changed" for name in pipeline.stages]


@pytest.mark.parametrize(
    ("change", "ran", "why"),
    [
        ({"plan": PlanConfig(kl=0.2)}, ["two", "three"], "kl changed"),
        ({"report": ReportConfig(title="other")}, ["one", "two", "three"], "title changed"),
        ({"report": ReportConfig(title="two letters alike")}, ["one"], "title changed"),
        ({"seed": 1}, ["one", "two", "three", "alone"], "seed or version changed"),
        ({"plan": PlanConfig(epsilon=0.3)}, [], ""),
    ],
)
def test_exactly_what_depends_on_a_change_runs_again(config: Config, change: dict[str, object], ran: list[str], why: str) -> None:
    """A stage whose remade result is as before stops the change there: the third case changes a title, not its first letter."""
    Pipeline(STAGES, config).run()
    changed = Pipeline(STAGES, replace(config, **change))
    if ran:
        state = changed.state(ran[0])
        assert (state.state, state.detail) == ("stale", why)
    assert changed.run() == ran
    assert changed.run() == []


def test_seeds_differ_between_stages_and_follow_the_run(config: Config) -> None:
    twins = (_stage("left", _alone), _stage("right", _alone))
    seeds = []
    for seed in (0, 1):
        pipeline = Pipeline(twins, replace(config, seed=seed))
        pipeline.run()
        seeds += [int((pipeline.result(name) / "seed.txt").read_text()) for name in ("left", "right")]
    assert len(set(seeds)) == 4


def test_outside_files_count(config: Config, tmp_path: Path) -> None:
    from palm.artifacts import digest_file

    source = tmp_path / "pairs.txt"
    source.write_text("a")
    reading = (_stage("reading", _alone, outside=lambda config: {"file pairs.txt": digest_file(source)}),)
    assert Pipeline(reading, config).run() == ["reading"]
    assert Pipeline(reading, config).run() == []
    source.write_text("b")
    assert Pipeline(reading, config).state("reading").detail == "file pairs.txt changed"
    assert Pipeline(reading, config).run() == ["reading"]


@pytest.mark.parametrize("damage", ["truncated", "same length", "deleted", "manifest cut", "manifest foreign"])
def test_damage_is_found_and_made_good_without_touching_what_depends_on_it(config: Config, damage: str) -> None:
    Pipeline(STAGES, config).run()
    folder = Path(config.output) / "two"
    file, manifest = folder / "sub" / "both.txt", folder / "manifest.json"
    if damage == "truncated":
        file.write_text("t")
    elif damage == "same length":
        file.write_text("t 0.2")
    elif damage == "deleted":
        file.unlink()
    elif damage == "manifest cut":
        manifest.write_text(manifest.read_text()[:50])
    else:
        manifest.write_text(json.dumps({"stage": "two", "colour": "blue"}))
    state = Pipeline(STAGES, config).state("two")
    assert state.state == "damaged"
    assert str(manifest if "manifest" in damage else file) in state.detail
    assert _states(config)["three"] == "waiting"
    before = (Path(config.output) / "three" / "manifest.json").stat().st_mtime_ns
    assert Pipeline(STAGES, config).run() == ["two"]
    assert file.read_text() == "t 0.1"
    assert (Path(config.output) / "three" / "manifest.json").stat().st_mtime_ns == before
    assert _states(config) == dict.fromkeys(("one", "two", "three", "alone"), "done")


def test_damage_under_a_running_process_stops_it(config: Config) -> None:
    """What was found whole a moment ago and cannot be read now is no reason to make anew what was made of it."""
    Pipeline(STAGES, config).run()
    pipeline, manifest = Pipeline(STAGES, config), Path(config.output) / "one" / "manifest.json"
    assert pipeline.state("one").state == "done"
    manifest.write_text("{")
    before = (Path(config.output) / "two" / "manifest.json").stat().st_mtime_ns
    with pytest.raises(ArtifactError, match=re.escape(str(manifest))):
        pipeline.run(only="two")
    assert (Path(config.output) / "two" / "manifest.json").stat().st_mtime_ns == before


def test_check_comes_again_before_what_others_began_is_thrown_away(config: Config) -> None:
    """At first a lost stage may come out as before; it does not, and what is to be made of it now is refused."""
    letters = iter("ab")

    def another_letter(context: Context) -> None:
        (context.folder / "letter.txt").write_text(next(letters))

    def refuse(config: Config) -> None:
        raise PipelineError("two: refused")

    stages = (replace(STAGES[0], run=another_letter), replace(STAGES[1], check=refuse))
    Pipeline((stages[0], STAGES[1]), config).run()
    shutil.rmtree(Path(config.output) / "one")
    others = Path(config.output) / ".two.partial" / "others"
    others.mkdir(parents=True)
    said: list[str] = []
    with pytest.raises(PipelineError, match="two: refused"):
        Pipeline(stages, config, say=said.append).run()
    assert said[0].startswith("one: make one")
    assert others.exists()


def test_failed_stage_leaves_what_it_wrote_to_the_next_attempt(config: Config) -> None:
    """The second attempt finds the first one's file; with another configuration it finds nothing."""
    found: list[list[str]] = []

    def fails_twice(context: Context) -> None:
        found.append(sorted(path.name for path in context.folder.iterdir() if not path.name.startswith(".")))
        (context.folder / f"attempt-{len(found)}").touch()
        if len(found) < 4:
            raise RuntimeError("no luck")

    stages = (_stage("fails", fails_twice, settings=lambda config: {"kl": config.plan.kl}),)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no luck"):
            Pipeline(stages, config).run()
        assert Pipeline(stages, config).state("fails").state == "begun"
        assert not (Path(config.output) / "fails").exists()
    other = replace(config, plan=PlanConfig(kl=0.3))
    with pytest.raises(RuntimeError, match="no luck"):
        Pipeline(stages, other).run()
    Pipeline(stages, other).run()
    assert found == [[], ["attempt-1"], [], ["attempt-3"]]
    assert Pipeline(stages, other).state("fails").state == "done"


def test_old_result_stays_until_its_replacement_is_complete(config: Config) -> None:
    Pipeline(STAGES, config).run()

    def fails(context: Context) -> None:
        raise RuntimeError("no luck")

    broken = (*STAGES[:1], replace(STAGES[1], run=fails), *STAGES[2:])
    changed = replace(config, plan=PlanConfig(kl=0.2))
    with pytest.raises(RuntimeError, match="no luck"):
        Pipeline(broken, changed).run()
    assert (Path(config.output) / "two" / "sub" / "both.txt").read_text() == "t 0.1"
    assert _states(config) == dict.fromkeys(("one", "two", "three", "alone"), "done")
    assert _states(changed)["two"] == "stale"


def test_one_stage_alone(config: Config) -> None:
    with pytest.raises(PipelineError, match=r"^two: stage one is missing, `palm one` makes it; `palm run` does it all in order$"):
        Pipeline(STAGES, config).run(only="two")
    assert Pipeline(STAGES, config).run(only="one") == ["one"]
    assert Pipeline(STAGES, config).run(only="two") == ["two"]
    assert Pipeline(STAGES, config).run(only="two") == []
    stale = Pipeline(STAGES, replace(config, report=ReportConfig(title="other")))
    with pytest.raises(PipelineError, match="three: stage two is waiting, `palm two` makes it"):
        stale.run(only="three")


def test_folder_is_worked_in_by_one_process_at_a_time(config: Config) -> None:
    """Another process holds the lock; when it dies, by SIGKILL, the folder is free again."""
    Path(config.output).mkdir()
    held = (
        "import fcntl, sys, time; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); print('held', flush=True); "
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", held, str(Path(config.output) / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(ArtifactError, match="run: another palm process is working in this folder"):
                Pipeline(STAGES, config).run()
            assert _states(config)["one"] == "missing", "looking is allowed"
        finally:
            holder.kill()
    assert len(Pipeline(STAGES, config).run()) == 4


def test_lock_is_released_when_a_stage_fails(config: Config) -> None:
    def fails(context: Context) -> None:
        with pytest.raises(ArtifactError, match="another palm process"):
            Pipeline(STAGES, config).run()
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        Pipeline((_stage("fails", fails),), config).run()
    assert len(Pipeline(STAGES, config).run()) == 4


def test_output_that_cannot_be_a_folder_is_named(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ArtifactError, match=r"output: .*file.*: expected a folder that can be made"):
            Pipeline(STAGES, replace(config, output=str(output))).run()


def test_state_tells_when_a_result_was_made(config: Config) -> None:
    assert Pipeline(STAGES, config).state("one") == State("one", "missing", "", None)
    Pipeline(STAGES, config).run()
    manifest = Pipeline(STAGES, config).state("two").manifest
    assert manifest is not None
    assert (manifest.stage, manifest.config, manifest.seed, list(manifest.inputs)) == ("two", {"kl": 0.1}, 0, ["one"])
    assert set(manifest.files) == {"sub/both.txt"}
    assert manifest.files["sub/both.txt"]["bytes"] == 5
    assert manifest.inputs["one"] == Pipeline(STAGES, config).state("one").manifest.content
