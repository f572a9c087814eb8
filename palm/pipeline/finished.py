"""A finished run's folder, read without its configuration file: what was planned, trained and measured."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from palm.artifacts import ArtifactError, Manifest, read_json, read_manifest
from palm.data.candidates import Candidates
from palm.data.schema import Text
from palm.evaluation.measure import Measured, on_prompts
from palm.pipeline.config import Config
from palm.pipeline.measure_stages import read_measured
from palm.pipeline.plan_stages import baseline_names, read_candidates, read_tensor
from palm.pipeline.read_config import config_of
from palm.pipeline.runner import Context
from palm.pipeline.summaries import SUMMARIES
from palm.portfolio import OnPrompts, Portfolio
from palm.progress import Track, silent
from palm.rewards import RewardTensor
from palm.rewards.users import UserWeights
from palm.seeds import derive_seed

NEEDED = ("base", "sample", "score", "plan", "train", "measure")
_SECTIONS = {"embed": "features", "fit": "rewards", "sample": "candidates"}  # others have their stage's name


@dataclass(frozen=True)
class FinishedRun:
    """A run whose policies are trained and measured.

    Attributes:
        folder: of the run.
        config: what its manifests say it was made with.
    """

    folder: Path
    config: Config

    @classmethod
    def read(cls, folder: Path) -> "FinishedRun":
        """See that what evaluation needs is there, whole, and of one making.

        Raises:
            ArtifactError: a stage is missing or damaged, or was made from another result of an earlier one than is there; the
                message names it.
        """
        if not folder.is_dir():
            raise ArtifactError(f"{folder}: expected the folder of a finished run, such as runs/planted; no such folder")
        manifests: dict[str, Manifest] = {}
        for name in SUMMARIES:
            manifest = read_manifest(folder / name, verify=name in NEEDED)
            if manifest is not None:
                manifests[name] = manifest
            elif name in NEEDED:
                raise ArtifactError(f"{folder}: expected a finished run, but the stage {name} is not there; `palm run` makes it")
        for stage in NEEDED:
            for need, content in manifests[stage].inputs.items():
                if need in manifests and content != manifests[need].content:
                    raise ArtifactError(
                        f"{folder}: expected stages that belong together, but {stage} was made from another {need} than is "
                        "there; `palm run` makes it anew"
                    )
        sections: dict[str, Any] = {
            _SECTIONS.get(name, name): manifest.config for name, manifest in manifests.items() if name not in ("score", "measure")
        }
        # a stage that trained online has kept the features' settings beside its own
        sections["train"] = {name: value for name, value in sections["train"].items() if name != "features"}
        sections |= {"measure": manifests["measure"].config["measure"], "seed": manifests["measure"].seed, "output": str(folder)}
        return cls(folder, config_of(sections, str(folder)))

    def manifest(self, stage: str) -> Manifest | None:
        """Of one stage, if it is there."""
        return read_manifest(self.folder / stage, verify=False)

    @cached_property
    def portfolio(self) -> Portfolio:
        """The trained portfolio, as measured."""
        return Portfolio.from_pretrained(self.folder / "measure")

    @cached_property
    def tensor(self) -> RewardTensor:
        """Rewards of the held-out prompts' candidates."""
        return read_tensor(self.folder / "score", "held_out")

    @cached_property
    def candidates(self) -> Candidates:
        """The held-out prompts with candidates of the reference."""
        return read_candidates(self.folder / "sample", "held_out")

    @cached_property
    def texts(self) -> dict[str, list[list[Text]]]:
        """By policy, what it wrote to each held-out prompt."""
        return dict(read_json(self.folder / "measure" / "texts.json"))

    @cached_property
    def users(self) -> UserWeights:
        """All users, seen and unseen, that have a weight."""
        parts = [UserWeights.load(self.folder / "measure", f"users-{part}") for part in ("seen", "unseen")]
        parts = [part for part in parts if len(part)]
        if not parts:
            return UserWeights.none(len(self.portfolio.reference))
        ids, mean, covariance = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "mean", "covariance"))
        return UserWeights(ids, mean, covariance)

    def policy_for(self, name: str) -> str:
        """Id of a policy that was trained, or of the one that stands for a single policy of that name."""
        folder = self.folder / "plan" / "baselines" / name
        return name if name in self.texts or name not in baseline_names() else Portfolio.from_pretrained(folder).ids[0]

    def measured(self, name: str) -> Measured:
        """What one policy gave on the held-out prompts."""
        return read_measured(self.folder / "measure", name)

    @cached_property
    def prompts(self) -> OnPrompts:
        """The held-out prompts with what each member gave on them."""
        return on_prompts(self.tensor, [self.measured(name) for name in self.portfolio.ids], self.portfolio.kl)

    def context(self, work: Path, *, track: Track = silent) -> Context:
        """What the stages' functions take, with `work` as the place to write."""
        inputs = {name: self.folder / name for name in SUMMARIES}
        return Context(self.config, work, inputs, derive_seed(self.config.seed, "evaluate"), track)
