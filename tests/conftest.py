"""What many tests share: one core, no GPU, no network, a tiny language model made in code, and one finished tiny run."""

import os

os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",  # bfloat16, the default there, holds too few digits for what the tests compare
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
    }
)

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from chat_server import serve  # noqa: F401  a fixture: a chat model on loopback

from palm.data.planted import write_corpus
from palm.lm.load import LanguageModel, load_language_model
from palm.lm.pretrain import train_from_scratch
from palm.pipeline import STAGES, Pipeline, load_config

ARCHITECTURE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}

TINY = """\
output: {output}
seed: 0
data:
  source: planted
  planted: {{users: 24, bases: 2, pairs_per_user: 12}}
  unseen: 4
  shots: 4
base:
  model: scratch
  name: tiny-base
  corpus: planted
  texts: 240
  vocabulary: 400
  max_length: 128
  architecture: {{hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1}}
  sft: {{max_steps: 12, per_device_train_batch_size: 8, learning_rate: 5e-3}}
features: {{pooling: mean+last, max_length: 128, shard_size: 128}}
rewards:
  method: LoRe
  options: {{rank: 2, personal_penalty: 30.0}}
candidates: {{prompts: 6, held_out: 4, per_prompt: 6, max_new_tokens: 24, batch_size: 12}}
plan: {{kl: 0.1, size: 2, curve: 2}}
train:
  max_length: 128
  group: 3
  lora: {{r: 8, lora_alpha: 16}}
  dpo: {{max_steps: 4, per_device_train_batch_size: 2, learning_rate: 1e-3}}
measure: {{samples: 3, draws: 20}}
report: {{plots: false}}
"""


@dataclass(frozen=True)
class FinishedRun:
    """A run of the whole pipeline; tests that change something work on a copy of its folder."""

    config: Path
    folder: Path
    ran: tuple[str, ...]


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama and its tokenizer, trained for a second on the embedded world's texts."""
    folder = tmp_path_factory.mktemp("base")
    train_from_scratch(
        write_corpus(240, np.random.default_rng(0)),
        folder / "model",
        work=folder / "work",
        vocabulary=400,
        architecture=ARCHITECTURE,
        sft={"max_steps": 30, "per_device_train_batch_size": 8, "learning_rate": 5e-3},
        max_length=128,
        seed=0,
    )
    return folder / "model"


@pytest.fixture(scope="session")
def language_model(base_folder: Path) -> LanguageModel:
    """The tiny model, loaded; only to be read."""
    return load_language_model(base_folder)


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YAML file with which the whole pipeline takes seconds; `output=` after it puts a run elsewhere."""
    folder = tmp_path_factory.mktemp("tiny")
    path = folder / "tiny.yaml"
    path.write_text(TINY.format(output=folder / "run"), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_run(tiny_config: Path) -> FinishedRun:
    """`tiny_config`, run once from nothing."""
    config = load_config(tiny_config)
    ran = Pipeline(STAGES, config).run()
    return FinishedRun(tiny_config, Path(config.output), tuple(ran))
