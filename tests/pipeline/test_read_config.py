"""palm.pipeline.read_config: unknown keys are fatal, types are checked, overrides are YAML too."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from palm.pipeline import Config, ConfigError, load_config
from palm.pipeline.config import as_record


def _load(tmp_path: Path, text: str, *overrides: str) -> Config:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


def test_empty_sections_are_the_defaults_and_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert _load(tmp_path, "data:\nplan:\n") == _load(tmp_path, "{}") == Config()
    for text in ("", "# nothing\n"):
        with pytest.raises(ConfigError, match=r"run\.yaml: expected keys and values, got an empty file"):
            _load(tmp_path, text)


@pytest.mark.parametrize("written", ["1e-4", "1E-4", "1.e-4", "1.0e-4", "0.0001", "+1e-4", "1_0e-5"])
def test_numbers_with_exponents_are_numbers(tmp_path: Path, written: str) -> None:
    """YAML 1.1 reads 1e-4 as text; here it is a number, in the file, in an override and below free-form keys."""
    text = f"plan: {{kl: {written}}}\ntrain: {{dpo: {{learning_rate: {written}}}}}\n"
    config = _load(tmp_path, text, f"base.sft={{learning_rate: {written}}}", f"data.test={written}")
    for number in (config.plan.kl, config.train.dpo["learning_rate"], config.base.sft["learning_rate"], config.data.test):
        assert number == pytest.approx(1e-4)
        assert isinstance(number, float)
    assert yaml.safe_load("1e-4") == "1e-4", "everybody else's YAML is as it was"


def test_text_that_looks_like_a_number_stays_text_in_quotes(tmp_path: Path) -> None:
    assert _load(tmp_path, "output: '1e-4'").output == "1e-4"
    assert _load(tmp_path, "output: e5\ndata: {source: 1e-4x}").data.source == "1e-4x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1", r"unknown key 'sed'; did you mean seed\?"),
        ("plan: {epsilonn: 1}", r"unknown key 'plan\.epsilonn'; did you mean plan\.epsilon\?"),
        ("data: {planted: {user: 3}}", r"unknown key 'data\.planted\.user'; did you mean data\.planted\.users\?"),
        ("route: {qqq: 1}", r"unknown key 'route\.qqq'; known: rule"),
        ("1: 2", "unknown key '1'; known: output, seed"),
        ("plan: 3", "plan: expected a section, got 3"),
        ("plan: {kl: high}", r"plan\.kl: expected float, got 'high'"),
        ("plan: {kl: true}", r"plan\.kl: expected float, got True"),
        ("plan: {kl: .nan}", r"plan\.kl: expected a finite number, got nan"),
        ("data: {unseen: .inf}", r"data\.unseen: expected a finite number, got inf"),
        ("plan: {size: 2.5}", r"plan\.size: expected int or nothing, got 2\.5"),
        ("seed: '1'", "seed: expected int, got '1'"),
        ("seed: true", "seed: expected int, got True"),
        ("seed:", "seed: expected int, got None"),
        ("report: {plots: 1}", r"report\.plots: expected bool, got 1"),
        ("data: {columns: [user]}", r"data\.columns: expected dict, got \['user'\]"),
        ("data: {columns: {user: 3}}", r"data\.columns: expected text in every entry, got 3"),
        ("rewards: {compare: LoRe}", r"rewards\.compare: expected list, got 'LoRe'"),
        ("rewards: {compare: [1]}", r"rewards\.compare: expected text in every entry, got 1"),
        ("data: {unseen: half}", r"data\.unseen: expected float or int, got 'half'"),
        ("- a\n- b", "expected keys and values, got list"),
        ("a: [", "expected a YAML file"),
        ("plan: {size: 3, kl: 0.1, size: 4}", r"expected a YAML file: (?s:.*)the key 'size' comes twice"),
        ("? [a, b]\n: 1", "expected a YAML file"),
        ("seed: 1\noutput: a\nseed: 2", r"expected a YAML file: (?s:.*)the key 'seed' comes twice"),
        ("a: !!python/object/apply:os.getcwd []", "expected a YAML file"),
    ],
)
def test_what_is_no_configuration_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/run\.yaml: {message}"):
        _load(tmp_path, text)


def test_merged_keys_may_be_overridden(tmp_path: Path) -> None:
    text = "rewards: {options: &o {rank: 1}}\ntrain: {lora: &d {<<: *o, rank: 2, r: 8}, dpo: {<<: *d, r: 16}}"
    config = _load(tmp_path, text)
    assert config.train.lora == {"rank": 2, "r": 8}
    assert config.train.dpo == {"rank": 2, "r": 16}


def test_integers_stay_integers_where_both_are_meant(tmp_path: Path) -> None:
    """unseen: 1 is one user, 1.0 would be all of them; where only a share is meant an integer becomes a float."""
    config = _load(tmp_path, "data: {unseen: 1, test: 0}\nplan: {kl: 1}")
    assert (type(config.data.unseen), type(config.data.test), type(config.plan.kl)) == (int, float, float)
    assert type(_load(tmp_path, "data: {unseen: 0.5}").data.unseen) is float


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("seed=3", {"seed": 3}),
        ("plan.size=4", {"plan.size": 4, "plan.kl": 0.5}),
        ("plan.size=", {"plan.size": None}),
        ("data.planted.users=9", {"data.planted.users": 9, "data.planted.bases": 2}),
        ("train.lora.r=16", {"train.lora.r": 16, "train.lora.lora_alpha": 4}),
        ("train.lora={r: 32}", {"train.lora": {"r": 32}}),
        ("output=a=b", {"output": "a=b"}),
        ("rewards.compare=[]", {"rewards.compare": []}),
        ("report.title='x: y'", {"report.title": "x: y"}),
    ],
)
def test_overrides_change_their_key_only(tmp_path: Path, override: str, found: dict[str, Any]) -> None:
    text = "plan: {kl: 0.5}\ndata: {planted: {bases: 2}}\ntrain: {lora: {r: 8, lora_alpha: 4}}\n"
    before, after = (as_record(_load(tmp_path, text, *overrides)) for overrides in ((), (override,)))

    def flat(record: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(record, dict) or not record:
            return {prefix[:-1]: record}
        return {key: value for name, entry in record.items() for key, value in flat(entry, f"{prefix}{name}.").items()}

    for key, value in found.items():
        entry = after
        for part in key.split("."):
            entry = entry[part]
        assert entry == value
    key = override.partition("=")[0]
    one, other = flat(before), flat(after)
    assert {name for name in {*one, *other} if one.get(name) != other.get(name)} <= {n for n in {*one, *other} if n.startswith(key)}


def test_later_overrides_win(tmp_path: Path) -> None:
    assert _load(tmp_path, "seed: 1", "seed=2", "seed=3").seed == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "'seed': expected a setting such as plan.size=4"),
        ("=3", "'=3': expected a setting such as plan.size=4"),
        ("plan.sise=3", r"unknown key 'plan\.sise'; did you mean plan\.size\?"),
        ("plan.kl=[", r"'plan\.kl=\[': the value is not YAML"),
        ("seed.x=1", "'seed.x=1': seed is a value, not a section"),
    ],
)
def test_bad_overrides_are_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _load(tmp_path, "seed: 1", override)


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="expected a YAML file"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"output: \xff")
    with pytest.raises(ConfigError, match=r"latin\.yaml: expected a YAML file"):
        load_config(tmp_path / "latin.yaml")
