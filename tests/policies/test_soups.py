"""palm.policies.soups: the sum of changes, exactly, as one plain adapter."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made_adapters import make_adapters

from palm.arrays import read_arrays
from palm.artifacts import ArtifactError, read_json, write_json
from palm.data.planted import prompt_texts
from palm.lm.load import LanguageModel, load_language_model
from palm.lm.tokens import encode_prompt
from palm.policies.adapters import CONFIG, WEIGHTS, check_adapter
from palm.policies.soups import nearest_mixture, write_soup
from palm.portfolio import GibbsOracle
from palm.rewards import RewardTensor
from palm.simplex import sample_simplex


@pytest.fixture(scope="module")
def base(base_folder: Path) -> LanguageModel:
    return load_language_model(base_folder)


@pytest.fixture(scope="module")
def adapters(base: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of different ranks and scales, all but one on all linear layers."""
    folder = tmp_path_factory.mktemp("adapters")
    made = make_adapters(base, folder, ("a",), r=8, lora_alpha=16)
    made |= make_adapters(base, folder, ("b",), r=16, lora_alpha=8)
    made |= make_adapters(base, folder, ("c",), r=8, lora_alpha=24)
    return made | make_adapters(base, folder, ("attention",), target_modules=["q_proj"])


def changes(folder: Path) -> dict[str, np.ndarray]:
    """What an adapter adds to every module's weight."""
    config, arrays = read_json(folder / CONFIG), read_arrays(folder / WEIGHTS)
    scale = config["lora_alpha"] / config["r"]
    return {
        key.replace(".lora_A.", "."): scale * arrays[key.replace("lora_A", "lora_B")].astype(np.float64) @ array.astype(np.float64)
        for key, array in arrays.items()
        if ".lora_A." in key
    }


def test_a_soup_is_the_weighted_sum_of_changes(adapters: dict[str, Path], tmp_path: Path) -> None:
    weights = {"a": 0.5, "b": 0.2, "c": 0.3}
    write_soup({name: adapters[name] for name in weights}, weights, tmp_path / "soup")
    check_adapter(tmp_path / "soup")
    config = read_json(tmp_path / "soup" / CONFIG)
    assert (config["r"], config["lora_alpha"]) == (32, 32)
    each, mixed = {name: changes(adapters[name]) for name in weights}, changes(tmp_path / "soup")
    for module, change in mixed.items():
        expected = sum(weight * each[name][module] for name, weight in weights.items())
        np.testing.assert_allclose(change, expected, atol=1e-6 * np.abs(expected).max())
    write_soup({name: adapters[name] for name in "ac"}, {"a": 0.5, "c": 0.5}, tmp_path / "soup")
    assert read_json(tmp_path / "soup" / CONFIG)["r"] == 16
    write_soup({name: adapters[name] for name in weights}, {"a": 0.0, "b": 0.4, "c": 0.6}, tmp_path / "soup")
    assert read_json(tmp_path / "soup" / CONFIG)["r"] == 32  # 16 + 8, filled up to what is served


def logits(
    base: LanguageModel, folder: Path, name: str = "x", other: Path | None = None, mix: list[float] | None = None
) -> torch.Tensor:
    from peft import PeftModel

    model = PeftModel.from_pretrained(base.model, folder, adapter_name=name)
    if other is not None:
        model.load_adapter(other, adapter_name="other")
        model.add_weighted_adapter([name, "other"], mix, "mixed", combination_type="cat")
        model.set_adapter("mixed")
    ids = torch.tensor([encode_prompt(base.tokenizer, prompt_texts()[0])])
    with torch.inference_mode():
        found = model.eval()(ids).logits[0]
    model.unload()
    return found


def test_peft_loads_it_and_agrees_with_its_own_cat(base: LanguageModel, adapters: dict[str, Path], tmp_path: Path) -> None:
    write_soup({"a": adapters["a"], "b": adapters["b"]}, {"a": 0.7, "b": 0.3}, tmp_path / "soup")
    ours = logits(base, tmp_path / "soup")
    theirs = logits(base, adapters["a"], other=adapters["b"], mix=[0.7, 0.3])
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert (ours - logits(base, adapters["a"])).abs().max() > 0.1


def test_all_weight_on_one_is_that_one(base: LanguageModel, adapters: dict[str, Path], tmp_path: Path) -> None:
    write_soup({"a": adapters["a"], "b": adapters["b"]}, {"a": 1.0, "b": 0.0}, tmp_path / "soup")
    torch.testing.assert_close(logits(base, tmp_path / "soup"), logits(base, adapters["a"]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("names", "weights", "message"),
    [
        ("ab", {"a": 1.0}, r"weights: expected one for each of \['a', 'b'\], got \['a'\]"),
        ("ab", {"a": np.nan, "b": 1.0}, "weights: expected finite numbers"),
        ("ab", {"a": 0.0, "b": 0.0}, "weights: expected one other than 0"),
        (["a", "attention"], {"a": 0.5, "attention": 0.5}, "expected the same modules in a and attention"),
    ],
)
def test_what_cannot_be_mixed(
    adapters: dict[str, Path], tmp_path: Path, names: str, weights: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_soup({name: adapters[name] for name in names}, weights, tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


def test_adapters_of_different_bases_or_of_uneven_ranks(adapters: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(adapters["b"], tmp_path / "b")
    config = json.loads((tmp_path / "b" / CONFIG).read_text())
    write_json(tmp_path / "b" / CONFIG, {**config, "base_model_name_or_path": "another"})
    with pytest.raises(ValueError, match="adapters: expected one base, got 'tiny-base' of a and 'another' of b"):
        write_soup({"a": adapters["a"], "b": tmp_path / "b"}, {"a": 0.5, "b": 0.5}, tmp_path / "soup")
    write_json(tmp_path / "b" / CONFIG, {**config, "rank_pattern": {"q_proj": 4}})
    with pytest.raises(ArtifactError, match="rank_pattern: expected one rank and scale for all modules"):
        write_soup({"a": adapters["a"], "b": tmp_path / "b"}, {"a": 0.5, "b": 0.5}, tmp_path / "soup")


def test_the_nearest_mixture_of_planned_policies_is_the_best_to_second_order() -> None:
    rng = np.random.default_rng(0)
    rewards = rng.random((40, 12, 3)) @ np.array([[1.0, 0.2, 0.0], [0.0, 0.4, 0.1], [0.3, 0.0, 0.7]])  # correlated, uneven
    spread, kl = RewardTensor(rewards, np.ones((40, 12), bool)).spread(), 3.0
    centred = (rewards - rewards.mean(axis=1, keepdims=True)).reshape(-1, 3)
    np.testing.assert_allclose(spread, centred.T @ centred / (40 * 11))
    members, oracle = sample_simplex(4, 3, rng), GibbsOracle(rewards, kl)

    def lacks(shares: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        at = oracle.solve(shares @ members)  # the policy planned for the mixture's weight
        return oracle.optimum(wanted[None, :]) - (at.value @ wanted - at.cost)

    for wanted in sample_simplex(20, 3, rng):
        shares = nearest_mixture(members, wanted, spread)
        assert shares.min() >= 0
        assert shares.sum() == pytest.approx(1, abs=1e-12)
        assert (shares > 0).sum() <= 3
        others = lacks(sample_simplex(2000, 4, rng), wanted)
        assert lacks(shares[None, :], wanted)[0] <= others.min() * 1.02 + 1e-9


def test_mixtures_within_the_hull_are_exact_and_do_not_depend_on_units() -> None:
    members = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    spread = np.diag([1.0, 2.0, 3.0])
    shares = np.array([0.2, 0.5, 0.3])
    for unit in (1e-9, 1.0, 1e9):
        np.testing.assert_allclose(nearest_mixture(members, shares @ members, unit * spread), shares, atol=1e-6)
    np.testing.assert_allclose(nearest_mixture(members, np.array([1.0, 0.0, 0.0]), spread), [1, 0, 0], atol=1e-6)
    assert nearest_mixture(members, members[1], np.zeros((3, 3))).sum() == pytest.approx(1)  # rewards that never differ
    np.testing.assert_allclose(nearest_mixture(members[:1], members[1], spread), [1])


def test_weights_that_cannot_be_mixed() -> None:
    with pytest.raises(ValueError, match="wanted: expected 2 columns"):
        nearest_mixture(np.eye(2), np.array([1.0, 0.0, 0.0]), np.eye(2))
    with pytest.raises(ValueError, match=r"spread: expected the shape \(2, 2\), got \(3, 3\)"):
        nearest_mixture(np.eye(2), np.array([1.0, 0.0]), np.eye(3))
