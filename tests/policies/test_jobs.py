"""palm.policies.jobs and launchers: any command, run by a pool, by Ray and by the Slurm script."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from palm.artifacts import ArtifactError
from palm.policies.jobs import Job, JobManifest, write_slurm
from palm.policies.launchers import JobError, Resources, run_pool, run_ray

WRITES = "import os, sys; open(sys.argv[1], 'a').write(os.environ['OMP_NUM_THREADS'] + '\\n')"
FAILS = "import sys; open(sys.argv[1], 'a').write('tried\\n'); print('no rööm left'); sys.exit(3)"


def manifest(folder: Path, *programs: str) -> JobManifest:
    jobs = [
        Job(f"policy-{number}", (1.0, 0.0), (sys.executable, "-c", program, f"out {number}"), str(folder / f"policy-{number}.log"))
        for number, program in enumerate(programs)
    ]
    return JobManifest(str(folder), tuple(jobs))


def lines(folder: Path, number: int) -> list[str]:
    return (folder / f"out {number}").read_text(encoding="utf-8").splitlines()


def test_a_manifest_can_be_written_down(tmp_path: Path) -> None:
    made = manifest(tmp_path, WRITES, FAILS)
    made.save(tmp_path / "members.json")
    assert JobManifest.load(tmp_path / "members.json") == made


@pytest.mark.parametrize("text", ["{}", "[]", '{"format": "palm.Jobs/1"}', '{"format": "palm.Router/1"}', '{"format":'])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "members.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"members.json"):
        JobManifest.load(tmp_path / "members.json")


def test_a_pool_runs_every_command_once(tmp_path: Path) -> None:
    run_pool(manifest(tmp_path, *[WRITES] * 5), Resources(workers=2, cpus=3))
    assert [lines(tmp_path, number) for number in range(5)] == [["3"]] * 5


def test_a_pool_runs_as_many_at_a_time_as_it_has_workers(tmp_path: Path) -> None:
    program = (
        "import os, sys, time, pathlib; here = pathlib.Path('running'); here.mkdir(exist_ok=True); own = here / str(os.getpid());"
        "own.touch(); time.sleep(0.3); open(sys.argv[1], 'w').write(str(len(list(here.iterdir())))); own.unlink()"
    )
    run_pool(manifest(tmp_path, *[program] * 4), Resources(workers=2))
    assert max(int(lines(tmp_path, number)[0]) for number in range(4)) == 2


def test_what_fails_is_tried_again_and_then_told_when_the_others_are_done(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"policy-0: its command ended with status 3; .*policy-0.log ends: .*no rööm left"):
        run_pool(manifest(tmp_path, FAILS, WRITES, WRITES), Resources(workers=1, retries=2))
    assert lines(tmp_path, 0) == ["tried"] * 3
    assert len(lines(tmp_path, 1)) == len(lines(tmp_path, 2)) == 1


def test_a_command_that_was_killed_is_told_as_such(tmp_path: Path) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(JobError, match="ended with signal SIGKILL"):
        run_pool(manifest(tmp_path, program), Resources(retries=0))


def test_an_interrupted_pool_stops_its_commands(tmp_path: Path) -> None:
    program = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"  # a shell's background job ignores it
        "from pathlib import Path; from palm.policies.jobs import JobManifest; from palm.policies.launchers import *;"
        f"run_pool(JobManifest.load(Path({str(tmp_path / 'members.json')!r})), Resources())"
    )
    manifest(tmp_path, program).save(tmp_path / "members.json")
    pool = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "out 0").exists() and lines(tmp_path, 0)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pool.send_signal(signal.SIGINT)
    pool.wait(30)
    command = int(lines(tmp_path, 0)[0])
    with pytest.raises(ProcessLookupError):
        os.kill(command, 0)


def test_gpus_are_handed_out_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    program = "import os, sys, time; open(sys.argv[1], 'w').write(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(1)"
    run_pool(manifest(tmp_path, *[program] * 3), Resources(workers=3, gpus=1))
    assert sorted(lines(tmp_path, number)[0] for number in range(3)) == ["4", "5", "7"]


def test_gpus_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(JobError, match=r"train.launch.gpus: expected at most what this machine has, 1, got 2"):
        run_pool(manifest(tmp_path, WRITES), Resources(gpus=2))
    for hidden in ("-1", "-1,0", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        with pytest.raises(JobError, match=r"train.launch.gpus: expected at most what this machine has, 0, got 1"):
            run_pool(manifest(tmp_path, WRITES), Resources(gpus=1))


def test_ray_runs_every_command_and_tells_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with pytest.raises(JobError, match=r"policy-1: its command ended with status 3; .*no rööm left"):
        run_ray(manifest(tmp_path, WRITES, FAILS, WRITES), Resources(cpus=1, retries=1))
    assert lines(tmp_path, 0) == lines(tmp_path, 2) == ["1"]
    assert lines(tmp_path, 1) == ["tried"] * 2
    (tmp_path / "lost").mkdir()
    lost = manifest(tmp_path / "lost", WRITES)
    lost = replace(lost, jobs=tuple(replace(job, command=("no-such-program",)) for job in lost.jobs))
    with pytest.raises(JobError, match=r"member policy-0: FileNotFoundError: .*no-such-program"):
        run_ray(lost, Resources(cpus=1, retries=0))


def test_ray_is_not_waited_for_when_it_has_not_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(JobError, match=r"train.launch.gpus: expected at most what the Ray cluster has, \d+, got 99"):
        run_ray(manifest(tmp_path, WRITES), Resources(gpus=99))


def test_the_slurm_script_is_one_task_per_member(tmp_path: Path) -> None:
    script = tmp_path / "members.slurm"
    write_slurm(manifest(tmp_path, WRITES, WRITES), script, options=["--time=00:10:00"])
    text = script.read_text(encoding="utf-8")
    assert "#SBATCH --array=0-1\n" in text
    assert "#SBATCH --time=00:10:00\n" in text
    for task in ("0", "1"):
        subprocess.run(["bash", script], env={**os.environ, "SLURM_ARRAY_TASK_ID": task, "OMP_NUM_THREADS": "2"}, check=True)
    assert lines(tmp_path, 0) == lines(tmp_path, 1) == ["2"]
    wrong = subprocess.run(["bash", script], env={**os.environ, "SLURM_ARRAY_TASK_ID": "9"}, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "SLURM_ARRAY_TASK_ID: expected 0 to 1, got 9" in wrong.stderr


def test_a_slurm_script_of_nothing_or_with_odd_options_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="jobs: expected a member that is not trained yet, got none"):
        write_slurm(JobManifest(str(tmp_path), ()), tmp_path / "members.slurm")
    with pytest.raises(ValueError, match="options: expected options of sbatch such as '--gpus=1', got 'gpus=1'"):
        write_slurm(manifest(tmp_path, WRITES), tmp_path / "members.slurm", options=["gpus=1"])
