"""Stage train by commands of its own: the same adapters as in one process, whoever is killed."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palm.artifacts import read_json
from palm.pipeline import STAGES, Pipeline, check, load_config
from palm.pipeline.fanout import check_train, train_member, write_jobs
from palm.pipeline.runner import PipelineError
from palm.policies.adapters import WEIGHTS, check_adapter


@pytest.fixture
def planned(tiny_run: Any, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the finished run that is not trained yet, and its configuration."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder, ignore=shutil.ignore_patterns("train", "measure", "route", "report"))
    config = tmp_path / "tiny.yaml"
    config.write_text(tiny_run.config.read_text().replace(str(tiny_run.folder), str(folder)))
    return config, folder


def adapters(folder: Path) -> dict[str, bytes]:
    """Finished ones, by name; what is being written has a name with a dot."""
    return {path.parent.name: path.read_bytes() for path in sorted(folder.glob("[!.]*/adapter_model.safetensors"))}


def unfinished(folder: Path) -> Path:
    """Where stage train is made, for the settings that it is made for now."""
    return next(folder.glob(".train.partial/*"), folder / "nowhere yet")


def command(config: Path, *settings: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "palm", "train", str(config), *settings], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )


@pytest.mark.parametrize("launcher", ["pool", "ray"])
def test_commands_that_are_killed_go_on_and_make_what_one_process_makes(
    launcher: str, planned: tuple[Path, Path], tiny_run: Any
) -> None:
    if launcher == "ray":
        pytest.importorskip("ray")
    config, folder = planned
    training = command(config, f"train.launch.launcher={launcher}")
    deadline = time.monotonic() + 180
    while not adapters(partial := unfinished(folder)):
        assert training.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for name in adapters(partial):  # whatever is visible is whole
        check_adapter(partial / name)
    os.kill(training.pid, signal.SIGKILL)
    training.wait()
    kept = {name: (partial / name).stat().st_mtime_ns for name in adapters(partial)}
    Pipeline(STAGES, load_config(config, [f"train.launch.launcher={launcher}"])).run(only="train")
    assert kept.items() <= {name: (folder / "train" / name).stat().st_mtime_ns for name in adapters(folder / "train")}.items()
    assert adapters(folder / "train") == adapters(tiny_run.folder / "train")
    assert read_json(folder / "train" / "training.json") == read_json(tiny_run.folder / "train" / "training.json")


def test_commands_of_the_manifest_do_it_one_by_one(planned: tuple[Path, Path], tiny_run: Any) -> None:
    config, folder = planned
    made = write_jobs(Pipeline(STAGES, load_config(config)))
    assert made is not None
    manifest = made[1]
    assert [job.id for job in manifest.jobs] == list(read_json(tiny_run.folder / "train" / "training.json"))
    subprocess.run(manifest.jobs[0].command, cwd=manifest.folder, check=True, stdout=subprocess.DEVNULL)
    snapshot = Path(manifest.jobs[0].command[-2])
    for job in manifest.jobs:  # the first again, which is done
        said = train_member(Pipeline(STAGES, load_config(snapshot)), job.id)
        assert said.startswith(f"{job.id}: done before" if job is manifest.jobs[0] else f"{job.id}: 4 steps")
    again = write_jobs(Pipeline(STAGES, load_config(config)))
    assert again is not None
    assert again[1].jobs == ()
    assert Pipeline(STAGES, load_config(config)).run(only="train") == ["train"]
    assert adapters(folder / "train") == adapters(tiny_run.folder / "train")
    assert write_jobs(Pipeline(STAGES, load_config(config))) is None
    assert train_member(Pipeline(STAGES, load_config(snapshot)), "policy-0") == "policy-0: stage train is done"


def is_held(lock: Path) -> bool:
    """Whether a process has the lock; the file is there a moment before that."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@pytest.fixture
def orphan(planned: tuple[Path, Path]) -> Iterator["subprocess.Popen[bytes]"]:
    """What a killed pool leaves: the command of a member, stopped by a signal while it trains."""
    config, folder = planned
    prepared = write_jobs(Pipeline(STAGES, load_config(config)))
    assert prepared is not None
    job = prepared[1].jobs[0]
    process = subprocess.Popen(job.command, cwd=prepared[1].folder, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    while not is_held(unfinished(folder) / f".writing-lock-{job.id}"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGSTOP)
    yield process
    if process.poll() is None:
        process.kill()
        process.wait()


def test_what_an_orphan_trains_is_waited_for(
    planned: tuple[Path, Path], orphan: "subprocess.Popen[bytes]", tiny_run: Any, tmp_path: Path
) -> None:
    """One process trains all members after a pool was killed: it waits for the command that still trains one, and keeps that."""
    config, folder = planned
    with (tmp_path / "said").open("w") as said:
        training = subprocess.Popen([sys.executable, "-m", "palm", "train", str(config)], stdout=said, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    while "waiting for another process, to train policy-0" not in (tmp_path / "said").read_text():
        assert training.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not adapters(unfinished(folder))
    os.kill(orphan.pid, signal.SIGCONT)
    assert orphan.wait(120) == 0
    made = next(path for path in (unfinished(folder), folder / "train") if (path / "policy-0").exists())
    stamp = (made / "policy-0" / WEIGHTS).stat().st_mtime_ns
    assert training.wait(120) == 0
    assert (folder / "train" / "policy-0" / WEIGHTS).stat().st_mtime_ns == stamp
    assert adapters(folder / "train") == adapters(tiny_run.folder / "train")


def test_what_an_orphan_trains_with_old_settings_is_not_taken(
    planned: tuple[Path, Path], orphan: "subprocess.Popen[bytes]", tiny_run: Any, tmp_path: Path
) -> None:
    config, folder = planned
    settings = ["train.dpo.learning_rate=3e-3"]
    Pipeline(STAGES, load_config(config, settings)).run(only="train")
    made = adapters(folder / "train")
    os.kill(orphan.pid, signal.SIGCONT)
    orphan.wait(120)
    assert adapters(folder / "train") == made
    assert made != adapters(tiny_run.folder / "train")
    apart = shutil.copytree(folder, tmp_path / "apart", ignore=shutil.ignore_patterns("train", ".train.partial"))
    Pipeline(STAGES, load_config(config, [*settings, f"output={apart}"])).run(only="train")
    assert adapters(apart / "train") == made, "as if the orphan had never been"


def test_an_orphan_that_goes_on_while_others_train_anew_harms_nothing(
    planned: tuple[Path, Path], orphan: "subprocess.Popen[bytes]"
) -> None:
    """The orphan publishes in the midst of the training with other settings."""
    config, folder = planned
    training = subprocess.Popen(
        [sys.executable, "-m", "palm", "train", str(config), "train.dpo.max_steps=6"], stdout=subprocess.DEVNULL
    )
    os.kill(orphan.pid, signal.SIGCONT)
    orphan.wait(120)
    assert training.wait(120) == 0
    assert {log["steps"] for log in read_json(folder / "train" / "training.json").values()} == {6}


def test_members_of_a_command_are_not_trained_without_it(planned: tuple[Path, Path], tiny_run: Any) -> None:
    """The command may start several processes: what one trains in its place would be another adapter. Collecting it does.

    All the same where a result of other settings is still there.
    """
    config, folder = planned
    Pipeline(STAGES, load_config(config, ["train.dpo.max_steps=1"])).run(only="train")
    here = load_config(config, [f"train.launch.command={sys.executable}"])
    made = write_jobs(Pipeline(STAGES, here))
    assert made is not None
    manifest = made[1]
    for job in manifest.jobs:
        with pytest.raises(PipelineError, match=r"train.launch.launcher: expected 'pool' or 'ray' with train.launch.command"):
            Pipeline(STAGES, here).run(only="train")
        subprocess.run(job.command, cwd=manifest.folder, check=True, stdout=subprocess.DEVNULL)
    assert Pipeline(STAGES, here).run() == ["train", "measure", "route", "report"]
    assert adapters(folder / "train") == adapters(tiny_run.folder / "train")
    shutil.rmtree(folder / "embed")  # made again, it is what the members were trained from
    assert Pipeline(STAGES, here).run() == ["embed"]
    (folder / "embed" / "manifest.json").write_text("{")
    assert Pipeline(STAGES, here).run() == ["embed"]
    (folder / "train" / "policy-0" / WEIGHTS).write_bytes(b"harmed")
    shutil.rmtree(folder / "embed")
    with pytest.raises(PipelineError, match=r"train.launch.launcher: expected 'pool' or 'ray'"):
        Pipeline(STAGES, here).run()
    assert not (folder / "embed").exists()


ONLINE = ["train={objective: rloo, online: {per_device_train_batch_size: 4}}", "train.shared_steps=0"]
NOT_WHOLE = r"train\.online\.num_generations: expected a divisor of 4, .* got 8"


@pytest.mark.parametrize("settings", [["plan.size=1"], ["seed=1"], ["candidates.prompts=5"], ["base.texts=40"], []])
def test_a_finished_run_is_refused_whole_where_what_members_are_made_of_changes(
    tiny_run: Any, tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before an earlier stage is made anew: a refusal after it would leave members that fit nothing else in the folder."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    if not settings:
        monkeypatch.setattr("palm.pipeline.runner._VERSION", 0)  # of stages as another palm made them
    changed = load_config(tiny_run.config, [f"output={folder}", f"train.launch.command={sys.executable}", *settings])
    for lost in ("nothing", "fit"):
        with pytest.raises(PipelineError, match=r"train.launch.launcher: expected 'pool' or 'ray'"):
            Pipeline(STAGES, changed).run()
        assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}, lost
        shutil.rmtree(folder / "fit", ignore_errors=True)
        before = {path: stamp for path, stamp in before.items() if path.exists()}


def test_what_is_refused_throws_no_others_members_away(planned: tuple[Path, Path]) -> None:
    config, folder = planned
    made = write_jobs(Pipeline(STAGES, load_config(config)))
    assert made is not None
    job = made[1].jobs[0]
    subprocess.run(job.command, cwd=made[1].folder, check=True, stdout=subprocess.DEVNULL)
    kept = adapters(unfinished(folder))
    assert len(kept) == 1
    for settings in (ONLINE, [*ONLINE, "train.launch.launcher=pool"]):
        refused = Pipeline(STAGES, load_config(config, settings))
        with pytest.raises(PipelineError, match=NOT_WHOLE):
            refused.run(only="train")
        with pytest.raises(PipelineError, match=NOT_WHOLE):
            write_jobs(refused)
    assert adapters(unfinished(folder)) == kept


def test_batches_are_counted_before_members_are_started(planned: tuple[Path, Path]) -> None:
    """A member's own process finds it out when it has loaded everything, and so does every other one."""
    config, folder = planned
    pipeline = Pipeline(STAGES, load_config(config, [*ONLINE, "train.launch.launcher=pool"]))
    with pytest.raises(PipelineError, match=NOT_WHOLE):
        pipeline.run(only="train")
    with pytest.raises(PipelineError, match=NOT_WHOLE):
        write_jobs(pipeline)
    assert not list(folder.glob("jobs/*"))


def test_a_launcher_is_refused_where_every_rank_would_start_members(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(tiny_config, ["train.launch.launcher=pool"])
    check_train(config)
    own = load_config(tiny_config, [*ONLINE, f"train.launch.command={sys.executable}"])
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(PipelineError, match=r"a divisor of 12, .* got 8"):  # trained by these ranks, the command is for others
        check_train(own)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PipelineError, match=r"train.launch.launcher: expected 'inline' in one of 2 processes, got 'pool'"):
        check_train(config)


def test_what_is_not_prepared_or_unknown_is_refused(planned: tuple[Path, Path]) -> None:
    config, _ = planned
    with pytest.raises(PipelineError, match="train: the configuration or what the stage needs has changed since this was prepared"):
        train_member(Pipeline(STAGES, load_config(config)), "policy-0")
    write_jobs(Pipeline(STAGES, load_config(config)))
    with pytest.raises(PipelineError, match=r"member: expected one of policy-0, .*, got 'policy-9'"):
        train_member(Pipeline(STAGES, load_config(config)), "policy-9")
    with pytest.raises(PipelineError, match="has changed since this was prepared"):
        train_member(Pipeline(STAGES, load_config(config, ["train.group=2"])), "policy-0")


def test_a_member_that_fails_is_named_with_what_it_said(planned: tuple[Path, Path]) -> None:
    config, _ = planned
    settings = [
        "train.launch.launcher=pool",
        "train.launch.command='sh -c \"echo nö accelerator; exit 4\"'",
        "train.launch.retries=0",
    ]
    with pytest.raises(PipelineError, match=r"train: member policy-0: its command ended with status 4; .* ends: nö accelerator"):
        Pipeline(STAGES, load_config(config, settings)).run(only="train")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.launch.launcher=slurm", "train.launch.launcher: expected one of inline, pool, ray, got 'slurm'"),
        ("train.launch.workers=0", "train.launch.workers: expected at least 1, got 0"),
        ("train.launch.retries=-1", "train.launch.retries: expected at least 0, got -1"),
        ("train.launch={launcher: pool, command: no-such-program}", "command: expected a program that is there, got 'no-"),
        ("train.launch.command='a \"b'", "train.launch.command: expected a command as a shell takes it"),
    ],
)
def test_options_out_of_range(setting: str, message: str, tiny_config: Path) -> None:
    with pytest.raises(ValueError, match=message):
        check(load_config(tiny_config, [setting]))
