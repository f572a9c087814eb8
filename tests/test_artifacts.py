import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from palm import artifacts
from palm.artifacts import (
    ArtifactError,
    building,
    digest,
    digest_file,
    digest_tree,
    read_json,
    read_manifest,
    recover,
    write_bytes,
    write_json,
    write_text,
)


def build(folder, content="new", fingerprint="f1"):
    with building(folder, stage="plan", fingerprint=fingerprint, config={"size": 3}, inputs={"pairs": "abc"}, seed=5) as partial:
        write_text(partial / "sub" / "result.txt", content)


def in_child(code, folder):
    """Run Python in a process of its own, with this module's imports; returns its exit status and stderr."""
    header = "import os, resource, sys\nfrom pathlib import Path\nfrom palm import artifacts\nfrom palm.artifacts import *\n"
    folder_line = f"folder = Path({str(folder)!r})\n"
    done = subprocess.run([sys.executable, "-c", header + folder_line + code], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("value", [{"ü": ["日本", "🙂", None, 1.5, True]}, [], "text", {"nested": {"a": 1 / 3}}])
def test_json_comes_back_as_it_was(tmp_path, value):
    write_json(tmp_path / "new" / "folder" / "value.json", value)
    assert read_json(tmp_path / "new" / "folder" / "value.json") == value
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["value.json"]


def test_numbers_that_json_has_not_become_null(tmp_path):
    write_json(path := tmp_path / "value.json", {"gap": np.inf, "list": [np.nan, 1.5, (-np.inf, "NaN")], "n": np.float64("nan")})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {"gap": None, "list": [None, 1.5, [None, "NaN"]], "n": None}
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest([float("inf")])  # a fingerprint takes no guesses


def test_what_json_cannot_hold_is_refused_and_the_old_content_stays(tmp_path):
    write_json(path := tmp_path / "value.json", {"old": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"new": np.zeros(3)})
    assert read_json(path) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def test_a_process_that_dies_while_writing_leaves_the_old_content(tmp_path):
    write_text(path := tmp_path / "value.txt", "old")
    status, _ = in_child("os.fsync = lambda fd: os._exit(9)\nwrite_text(folder / 'value.txt', 'new' * 1000)", tmp_path)
    assert status == 9
    assert path.read_text() == "old"
    write_text(path, "newer")
    assert path.read_text() == "newer"


def test_a_full_disk_leaves_the_old_content_and_says_so(tmp_path):
    """A real limit on the size of files, in a process of its own: writes beyond it fail as on a full disk."""
    write_text(path := tmp_path / "value.txt", "old")
    code = "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\nwrite_bytes(folder / 'value.txt', bytes(100_000))"
    status, error = in_child(code, tmp_path)
    assert status == 1
    assert f"ArtifactError: {path}: could not be written" in error
    assert "the old content is kept" in error
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["value.txt"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match=r"file/value.txt: could not be written \("):
        write_bytes(tmp_path / "file" / "value.txt", b"x")


@pytest.mark.parametrize("content", [b"", b'{"a": [1, 2', b"\xff\xfe{}", b"nonsense"])
def test_truncated_json_is_named(tmp_path, content):
    (tmp_path / "value.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"value\.json: expected complete JSON, but reading it failed"):
        read_json(tmp_path / "value.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="absent: no such file"):
        read_json(tmp_path / "absent")


def test_digests_follow_content_not_order():
    assert digest({"a": 1, "b": [1.5, "ü"]}) == digest({"b": [1.5, "ü"], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest([1, 2]) != digest([2, 1])
    assert digest("a") == hashlib.sha256(b'"a"').hexdigest()


def test_a_small_files_digest_is_its_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc" * 1_000_000)
    assert digest_file(tmp_path / "f") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_a_large_files_digest_sees_its_ends_and_its_size(tmp_path):
    def sparse(size, *, first=0, last=0):
        with (tmp_path / "f").open("wb") as file:
            file.truncate(size)
            file.write(bytes([first]))
            file.seek(size - 1)
            file.write(bytes([last]))
        return digest_file(tmp_path / "f")

    size = 80 * 2**20
    digests = {sparse(size), sparse(size, first=1), sparse(size, last=1), sparse(size + 1), sparse(size - 1)}
    assert len(digests) == 5
    assert sparse(size) in digests


def test_a_tree_lists_finished_files_only(tmp_path):
    for name in ("a.txt", "sub/b.txt", "manifest.json", ".writing-1-c.txt", ".writing-d/e.txt", "sub/manifest.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert set(digest_tree(tmp_path)) == {"a.txt", "sub/b.txt", "sub/manifest.json"}
    assert digest_tree(tmp_path)["a.txt"] == {"bytes": 5, "sha256": hashlib.sha256(b"a.txt").hexdigest()}


def test_a_built_folder_has_its_files_and_a_manifest_of_what_made_them(tmp_path):
    build(folder := tmp_path / "plan")
    manifest = read_manifest(folder)
    assert (manifest.stage, manifest.fingerprint, manifest.config, manifest.inputs, manifest.seed) == (
        "plan", "f1", {"size": 3}, {"pairs": "abc"}, 5,
    )  # fmt: skip
    assert set(manifest.files) == {"sub/result.txt"}
    assert manifest.versions["numpy"] == np.__version__
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "sub"]
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]
    build(other := tmp_path / "other", fingerprint="f2")
    assert read_manifest(other).content == manifest.content
    build(other, content="different", fingerprint="f3")
    assert read_manifest(other).content != manifest.content
    assert read_manifest(tmp_path / "absent") is None


def test_an_exception_keeps_the_earlier_result_and_the_work_done_so_far(tmp_path):
    build(folder := tmp_path / "plan", content="old")
    settings = {"stage": "plan", "config": {}, "inputs": {}, "seed": 0}

    def attempt(fingerprint, expected, error=None):
        with building(folder, fingerprint=fingerprint, **settings) as partial:
            assert (partial / "half.txt").exists() == expected
            write_text(partial / "half.txt", "done before the failure")
            if error:
                raise error

    with pytest.raises(KeyboardInterrupt):
        attempt("f2", False, KeyboardInterrupt())
    assert (folder / "sub" / "result.txt").read_text() == "old"
    assert read_manifest(folder).fingerprint == "f1"
    with pytest.raises(OSError, match="No space left"):
        attempt("f2", True, OSError(28, "No space left on device"))  # taken up again
    attempt("f3", False)  # other settings start afresh, and who still works for the old ones is elsewhere
    assert set(read_manifest(folder).files) == {"half.txt"}
    assert not (folder / "sub").exists()


BUILD = """
with building(folder, stage="plan", fingerprint="f2", config={}, inputs={}, seed=0) as partial:
    write_text(partial / "sub" / "result.txt", "new")
    (partial / ".writing-unfinished").touch()
"""


def dying_at(call, number):
    """Code that ends the process at the given call of a function that moves or removes files."""
    owner, name = ("artifacts.shutil", "rmtree") if call == "rmtree" else ("Path", call)
    return f"""
calls, real = [], {owner}.{name}
def dying(*arguments, **options):
    calls.append(1)
    if len(calls) == {number}:
        os._exit(9)
    return real(*arguments, **options)
{owner}.{name} = dying
"""


MOMENTS = [("replace", 1), ("replace", 2), ("unlink", 1), ("rename", 1), ("rename", 2), ("rmtree", 2), ("rmtree", 3)]


@pytest.mark.parametrize(
    ("earlier", "call", "number"),
    [(True, *moment) for moment in MOMENTS] + [(False, *moment) for moment in MOMENTS if moment != ("rename", 2)],
)
def test_a_kill_at_any_moment_leaves_a_complete_result_or_none(tmp_path, earlier, call, number):
    folder = tmp_path / "plan"
    if earlier:
        build(folder, content="old")
    status, error = in_child(dying_at(call, number) + BUILD, folder)
    assert status == 9, error
    recover(folder)
    manifest = read_manifest(folder)  # verified: every file is as it was written
    if manifest is None:
        assert not earlier
        assert not folder.exists()
    else:
        assert (folder / "sub" / "result.txt").read_text() == ("new" if manifest.fingerprint == "f2" else "old")
    build(folder, content="again", fingerprint="f2")
    assert (folder / "sub" / "result.txt").read_text() == "again"
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]


def test_an_old_result_that_was_moved_aside_comes_back_if_the_new_one_is_gone(tmp_path):
    build(folder := tmp_path / "plan", content="old")
    folder.rename(tmp_path / ".plan.old")  # as between the two renames, and then the partial folder was removed by hand
    recover(folder)
    assert read_manifest(folder).fingerprint == "f1"
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]


def test_a_full_disk_during_a_build_loses_nothing_that_was_made(tmp_path):
    build(folder := tmp_path / "plan", content="old")
    code = "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n" + BUILD.replace('"new"', '"n" * 100_000')
    status, error = in_child(code, folder)
    assert status == 1
    assert "result.txt: could not be written" in error
    assert read_manifest(folder).fingerprint == "f1"
    assert (folder / "sub" / "result.txt").read_text() == "old"
    build(folder, content="enough room now", fingerprint="f2")
    assert (folder / "sub" / "result.txt").read_text() == "enough room now"


def change(path):
    path.write_text("NEW" if path.suffix == ".txt" else path.read_text().replace("stage", "theatre"))


def without_files(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": []}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: change(folder / "sub/result.txt"), r"sub/result.txt: changed or truncated .*\(3 bytes then, 3 now\)"),
        (lambda folder: (folder / "sub/result.txt").write_text(""), r"sub/result.txt: changed .*\(3 bytes then, 0 now\)"),
        (lambda folder: (folder / "sub/result.txt").unlink(), "sub/result.txt: missing, but the manifest lists it"),
        (lambda folder: change(folder / "manifest.json"), "manifest.json: not a manifest of this version of palm: .*theatre"),
        (lambda folder: without_files(folder / "manifest.json"), r"manifest.json: not a manifest of this version .*files: \[\]"),
        (lambda folder: (folder / "manifest.json").write_text("[1]"), "manifest.json: not a manifest of this version of palm"),
        (lambda folder: (folder / "manifest.json").write_text('{"stage"'), "manifest.json: expected complete JSON"),
    ],
)
def test_a_damaged_artifact_is_found_out(tmp_path, damage, message):
    build(folder := tmp_path / "plan")
    assert read_manifest(folder).files
    damage(folder)
    with pytest.raises(ArtifactError, match=message):
        read_manifest(folder)


def test_without_verification_only_the_manifest_is_read(tmp_path):
    build(folder := tmp_path / "plan")
    (folder / "sub/result.txt").unlink()
    assert read_manifest(folder, verify=False).stage == "plan"


def test_the_manifest_is_plain_json(tmp_path):
    build(folder := tmp_path / "plan")
    record = json.loads((folder / artifacts.MANIFEST).read_text())
    assert record["files"]["sub/result.txt"]["bytes"] == 3
    assert Path(folder / "sub/result.txt").stat().st_size == 3
