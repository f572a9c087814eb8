"""Stage train with an online objective: new texts get the rewards that candidates of the same text have."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palm.pipeline import STAGES, Pipeline, load_config
from palm.pipeline.checks import check
from palm.pipeline.plan_stages import read_candidates, read_tensor
from palm.pipeline.policy_stages import basis_of, read_policies
from palm.pipeline.runner import Context
from palm.policies.adapters import is_complete
from palm.progress import silent

ONLINE = "train.online={max_steps: 2, per_device_train_batch_size: 4, num_generations: 2}"


def test_members_are_trained_online_on_rewards_of_new_texts(tiny_run: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
    config = load_config(tiny_run.config, [f"output={folder}", "train.objective=rloo", ONLINE])
    check(config)
    pipeline = Pipeline(STAGES, config)
    assert pipeline.state("train").detail == "features, objective, online, fit changed", "what new texts are scored by counts, too"
    assert pipeline.run("train") == ["train"]
    inputs = {stage.name: folder / stage.name for stage in STAGES}
    context = Context(config, folder / "train", inputs, config.seed, silent)
    assert all(is_complete(folder / "train" / name) for name in read_policies(context))
    candidates, tensor = read_candidates(inputs["sample"], "plan"), read_tensor(inputs["score"], "plan")
    np.testing.assert_allclose(basis_of(context)(candidates.texts), tensor.rewards[tensor.mask], atol=1e-4)


def test_a_pool_has_nothing_to_write_with(tiny_config: Path) -> None:
    with pytest.raises(RuntimeError, match=r"train\.objective: expected dpo-soft, dpo or gibbs with candidates\.source pool"):
        check(load_config(tiny_config, ["candidates.source=pool", "train.objective=grpo", ONLINE]))
