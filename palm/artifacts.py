"""Results on disk: files that appear whole or not at all, and folders with a manifest of what made them.

A folder is built beside its final place, in `.NAME.partial/FINGERPRINT`, and renamed when it is complete; a killed build
leaves the partial folder, which the next build with the same fingerprint takes up again and any other throws away. A process
that still works for another fingerprint writes nowhere near. Nothing that is in place is touched before its replacement is
complete.
"""

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

MANIFEST = "manifest.json"
_TEMPORARY = ".writing-"
_SAMPLED_ABOVE = 64 * 2**20  # bytes; larger files are fingerprinted by samples, reading them whole takes too long
_LIBRARIES = ("palm-align", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "scipy")


class ArtifactError(RuntimeError):
    """A file or folder on disk is missing, truncated, or not what its manifest says."""


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a kill, sees the old content or the new, never a part.

    Raises:
        ArtifactError: the disk is full or the folder cannot be written; what was at `path` is unchanged.
    """
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ArtifactError(f"{path}: could not be written ({error.strerror or error}); the old content is kept") from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON that standard parsers read: a number that is not finite (a gap without bound, say) becomes null."""
    write_text(path, json.dumps(_without_infinities(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def json_line(value: Any) -> str:
    """One line of JSON that standard parsers read, numbers that are not finite as null."""
    return json.dumps(_without_infinities(value), ensure_ascii=False, allow_nan=False)


def _without_infinities(value: Any) -> Any:
    if isinstance(value, float):
        return finite_or_none(value)
    if isinstance(value, Mapping):
        return {key: _without_infinities(entry) for key, entry in value.items()}
    return [_without_infinities(entry) for entry in value] if isinstance(value, list | tuple) else value


def finite_or_none(number: float | None) -> float | None:
    """A number as JSON has it: None for what is not finite, and for None."""
    return number if number is not None and math.isfinite(number) else None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ArtifactError: the file is missing or is not complete JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path}: expected complete JSON, but reading it failed: {error}") from error


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content; above 64 MiB, of its size and 66 evenly spaced mebibytes (first and last included)."""
    size = path.stat().st_size
    sha = hashlib.sha256()
    with path.open("rb") as file:
        if size <= _SAMPLED_ABOVE:
            while block := file.read(2**20):
                sha.update(block)
        else:
            sha.update(str(size).encode())
            for position in np.linspace(0, size - 2**20, 66).astype(np.int64):
                file.seek(int(position))
                sha.update(file.read(2**20))
    return sha.hexdigest()


def digest_tree(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of every file below a folder but the manifest and unfinished ones, by relative path."""
    files = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        unfinished = any(part.startswith(_TEMPORARY) for part in relative.parts)
        if path.is_file() and not unfinished and (name := relative.as_posix()) != MANIFEST:
            files[name] = {"bytes": path.stat().st_size, "sha256": digest_file(path)}
    return files


def digest_folder(folder: Path) -> str:
    """Digest of all that `digest_tree` sees."""
    return digest({name: entry["sha256"] for name, entry in digest_tree(folder).items()})


@dataclass(frozen=True)
class Manifest:
    """What made a folder.

    Attributes:
        stage: name of the stage.
        fingerprint: digest of everything the content depends on.
        config: the stage's configuration.
        inputs: digest of each input, by name.
        seed: the run's seed.
        files: size and digest of every file, by relative path.
        versions: of the libraries that were installed; recorded, not part of the fingerprint.
        created: when it was complete, UTC.
        seconds: how long the last attempt took.
    """

    stage: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    seed: int
    files: dict[str, dict[str, Any]]
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    seconds: float = 0.0

    @property
    def content(self) -> str:
        """Digest of the files: equal for equal results, whenever and wherever they were made."""
        return digest({name: entry["sha256"] for name, entry in self.files.items()})


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def read_manifest(folder: Path, *, verify: bool = True) -> Manifest | None:
    """The manifest of a complete folder; None if there is no such folder or it has no manifest.

    Args:
        folder: where the artifact is, or would be.
        verify: also compare every file's size and digest with the manifest.

    Raises:
        ArtifactError: the manifest or a file does not agree with what was written.
    """
    if not (folder / MANIFEST).exists():
        return None
    raw = read_json(folder / MANIFEST)
    try:
        manifest = Manifest(**raw)
    except TypeError as error:
        raise ArtifactError(f"{folder / MANIFEST}: not a manifest of this version of palm: {error}") from error
    if not isinstance(manifest.files, dict) or not all(isinstance(entry, dict) for entry in manifest.files.values()):
        raise ArtifactError(f"{folder / MANIFEST}: not a manifest of this version of palm: files: {manifest.files!r:.60}")
    if verify:
        found = digest_tree(folder)
        for name, entry in manifest.files.items():
            if name not in found:
                raise ArtifactError(f"{folder / name}: missing, but the manifest lists it")
            if found[name] != entry:
                raise ArtifactError(
                    f"{folder / name}: changed or truncated since it was written "
                    f"({entry['bytes']} bytes then, {found[name]['bytes']} now)"
                )
    return manifest


def recover(folder: Path) -> None:
    """Finish a replacement of `folder` that a kill interrupted between its two renames."""
    old = folder.with_name(f".{folder.name}.old")
    for partial in _unfinished(folder).glob("*"):
        if not folder.exists() and (partial / MANIFEST).exists():
            partial.rename(folder)
    if not folder.exists() and old.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def building(
    folder: Path, *, stage: str, fingerprint: str, config: dict[str, Any], inputs: dict[str, str], seed: int
) -> Iterator[Path]:
    """Build an artifact: yields the partial folder to write into and puts it in place when the block ends well.

    If the block raises, or the process dies, the partial folder stays and is offered again to the next build with the
    same fingerprint, so a stage can resume from whatever files it wrote atomically.
    """
    recover(folder)
    started = time.monotonic()
    partial = open_partial(folder, fingerprint)
    yield partial
    manifest = Manifest(
        stage=stage,
        fingerprint=fingerprint,
        config=config,
        inputs=inputs,
        seed=seed,
        files=digest_tree(partial),
        versions=library_versions(),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=round(time.monotonic() - started, 3),
    )
    write_json(partial / MANIFEST, asdict(manifest))
    for leftover in list(partial.rglob(f"{_TEMPORARY}*")):
        shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    for done in (old, _unfinished(folder)):
        shutil.rmtree(done, ignore_errors=True)


def open_partial(folder: Path, fingerprint: str) -> Path:
    """The partial folder of an artifact, made if need be; those for other fingerprints are thrown away."""
    partial = partial_folder(folder, fingerprint)
    for other in _unfinished(folder).glob("*"):
        if other != partial:
            shutil.rmtree(other, ignore_errors=True)  # whoever still works there may be making it anew
    partial.mkdir(parents=True, exist_ok=True)
    return partial


def partial_folder(folder: Path, fingerprint: str) -> Path:
    """Where an artifact is built before it is put in place."""
    return _unfinished(folder) / fingerprint[:16]


def is_begun(folder: Path) -> bool:
    """Whether there is a partial folder of an artifact, for whatever fingerprint."""
    return any(_unfinished(folder).glob("*"))


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")
