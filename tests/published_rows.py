"""Rows of data sets as they are published on the Hub, written here since tests have no hub."""

import numpy as np


def tldr_row(**changes):
    info = {"id": "t3_1", "post": "I lost my keys. ", "title": "Keys", "subreddit": "AskReddit", "site": None, "article": None}
    summaries = [{"text": " Keys lost.", "policy": "sup2", "note": None}, {"text": "He is sad.", "policy": "ref", "note": None}]
    row = {"info": info, "summaries": summaries, "choice": 1, "worker": "w1", "batch": "batch3", "split": "train", "extra": {}}
    return {**row, **changes}


def entry(turn, role, content, score=None, chosen=None, number=0):
    return {"turn": turn, "role": role, "content": content, "score": score, "if_chosen": chosen, "within_turn_id": number}


def prism_row(**changes):
    history = [
        entry(0, "user", "Is cake healthy?"),
        entry(0, "model", "No.", 20, False, 0),
        entry(0, "model", "It depends.", 90, True, 1),
        entry(0, "model", "Yes!", 5, False, 2),
        entry(1, "user", "On what?"),
        entry(1, "model", "On how much.", 60, False, 0),
        entry(1, "model", "On you.", 60, True, 1),
        entry(2, "user", "Thanks"),
        entry(2, "model", "Welcome.", 70, True, 0),
        entry(2, "model", "Bye.", 40, False, 1),
    ]
    row = {"user_id": "user1", "conversation_id": "c1", "conversation_history": history, "included_in_balanced_subset": True}
    return {**row, **changes}


def personal_rows(prompts=30, responses=8, models=("gemma_2b", "llama3_sfairx", "oasst_deberta_v3"), seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for p in range(prompts):
        row = {"prompt": f"Question {p}"}
        for n in range(responses):
            row |= {f"response_{n + 1}": f"Answer {p} {n}", f"response_{n + 1}_model": "some-model"}
            row |= {f"response_{n + 1}_{model}": float(rng.normal() * 10**k) for k, model in enumerate(models)}
        rows.append(row)
    return rows
