"""Run stages in order, each once: a stage whose configuration and inputs are as they were is not run again."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palm.artifacts import (
    ArtifactError,
    Manifest,
    building,
    digest,
    is_begun,
    open_partial,
    partial_folder,
    read_manifest,
    recover,
)
from palm.locks import locked
from palm.pipeline.config import Config, as_record
from palm.progress import Track, silent
from palm.ranks import alone as unshared
from palm.ranks import barrier, rank
from palm.seeds import derive_seed

logger = logging.getLogger(__name__)

Say = Callable[[str], object]


class PipelineError(RuntimeError):
    """A stage cannot run; the message says what is missing and which command makes it."""


@dataclass(frozen=True)
class Context:
    """What a stage's function gets.

    Attributes:
        config: of the whole run; a stage reads its own section and what its `needs` list.
        folder: where to write; what a killed attempt wrote atomically is still there.
        inputs: folders of the stages it depends on, by name.
        seed: of this stage.
        track: for progress bars.
    """

    config: Config
    folder: Path
    inputs: dict[str, Path]
    seed: int
    track: Track


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        name: of the stage, its folder and its command.
        summary: one line for `--help`.
        needs: stages whose results it reads, given the configuration.
        settings: the part of the configuration its result depends on.
        outside: digests of what it reads outside the run's folder, such as the data file.
        run: does the work.
        parallel: whether several ranks may run it together.
        check: looks, before the first stage starts, for what would fail this one in as many processes as there are.
    """

    name: str
    summary: str
    needs: Callable[[Config], tuple[str, ...]]
    settings: Callable[[Config], dict[str, Any]]
    run: Callable[[Context], None]
    outside: Callable[[Config], dict[str, str]] = lambda config: {}
    parallel: bool = False
    check: Callable[[Config], None] | None = None


@dataclass(frozen=True)
class State:
    """Where a stage stands.

    Attributes:
        stage: its name.
        state: "done"; "missing"; "begun" (a partial result is there); "stale" (its configuration or inputs changed);
            "damaged" (files are not what its manifest says); "waiting" (a stage it needs is not done).
        detail: why, in a few words.
        manifest: of the result that is there, if one is.
    """

    stage: str
    state: str
    detail: str
    manifest: Manifest | None


class Pipeline:
    """The stages over one run's folder."""

    def __init__(self, stages: Sequence[Stage], config: Config, *, track: Track = silent, say: Say = lambda line: None) -> None:
        """Keep stages, in an order in which every stage comes after those it needs."""
        self.stages = {stage.name: stage for stage in stages}
        self.config = config
        self.folder = Path(config.output)
        self.track = track
        self.say = say
        self._done: dict[str, State] = {}  # verified by this process; their files are not read again

    def run(self, only: str | None = None) -> list[str]:
        """Run what is not done, in order; with `only`, that stage alone.

        Returns:
            names of the stages that were run.

        Raises:
            PipelineError: `only` needs a stage that is not done, or one that is to be run would fail.
            ArtifactError: the folder cannot be made, or another process works in it.
        """
        ran = []
        with self.alone():
            if rank() == 0:
                for name in self.stages:
                    recover(self.folder / name)
            barrier()
            for stage in self.stages.values() if only is None else ():
                self._check(stage)
            for name, stage in self.stages.items():
                if only is not None and name != only:
                    continue
                state = self.state(name)
                if state.state == "waiting":
                    raise PipelineError(f"{name}: {state.detail}; `palm run` does it all in order")
                if state.state == "done":
                    self.say(f"{name}: done before, nothing changed")
                    continue
                self._check(stage)  # before what others began for another configuration is thrown away
                self.say(f"{name}: {stage.summary}" + (f" ({state.state}: {state.detail})" if state.detail else ""))
                started = time.monotonic()
                self._run_stage(stage)
                self.say(f"{name}: {time.monotonic() - started:.1f} s")
                ran.append(name)
        return ran

    def state(self, name: str) -> State:
        """Where one stage stands, looking at its files."""
        if name in self._done:
            return self._done[name]
        stage, folder = self.stages[name], self.folder / name
        for need in stage.needs(self.config):
            if (below := self.state(need)).state != "done":
                return State(name, "waiting", f"stage {need} is {below.state}, `palm {need}` makes it", None)
        try:
            manifest = read_manifest(folder)
        except ArtifactError as error:
            return State(name, "damaged", str(error), None)
        if manifest is None:
            return State(name, "begun" if is_begun(folder) else "missing", "", None)
        if manifest.fingerprint == self._fingerprint(stage)[0]:
            self._done[name] = State(name, "done", "", manifest)
            return self._done[name]
        settings, inputs = stage.settings(self.config), self._inputs(stage)
        changed = [key for key in sorted({*settings, *manifest.config}) if settings.get(key) != manifest.config.get(key)]
        changed += [key for key in sorted({*inputs, *manifest.inputs}) if inputs.get(key) != manifest.inputs.get(key)]
        return State(name, "stale", f"{', '.join(changed) or 'seed or version'} changed", manifest)

    def opened(self, name: str, *, make: bool) -> Context | None:
        """A stage's unfinished folder, for work that other processes do or finish; None if the stage is done.

        Args:
            name: of the stage.
            make: also make the folder, and throw away one for another configuration; whoever does so holds `alone`.

        Raises:
            PipelineError: the stage needs one that is not done, or its folder is not there or is for another configuration.
        """
        state = self.state(name)
        if state.state == "waiting":
            raise PipelineError(f"{name}: {state.detail}; `palm run` does it all in order")
        if state.state == "done":
            return None
        stage, folder = self.stages[name], self.folder / name
        fingerprint = self._fingerprint(stage)[0]
        if make:
            open_partial(folder, fingerprint)
        elif not partial_folder(folder, fingerprint).exists():
            raise PipelineError(f"{name}: the configuration or what the stage needs has changed since this was prepared")
        return self._context(stage, partial_folder(folder, fingerprint))

    def result(self, name: str) -> Path:
        """Folder of a finished stage."""
        return self.folder / name

    def _run_stage(self, stage: Stage) -> None:
        fingerprint, inputs = self._fingerprint(stage)
        folder = self.folder / stage.name
        partial = partial_folder(folder, fingerprint)

        def work(where: Path) -> None:
            with contextlib.nullcontext() if stage.parallel else unshared():
                stage.run(self._context(stage, where))

        barrier()  # all ranks have looked at the state before rank 0 changes it
        if rank() == 0:
            with building(
                folder,
                stage=stage.name,
                fingerprint=fingerprint,
                config=stage.settings(self.config),
                inputs=inputs,
                seed=self.config.seed,
            ) as where:
                barrier()
                work(where)
                barrier()  # nobody reads there any more: it is about to get its final name
        else:
            barrier()
            if stage.parallel:
                work(partial)
            barrier()
        barrier()

    def is_under_way(self, name: str) -> bool:
        """Whether a stage is done, may turn out to be, or others may have done what it needs of this process."""
        stage, folder, state = self.stages[name], self.folder / name, self.state(name).state
        if state == "done" or partial_folder(folder, self._digest(stage, self._known(stage))).exists():
            return True
        if state != "waiting":
            return False
        made_of = {name}
        for other in reversed(self.stages.values()):
            if other.name in made_of:
                made_of.update(other.needs(self.config))
        try:
            return read_manifest(folder) is not None and all(map(self._may_return, made_of))
        except ArtifactError:
            return False

    def _may_return(self, name: str) -> bool:
        """Whether a stage may come out as before: what is lost or damaged may, what was made with anything else will not."""
        stage, manifest = self.stages[name], self._record(name)
        if name in self._done or manifest is None:
            return True
        before = {need: manifest.inputs.get(need, _LOST) for need in stage.needs(self.config)}
        return manifest.fingerprint == self._digest(stage, {**before, **self._known(stage)})

    def _check(self, stage: Stage) -> None:
        if stage.check is not None and not self.is_under_way(stage.name):
            stage.check(self.config)

    def _context(self, stage: Stage, where: Path) -> Context:
        needs = {need: self.folder / need for need in stage.needs(self.config)}
        return Context(self.config, where, needs, derive_seed(self.config.seed, stage.name), self.track)

    def _record(self, name: str) -> Manifest | None:
        """What a stage's manifest says, whatever became of its files."""
        try:
            return read_manifest(self.folder / name, verify=False)
        except ArtifactError:
            return None

    def _known(self, stage: Stage) -> dict[str, str]:
        """What a stage would be made of, but for what is lost or damaged."""
        made = {need: self._record(need) for need in stage.needs(self.config)}
        return {**stage.outside(self.config), **{need: manifest.content for need, manifest in made.items() if manifest is not None}}

    def _inputs(self, stage: Stage) -> dict[str, str]:
        inputs = dict(stage.outside(self.config))
        for need in stage.needs(self.config):
            manifest = read_manifest(self.folder / need, verify=False)
            inputs[need] = manifest.content if manifest is not None else _LOST
        return inputs

    def _fingerprint(self, stage: Stage) -> tuple[str, dict[str, str]]:
        inputs = self._inputs(stage)
        return self._digest(stage, inputs), inputs

    def _digest(self, stage: Stage, inputs: dict[str, str]) -> str:
        parts = {"stage": stage.name, "config": stage.settings(self.config), "inputs": inputs, "seed": self.config.seed}
        return digest({**parts, "version": _VERSION})

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder's lock: two runs in one folder would tread on each other. Ranks of one run share it."""
        with contextlib.nullcontext() if rank() else locked(self.folder / ".lock", folder=self.folder):
            yield


_LOST = "missing"  # in place of the content of a stage that is not there
_VERSION = 3  # of the stages' results; raised when a stage's output changes its form


def section(config: Any) -> dict[str, Any]:
    """A section of the configuration as what a stage depends on."""
    record = as_record(config)
    assert isinstance(record, dict)
    return record
