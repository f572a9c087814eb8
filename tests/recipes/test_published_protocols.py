"""recipes/configs/{prism,personalllm,tldr}: each says the published protocol, and its data stage makes it of rows as published."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from published_rows import personal_rows, prism_row, tldr_row

from palm.features.pairs import PairFeatures
from palm.pipeline import STAGES, Pipeline, load_config
from palm.pipeline.data_stages import read_pairs, read_splits
from palm.rewards import VRF
from palm.rewards.episodes import deal

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
MODELS = [f"rm_{number}" for number in range(10)]
METHODS = {"Reference", "BradleyTerry", "VPL", "PAL", "LoRe", "PReF"}


@pytest.fixture
def data_stage(monkeypatch, tmp_path):
    """Name of a set, rows that the Hub gives and settings -> the configuration, what was asked of the Hub, pairs of each split."""

    def run(name, rows, *settings):
        asked = []

        def load_dataset(repository, configuration, *, split):
            asked.append((repository, configuration, split))
            return Dataset.from_list(rows)

        monkeypatch.setattr("datasets.load_dataset", load_dataset)
        config = load_config(CONFIGS / name / "pipeline.yaml", [f"output={tmp_path}", *settings])
        assert Pipeline(STAGES, config).run(only="data") == ["data"]
        pairs, splits = read_pairs(tmp_path / "data"), read_splits(tmp_path / "data")
        return config, asked, {part: pairs.select(rows) for part, rows in splits.items()}

    return run


def per_user(pairs):
    return Counter(pairs["user"])


@pytest.mark.parametrize(
    ("name", "rank", "context"), [("personalllm", 8, 9), ("prism", 12, 3), ("tldr", 8, 50)], ids=lambda part: str(part)
)
def test_hyper_parameters_are_the_published_ones(name, rank, context):
    config = load_config(CONFIGS / name / "pipeline.yaml")
    assert config.rewards.method == "VRF"
    published = {"dim": 64, "temperature": 1, "margin": 1, "kl_weight": 1e-3, "samples": 5, "weight_decay": 0.01}
    assert config.rewards.options == {"rank": rank, "context": context, **published}
    assert set(config.rewards.compare) == METHODS
    assert config.base.model == "Qwen/Qwen3-0.6B"


def test_personalllm_says_how_many_steps_the_published_passes_are():
    """5 passes over 1000 users of 47 pairs, dealt as a fit deals them."""
    text = (CONFIGS / "personalllm" / "pipeline.yaml").read_text()
    config = load_config(CONFIGS / "personalllm" / "pipeline.yaml")
    vrf = VRF(**config.rewards.options)
    users = config.data.draw.users - config.data.unseen
    pairs = 47 * users
    made = PairFeatures.from_items(
        [f"u{row % users}" for row in range(pairs)], np.zeros((2, 1)), np.zeros(pairs, int), np.ones(pairs, int)
    )
    dealt = list(deal(made, context=vrf.context, batch_users=vrf.batch_users, rng=np.random.default_rng(0)))
    seen = np.sort(np.concatenate([rows for episode in dealt for rows in (episode.context, episode.target)]))
    np.testing.assert_array_equal(seen, np.arange(pairs))  # a pass uses every pair once
    assert re.findall(r"rewards\.options\.steps=(\d+)", text) == [str(5 * len(dealt))]
    assert (
        f"a pass over {users} users and their {pairs:,} pairs is {len(dealt)} steps"
        in " ".join(text.replace("# ", "").split()).lower()
    )
    assert f"default of {vrf.steps} steps is {vrf.steps // len(dealt)} passes" in text


def prism_people():
    """Twenty people with eight dialogs of two telling turns each, and three with five dialogs."""
    rows = []
    for person in range(23):
        for dialog in range(8 if person < 20 else 5):
            row = prism_row(user_id=f"user{person:02d}", conversation_id=f"c{person}-{dialog}")
            row["conversation_history"][0]["content"] += f" {person} {dialog}"
            rows.append(row)
    return rows


def test_prism_leaves_out_people_with_few_dialogs_and_splits_by_dialog(data_stage):
    _, asked, parts = data_stage("prism", prism_people())
    assert asked == [("HannahRoseKirk/prism-alignment", "conversations", "train")]
    seen, unseen = set(parts["seen_train"]["user"]), set(parts["unseen_context"]["user"])
    assert (len(seen), len(unseen)) == (16, 4)
    assert seen | unseen == {f"user{person:02d}" for person in range(20)}
    assert set(per_user(parts["unseen_context"]).values()) == {10}
    for first, second in (("seen_train", "seen_test"), ("unseen_context", "unseen_test")):
        assert not set(parts[first]["group"]) & set(parts[second]["group"])
    assert set(per_user(parts["seen_train"]).values()) == set(per_user(parts["seen_test"]).values()) == {8}  # half of 16


def test_personalllm_draws_users_over_the_reward_models(data_stage):
    """A twentieth of them, each over prompts of their own; alpha .001 leaves each with one model."""
    planned = load_config(CONFIGS / "personalllm" / "pipeline.yaml").data
    assert (planned.draw.users - planned.unseen, planned.unseen, planned.draw.alpha) == (1000, 500, 0.001)
    rows = personal_rows(prompts=120, models=MODELS)
    _, asked, parts = data_stage("personalllm", rows, "data.draw.users=75", "data.unseen=25")
    assert asked == [("namkoong-lab/PersonalLLM", None, "train")]
    assert len(per_user(parts["seen_train"])) == 50
    assert set(per_user(parts["seen_train"]).values()) == set(per_user(parts["seen_test"]).values()) == {47}
    assert per_user(parts["unseen_context"]).keys() == per_user(parts["unseen_test"]).keys()
    assert set(per_user(parts["unseen_context"]).values()) == {9}
    assert len(per_user(parts["unseen_context"])) == 25
    best = {  # (prompt, model) -> the response that a model alone likes best
        (row["prompt"], model): max(range(1, 9), key=lambda n, row=row, model=model: row[f"response_{n}_{model}"])
        for row in rows
        for model in MODELS
    }
    mine = [pair for pair in parts["seen_train"] if pair["user"] == parts["seen_train"]["user"][0]]
    number = {row[f"response_{n}"]: n for row in rows for n in range(1, 9)}
    agreeing = [sum(number[pair["chosen"]] == best[pair["prompt"], model] for pair in mine) for model in MODELS]
    assert max(agreeing) == len(mine) == 47


def test_personalllm_comes_with_other_alphas_and_from_a_file(data_stage, tmp_path):
    rows = personal_rows(prompts=30, models=MODELS)
    (tmp_path / "scored.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = ["data.draw.users=12", "data.draw.pairs_per_user=20", "data.unseen=4"]
    chosen = {}
    for alpha in (0.001, 0.1):
        settings = [*small, f"data.draw.alpha={alpha}", f"data.source={tmp_path / 'scored.jsonl'}"]
        _, asked, parts = data_stage("personalllm", [], *settings)
        assert not asked
        assert len(per_user(parts["seen_train"])) == 8
        chosen[alpha] = sorted(
            zip(parts["seen_train"]["user"], parts["seen_train"]["prompt"], parts["seen_train"]["chosen"], strict=True)
        )
    assert chosen[0.001] != chosen[0.1]


def test_tldr_fits_on_at_most_so_many_pairs_of_a_worker(data_stage):
    """Of six workers with 260 pairs half are unseen; one with 200 is left out."""
    rows = []
    for worker in range(7):
        for number in range(260 if worker < 6 else 200):
            info = {**tldr_row()["info"], "id": f"t3_{worker}_{number}", "post": f"Post {worker} {number}."}
            rows.append(tldr_row(worker=f"w{worker}", info=info, choice=number % 2))
    _, asked, parts = data_stage("tldr", rows)
    assert asked == [("openai/summarize_from_feedback", "comparisons", "train+validation")]
    assert set(per_user(parts["seen_train"]).values()) == {150}
    assert set(per_user(parts["seen_test"]).values()) == {78}  # .3 of 260
    assert set(per_user(parts["unseen_context"]).values()) == {50}
    assert set(per_user(parts["unseen_test"]).values()) == {210}
    assert len(per_user(parts["seen_train"])) == len(per_user(parts["unseen_context"])) == 3
    assert "w6" not in per_user(parts["seen_train"]) | per_user(parts["unseen_context"])
    assert not np.intersect1d(parts["seen_train"]["group"], parts["seen_test"]["group"]).size
    fewer = data_stage("tldr", rows, "data.train_pairs=100")[2]
    assert set(per_user(fewer["seen_train"]).values()) == {100}
    assert set(fewer["seen_train"]["prompt"]) < set(parts["seen_train"]["prompt"])
    assert fewer["seen_test"].to_list() == parts["seen_test"].to_list()
