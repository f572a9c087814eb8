"""palm.policies.adapters: plain LoRA only, whole or not at all, one policy active at a time on one base."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palm.arrays import read_arrays, write_arrays
from palm.artifacts import ArtifactError
from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_logprobs
from palm.policies.adapters import CONFIG, WEIGHTS, Members, check_adapter, is_complete, lora_config, publish_adapter


@pytest.fixture(scope="session")
def trained(task: Any, language_model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("members")
    task.train(language_model, folder, {"one": [1.0, 0.0], "two.dotted": [0.0, 1.0]})
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 8}, r"lora\.rank: peft\.LoraConfig has no such option"),
        ({"r": 7}, r"lora\.r: expected one of 8, 16, 32, 64 \(what vLLM serves\), got 7"),
        ({"use_dora": True}, r"lora\.use_dora: expected it not to be set, got True: its weights are not a sum of low-rank updates"),
        ({"use_rslora": True}, r"lora\.use_rslora: expected it not to be set"),
        ({"lora_bias": True}, r"lora\.lora_bias: expected it not to be set, got True: vLLM refuses adapters with biases"),
        ({"modules_to_save": ["lm_head"]}, r"lora\.modules_to_save: expected it not to be set"),
        ({"bias": "all"}, r"lora\.bias: expected 'none', got 'all'"),
        ({"init_lora_weights": "pissa_niter_4"}, r"lora\.init_lora_weights: expected one that leaves the base model as it is"),
        (
            {"rank_pattern": {"q_proj": 4}},
            r"lora\.rank_pattern: expected nothing, got \{'q_proj': 4\}: soups want one rank and scale",
        ),
        ({"use_qalora": True}, r"lora\.use_qalora: expected it not to be set, got True: a variant"),
        ({"target_parameters": ["mlp.experts.weight"]}, r"lora\.target_parameters: expected it not to be set"),
    ],
)
def test_what_could_not_be_served_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lora_config(options)


@pytest.mark.parametrize("alpha", [0, -1, float("inf"), float("nan"), True, "16"])
def test_alpha_is_a_positive_number(alpha: Any) -> None:
    with pytest.raises(ValueError, match=r"lora\.lora_alpha: expected a positive number, got"):
        lora_config({"lora_alpha": alpha})


def test_options_reach_peft_over_defaults() -> None:
    assert (lora_config({}).r, lora_config({}).lora_alpha, lora_config({}).target_modules) == (8, 16, "all-linear")
    config = lora_config({"r": 32, "lora_alpha": 5, "use_dora": False, "target_modules": ["q_proj"]})
    assert (config.r, config.lora_alpha, config.target_modules, config.task_type) == (32, 5, {"q_proj"}, "CAUSAL_LM")


def test_adapter_is_two_files_that_name_the_base_by_its_id(trained: Path) -> None:
    assert sorted(path.name for path in (trained / "one").iterdir()) == [CONFIG, WEIGHTS]
    config = json.loads((trained / "one" / CONFIG).read_text())
    assert config["base_model_name_or_path"] == "tiny-base"
    assert list(config) == sorted(config)
    assert config["target_modules"] == sorted(config["target_modules"])
    assert str(trained) not in (trained / "one" / CONFIG).read_text()


@pytest.mark.parametrize("damage", ["no config", "no weights", "cut config", "cut weights", "dora", "no folder"])
def test_incomplete_adapters_are_told(trained: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "adapter"
    if damage != "no folder":
        shutil.copytree(trained / "one", folder)
        assert is_complete(folder)
    file = folder / (WEIGHTS if "weights" in damage else CONFIG)
    if damage.startswith("no ") and damage != "no folder":
        file.unlink()
    elif damage.startswith("cut"):
        file.write_bytes(file.read_bytes()[:-5])
    elif damage == "dora":
        file.write_text(json.dumps({**json.loads(file.read_text()), "use_dora": True}))
    assert not is_complete(folder)
    with pytest.raises(ArtifactError, match=file.name):
        check_adapter(folder)


def test_publishing_replaces_what_was_incomplete(trained: Path, tmp_path: Path) -> None:
    saved, folder = tmp_path / "saved", tmp_path / "member"
    shutil.copytree(trained / "one", saved)
    (saved / "README.md").write_text("a card with a local path")
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(b"half")
    publish_adapter(saved, folder, base_model="other-base")
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["member", CONFIG, WEIGHTS])
    assert json.loads((folder / CONFIG).read_text())["base_model_name_or_path"] == "other-base"
    assert (folder / WEIGHTS).read_bytes() == (trained / "one" / WEIGHTS).read_bytes()


def test_one_policy_is_active_at_a_time_and_the_base_comes_back(trained: Path, task: Any, fresh_model: Any) -> None:
    """Each policy alone, switched to and fro, and next to the other: the same log-probabilities; without adapters the base's."""
    texts = [(p, r) for p, row in zip(task.candidates.prompts, task.candidates.responses, strict=True) for r in row]
    base = fresh_model()
    before = {name: parameter.clone() for name, parameter in base.model.named_parameters()}
    plain = response_logprobs(base, texts)
    alone = {}
    for name in ("one", "two.dotted"):
        single = Members(base, {name: trained / name})
        with single.policy(name) as policy:
            alone[name] = response_logprobs(policy, texts)
        single.close()
    members = Members(base, {name: trained / name for name in ("one", "two.dotted")})
    assert members.ids == ("one", "two.dotted")
    for name in ("two.dotted", "one", "two.dotted"):
        with members.policy(name) as policy:
            np.testing.assert_array_equal(response_logprobs(policy, texts), alone[name])
            with members.without_adapter():
                np.testing.assert_array_equal(response_logprobs(policy, texts), plain)
            np.testing.assert_array_equal(response_logprobs(policy, texts), alone[name])
    members.close()
    np.testing.assert_array_equal(response_logprobs(base, texts), plain)
    assert dict.fromkeys(before, True) == {name: bool((p == before[name]).all()) for name, p in base.model.named_parameters()}
    assert np.abs(alone["one"] - plain).max() > 0.1
    assert np.abs(alone["one"] - alone["two.dotted"]).max() > 0.1


def test_names_that_peft_would_take_for_one_another(trained: Path, task: Any, fresh_model: Any) -> None:
    """PEFT wants no dots, and "__base__" is what it calls a row without an adapter."""
    base, texts = fresh_model(), [(task.candidates.prompts[0], response) for response in task.candidates.responses[0]]
    members = Members(base, {"a.b": trained / "one", "a_b": trained / "two.dotted", "__base__": trained / "one"})
    found = {}
    for name in members.ids:
        with members.policy(name) as policy:
            found[name] = response_logprobs(policy, texts)
    members.close()
    plain = response_logprobs(base, texts)
    np.testing.assert_array_equal(found["a.b"], found["__base__"])
    assert np.abs(found["a.b"] - found["a_b"]).max() > 0.1
    assert np.abs(found["__base__"] - plain).max() > 0.1
    assert len(set(members.names_of(["a.b", "a_b", "__base__", None]))) == 4


def test_members_need_complete_adapters(trained: Path, tmp_path: Path, language_model: LanguageModel) -> None:
    with pytest.raises(ValueError, match="adapters: expected at least one, got none"):
        Members(language_model, {})
    with pytest.raises(ArtifactError, match=r"adapter_config\.json: no such file"):
        Members(language_model, {"one": trained / "one", "two": tmp_path})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type: expected 'LORA', got 'IA3'"),
        ({"bias": "lora_only"}, "bias is 'lora_only': vLLM refuses adapters with biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set: whole modules in an adapter cannot be merged"),
        ({"alora_invocation_tokens": [3]}, "alora_invocation_tokens is set: a variant"),
    ],
)
def test_adapters_from_elsewhere_that_are_not_plain(trained: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    shutil.copytree(trained / "one", tmp_path / "one")
    config = json.loads((tmp_path / "one" / CONFIG).read_text())
    (tmp_path / "one" / CONFIG).write_text(json.dumps({**config, **changes}))
    with pytest.raises(ArtifactError, match=message):
        check_adapter(tmp_path / "one")


def test_an_adapter_for_another_base_is_not_loaded(trained: Path, language_model: LanguageModel) -> None:
    check_adapter(trained / "one", base_model="tiny-base")
    message = "base_model_name_or_path: expected 'other-base', which it is loaded on, got 'tiny-base'"
    with pytest.raises(ArtifactError, match=message):
        check_adapter(trained / "one", base_model="other-base")
    with pytest.raises(ArtifactError, match=message):
        Members(language_model, {"one": trained / "one"}, base_model="other-base")
    assert not any("lora" in name for name, _ in language_model.model.named_parameters())


def test_pickles_and_diverged_adapters_are_refused(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    shutil.copytree(trained / "one", folder)
    arrays = read_arrays(folder / WEIGHTS)
    name = sorted(arrays)[0]
    write_arrays(folder / WEIGHTS, {**arrays, name: np.full_like(arrays[name], np.nan)})
    with pytest.raises(ArtifactError, match="expected finite numbers, got others: its training diverged"):
        check_adapter(folder)
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(ArtifactError, match=r"adapter_model\.bin: expected adapter_model\.safetensors: a pickle can run code"):
        check_adapter(folder)
