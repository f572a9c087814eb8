"""Personalised reward models: one file per method, one contract."""

from pathlib import Path

from palm.artifacts import ArtifactError, read_json
from palm.hub import locate
from palm.rewards.attributes import attribute_rewards
from palm.rewards.base import RECORD, Calibration, Estimator, RewardModel
from palm.rewards.bradley_terry import BradleyTerry
from palm.rewards.functions import Given, score_texts
from palm.rewards.linear import LinearModel
from palm.rewards.lore import LoRe
from palm.rewards.pal import PAL
from palm.rewards.pal_model import PALModel
from palm.rewards.population_model import PopulationModel
from palm.rewards.pref import PReF
from palm.rewards.questions import Question, next_question
from palm.rewards.reference import Reference, ReferenceModel
from palm.rewards.simplex_users import Population
from palm.rewards.tensor import RewardTensor, reward_tensor
from palm.rewards.users import GEOMETRIES, UserWeights
from palm.rewards.vpl import VPL
from palm.rewards.vpl_model import VPLModel
from palm.rewards.vrf import VRF
from palm.rewards.vrf_model import VRFModel
from palm.rewards.weighted import SimplexModel

SimplexRewards = SimplexModel | VRFModel
"""Fitted models whose users weigh K calibrated rewards: what feeds a portfolio."""

METHODS: dict[str, type[Estimator]] = {
    "Reference": Reference,
    "BradleyTerry": BradleyTerry,
    "LoRe": LoRe,
    "PReF": PReF,
    "PAL": PAL,
    "VPL": VPL,
    "VRF": VRF,
    "Given": Given,
}
"""Every method by name; the only place to register one."""


def load_reward_model(source: str | Path, *, revision: str | None = None) -> RewardModel:
    """Load whichever kind of reward model is in a folder or Hub repository.

    Raises:
        ArtifactError: there is none, or its files are damaged.
    """
    folder = locate(source, revision=revision)
    record = read_json(folder / RECORD)
    geometry, method = (record.get(key) if isinstance(record, dict) else None for key in ("geometry", "method"))
    if geometry not in GEOMETRIES:
        raise ArtifactError(f"{folder / RECORD}: expected a reward model of a known geometry, got {geometry!r}")
    able = [name for name, kind in METHODS.items() if kind.geometry == geometry]
    if method not in able:
        raise ArtifactError(f"{folder / RECORD}: method: expected one of geometry {geometry!r} ({', '.join(able)}), got {method!r}")
    if geometry == "simplex":
        return (VRFModel if method == "VRF" else SimplexModel).from_pretrained(folder)
    if geometry == "latent":
        return (VPLModel if method == "VPL" else PALModel).from_pretrained(folder)
    if geometry == "linear":
        return LinearModel.from_pretrained(folder)
    return (ReferenceModel if method == "Reference" else PopulationModel).from_pretrained(folder)


__all__ = [
    "METHODS",
    "PAL",
    "VPL",
    "VRF",
    "BradleyTerry",
    "Calibration",
    "Estimator",
    "Given",
    "LinearModel",
    "LoRe",
    "PALModel",
    "PReF",
    "Population",
    "PopulationModel",
    "Question",
    "Reference",
    "RewardModel",
    "RewardTensor",
    "SimplexModel",
    "SimplexRewards",
    "UserWeights",
    "VPLModel",
    "VRFModel",
    "attribute_rewards",
    "load_reward_model",
    "next_question",
    "reward_tensor",
    "score_texts",
]
