"""palm.data.tldr, prism, personalllm: rows of the published schemas, written here since there is no hub, become pairs."""

import json

import numpy as np
import pytest
from datasets import Dataset
from published_rows import entry, personal_rows, prism_row, tldr_row

from palm.data.drawn import load_drawn
from palm.data.loaders import load_pairs
from palm.data.personalllm import draw_users, read_scored
from palm.data.prism import prism_pairs
from palm.data.schema import PairError
from palm.data.tldr import tldr_pairs


def test_tldr_rows_become_pairs_of_their_workers():
    pairs = load_pairs(tldr_pairs([tldr_row(), tldr_row(choice=0, worker="w2")]))
    assert pairs["user"] == ["w1", "w2"]
    assert pairs["prompt"][0] == "Title: Keys\nI lost my keys.\n\nTL;DR:"
    assert pairs["chosen"] == ["He is sad.", "Keys lost."]
    assert pairs["rejected"] == ["Keys lost.", "He is sad."]
    assert set(pairs["group"]) == {"t3_1"}


def test_tldr_leaves_out_articles_and_equal_summaries_unless_asked():
    article = tldr_row(info={"id": "a", "post": None, "article": "News.", "title": None})
    same = tldr_row(summaries=[{"text": "Same."}, {"text": "Same. "}])
    assert list(tldr_pairs([article, same])) == []
    assert [pair["prompt"] for pair in tldr_pairs([article], posts_only=False)] == ["News.\n\nTL;DR:"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choice": 2}, "row 1, column 'choice': expected 0 or 1, got 2"),
        ({"worker": ""}, "row 1, column 'worker': expected an id, got ''"),
        ({"summaries": ["a", "b"]}, "row 1, column 'summaries': expected two texts"),
        ({"summaries": [{"text": " "}, {"text": "b"}]}, "row 1, column 'summaries': expected two texts"),
        ({"choice": True}, "row 1, column 'choice': expected 0 or 1, got True"),
        ({"summaries": [{"text": "a"}]}, "row 1, column 'summaries': expected two texts"),
        ({"info": {}}, "row 1, column 'info': expected a post or an article"),
    ],
)
def test_tldr_rows_of_another_form_are_named(changes, message):
    with pytest.raises(PairError, match=message):
        list(tldr_pairs([tldr_row(**changes)]))


def test_prism_pairs_the_best_with_the_worst_of_every_turn_in_context():
    pairs = load_pairs(prism_pairs([prism_row()]))
    assert len(pairs) == 2  # the second turn's scores are equal
    assert pairs["chosen"][0] == [{"role": "assistant", "content": "It depends."}]
    assert pairs["rejected"][0] == [{"role": "assistant", "content": "Yes!"}]
    roles = [message["role"] for message in pairs["prompt"][1]]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    assert [message["content"] for message in pairs["prompt"][1]][1::2] == ["It depends.", "On you."]
    assert set(pairs["group"]) == {"c1"}
    assert set(pairs["user"]) == {"user1"}
    assert len(list(prism_pairs([prism_row()], least_gap=50))) == 1


def test_prism_takes_the_balanced_subset_unless_told_otherwise():
    outside = prism_row(included_in_balanced_subset=False)
    assert list(prism_pairs([outside])) == []
    assert len(list(prism_pairs([outside], balanced=False))) == 2
    unmarked = {key: value for key, value in outside.items() if key != "included_in_balanced_subset"}
    with pytest.raises(PairError, match="column 'included_in_balanced_subset': missing; use balanced=False to do without"):
        list(prism_pairs([unmarked]))


def test_prism_conversations_end_where_nothing_was_chosen():
    history = [item if item["turn"] else {**item, "if_chosen": False} for item in prism_row()["conversation_history"]]
    assert len(list(prism_pairs([prism_row(conversation_history=history)]))) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_id": None}, "row 1, column 'user_id': expected a value"),
        ({"conversation_history": []}, "row 1, column 'conversation_history': expected a value"),
        ({"conversation_history": [entry(0, "model", "Hi", 3, True)]}, "expected one user message in turn 0, got 0"),
        ({"conversation_history": "text"}, "expected a list of messages, got 'text'"),
        ({"conversation_history": [{"role": "user", "content": "a"}]}, "expected messages with a turn"),
        ({"conversation_history": [entry(0, "user", None)]}, "expected text as content in turn 0, got None"),
        ({"conversation_history": [entry(0, "user", "a"), entry(0, "model", "b", "80", True)]}, "expected a number as score"),
    ],
)
def test_prism_rows_of_another_form_are_named(changes, message):
    with pytest.raises(PairError, match=message):
        list(prism_pairs([prism_row(**changes)]))


def test_personalllm_users_prefer_what_their_weights_say():
    scored = read_scored(personal_rows()).calibrated()
    assert scored.names == ("gemma_2b", "llama3_sfairx", "oasst_deberta_v3")
    assert scored.rewards.shape == (30, 8, 3)
    np.testing.assert_allclose(scored.rewards.std(axis=(0, 1)), 1)
    pairs, weights = draw_users(scored, users=20, alpha=0.1, pairs_per_user=12)
    loaded = load_pairs(pairs)
    assert len(loaded) == 240
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    place = {text: (p, n) for p, row in enumerate(scored.responses) for n, text in enumerate(row)}
    for pair in pairs:
        weight = weights[int(pair["user"][-5:])]
        liked = scored.rewards[place[pair["chosen"]][0]] @ weight
        assert liked.argmax() == place[pair["chosen"]][1]
        assert liked.argmin() == place[pair["rejected"]][1]
    again = draw_users(scored, users=20, alpha=0.1, pairs_per_user=12)
    assert again[0] == pairs


@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.1, 10.0])
def test_the_smaller_alpha_the_fewer_models_a_user_listens_to(alpha):
    weights = draw_users(read_scored(personal_rows(2)), users=200, alpha=alpha, pairs_per_user=1)[1]
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    largest = weights.max(axis=1).mean()
    assert largest > 0.98 if alpha <= 0.01 else largest < 0.98
    assert (weights.mean(axis=0) > 0.2).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "PersonalLLM: expected at least one row, got none"),
        ([{"prompt": "a", "response_1": "b"}], "row 1: expected columns such as 'response_1_gemma_2b'"),
        ([{**personal_rows(1)[0], "response_3": ""}], "row 1, column 'response_3': expected text, got ''"),
        (
            [{**personal_rows(1)[0], "response_2_gemma_2b": None}],
            "column 'response_2_gemma_2b': expected a finite number",
        ),
    ],
)
def test_personalllm_rows_of_another_form_are_named(rows, message):
    with pytest.raises(PairError, match=message):
        read_scored(rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"users": 0}, "users: expected at least 1, got 0"),
        ({"alpha": 0.0}, r"alpha: expected a positive number, got 0\.0"),
        ({"pairs_per_user": 31}, "pairs_per_user: expected at most 30, one per prompt, got 31"),
    ],
)
def test_users_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        draw_users(read_scored(personal_rows()), **{"users": 2, "alpha": 0.1, "pairs_per_user": 3, **options})


@pytest.mark.parametrize(
    ("source", "subset", "row"),
    [("openai/summarize_from_feedback", "comparisons", tldr_row), ("HannahRoseKirk/prism-alignment", "conversations", prism_row)],
)
def test_hub_ids_of_published_sets_are_read_by_their_schema(monkeypatch, source, subset, row):
    asked = []

    def load_dataset(repository, configuration, *, split):
        asked.append((repository, configuration, split))
        return Dataset.from_list([row()])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    pairs = load_pairs(source)
    assert asked == [(source, subset, "train")]
    assert pairs["user"][0] == {"comparisons": "w1", "conversations": "user1"}[subset]


def test_personalllm_by_its_id_has_scores_and_no_pairs_and_users_are_drawn_over_them(monkeypatch, tmp_path):
    rows = personal_rows()
    monkeypatch.setattr("datasets.load_dataset", lambda *names, split: Dataset.from_list(rows))
    with pytest.raises(PairError, match=r"PersonalLLM: has scores of responses and no users; palm.data.drawn.load_drawn draws"):
        load_pairs("namkoong-lab/PersonalLLM")
    pairs, weights = load_drawn(users=5, alpha=0.1, pairs_per_user=7, seed=3)
    expected = draw_users(read_scored(rows).calibrated(), users=5, alpha=0.1, pairs_per_user=7, seed=3)
    assert pairs.to_list() == load_pairs(expected[0]).to_list()
    np.testing.assert_array_equal(weights, expected[1])
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_drawn(tmp_path / "mine.jsonl", users=5, alpha=0.1, pairs_per_user=7, seed=3)[0].to_list() == pairs.to_list()
    with (tmp_path / "mine.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(PairError, match=r"mine.jsonl, row 31, column 'prompt': expected text, got None"):
        load_drawn(tmp_path / "mine.jsonl", users=5, alpha=0.1, pairs_per_user=7)
    with pytest.raises(PairError, match="rows, row 1: expected an object with columns, got 3"):
        load_drawn([3], users=1, alpha=0.1, pairs_per_user=1)


def test_columns_of_a_published_set_are_known_and_those_of_its_other_configurations_are_not(monkeypatch):
    """Said before anything is fetched; another configuration has rows as anybody's."""
    rows = [{"worker": "w", "post": "p", "chosen": "a", "rejected": "b"}]
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *names, **_: asked.append(names) or Dataset.from_list(rows))
    columns = {"user": "worker", "prompt": "post"}
    message = (
        r"columns: openai/summarize_from_feedback is read by its published schema \(palm.data.tldr\), .* got {'user': 'worker'"
    )
    for subset in (None, "comparisons"):
        with pytest.raises(PairError, match=message):
            load_pairs("openai/summarize_from_feedback", columns=columns, subset=subset)
    assert not asked
    assert load_pairs("openai/summarize_from_feedback", columns=columns, subset="axis")["user"] == ["w"]
    assert asked == [("openai/summarize_from_feedback", "axis")]


def test_bad_rows_of_published_sets_are_named_or_left_out(monkeypatch, caplog):
    rows = [tldr_row(), tldr_row(worker=""), tldr_row(choice=0)]
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: Dataset.from_list(rows))
    with pytest.raises(PairError, match="summarize_from_feedback, row 2, column 'worker': expected an id, got ''"):
        load_pairs("openai/summarize_from_feedback")
    assert len(load_pairs("openai/summarize_from_feedback", drop_invalid=True)) == 2
    assert "left out 1 of 3 rows" in caplog.text
