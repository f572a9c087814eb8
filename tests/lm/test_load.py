"""palm.lm.load: a model that is only read, and a message for whatever is no model."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from palm.lm.load import load_language_model, load_tokenizer, logit_width


def test_model_is_frozen_in_evaluation_mode_and_pads(base_folder: Path) -> None:
    loaded = load_language_model(base_folder)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.model.config.pad_token_id == loaded.tokenizer.pad_token_id is not None
    assert loaded.device == next(loaded.model.parameters()).device
    assert loaded.source == str(base_folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_number_type(base_folder: Path, dtype: str) -> None:
    loaded = load_language_model(base_folder, dtype=dtype)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {getattr(torch, dtype)}


def test_a_row_of_logits_is_as_wide_as_the_padded_vocabulary(base_folder: Path) -> None:
    loaded = load_language_model(base_folder)
    loaded.model.resize_token_embeddings(len(loaded.tokenizer) + 28)
    logits = loaded.model(input_ids=torch.tensor([[1, 2]], device=loaded.device)).logits
    assert logit_width(loaded.model) == logits.shape[-1] == len(loaded.tokenizer) + 28


def test_unknown_number_type_is_refused(base_folder: Path) -> None:
    with pytest.raises(ValueError, match="dtype: expected one of float32, bfloat16, float16, got 'fp16'"):
        load_language_model(base_folder, dtype="fp16")


def test_tokenizer_without_padding_pads_with_its_end(base_folder: Path, tmp_path: Path) -> None:
    for file in base_folder.glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.pad_token == tokenizer.eos_token == "</s>"


@pytest.mark.parametrize("damage", ["weights", "config", "tokenizer", "nothing there"])
def test_what_is_no_model_is_named(base_folder: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "model"
    if damage != "nothing there":
        shutil.copytree(base_folder, folder)
        path = folder / {"weights": "model.safetensors", "config": "config.json", "tokenizer": "tokenizer.json"}[damage]
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"model: expected the folder or Hub id of a causal language model, got '.*/model'"):
        load_language_model(folder)


def test_hub_is_not_reached_offline() -> None:
    with pytest.raises(ValueError, match="expected the folder or Hub id of a causal language model, got 'nobody/nothing'"):
        load_language_model("nobody/nothing")
