"""palm.data.ratings: pairs follow from ratings, and no item is on both sides of a user's split."""

import gzip

import numpy as np
import pytest

from palm.data.ratings import Ratings, load_item_texts, load_ratings
from palm.data.schema import PairError


def some(users=8, items=15, seed=0):
    rng = np.random.default_rng(seed)
    there = rng.random((users, items)) < 0.8
    user, item = np.nonzero(there)
    score = np.round(rng.normal(size=len(user)), 1)
    return Ratings([f"u{n}" for n in user], [f"i{n}" for n in item], score)


def test_every_pair_agrees_with_the_scores_and_all_are_there():
    ratings = some()
    known = {(u, i): s for u, i, s in zip(ratings.user, ratings.item, ratings.score, strict=True)}
    pairs = ratings.pairs()
    found = list(zip(pairs["user"], pairs["chosen"], pairs["rejected"], strict=True))
    assert all(known[user, chosen] > known[user, rejected] for user, chosen, rejected in found)
    expected = {(u, a, b) for (u, a), s in known.items() for (v, b), t in known.items() if u == v and s > t}
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_pairs_that_hardly_differ_are_left_out_and_each_user_has_no_more_than_asked_for():
    ratings = some()
    known = {(u, i): s for u, i, s in zip(ratings.user, ratings.item, ratings.score, strict=True)}
    pairs = ratings.pairs(per_user=5, least_gap=0.5, seed=1)
    assert np.unique(pairs["user"], return_counts=True)[1].tolist() == [5] * 8
    for user, chosen, rejected in zip(*pairs.values(), strict=True):
        assert known[user, chosen] - known[user, rejected] >= 0.5
    same, other = ratings.pairs(per_user=5, least_gap=0.5, seed=1), ratings.pairs(per_user=5, least_gap=0.5, seed=2)
    assert same["chosen"].tolist() == pairs["chosen"].tolist()
    assert other["chosen"].tolist() != pairs["chosen"].tolist()


def test_no_item_of_a_user_is_on_both_sides():
    ratings = some()
    early, late = ratings.split(0.25)
    assert len(early) + len(late) == len(ratings)
    for user in np.unique(ratings.user):
        own = [set(side.of(np.array([user])).item) for side in (early, late)]
        assert not own[0] & own[1]
        assert len(own[1]) == round(0.25 * (len(own[0]) + len(own[1])))


def test_the_order_of_the_ratings_has_no_part_in_the_split():
    ratings = some()
    mixed = ratings.select(np.random.default_rng(3).permutation(len(ratings)))

    def cells(side):
        return sorted(zip(side.user, side.item, strict=True))

    assert cells(ratings.split(0.3)[1]) == cells(mixed.split(0.3)[1])
    assert cells(ratings.split(0.3)[1]) != cells(ratings.split(0.3, seed=1)[1])


def test_nothing_rated_or_nothing_that_differs_gives_no_pairs():
    empty = Ratings([], [], [])
    assert len(empty.pairs()["user"]) == 0
    assert len(Ratings(["a", "a", "b"], ["x", "y", "x"], [1.0, 1.0, 3.0]).pairs()["user"]) == 0


@pytest.mark.parametrize("name", ["ratings.csv", "ratings.csv.gz"])
def test_a_file_is_read_with_its_own_names(tmp_path, name):
    text = "who,what,how\n007,bär,1.5\n007,2,-3\nzoë,2,0\n"
    opened = gzip.open if name.endswith(".gz") else open
    with opened(tmp_path / name, "wt", encoding="utf-8") as file:
        file.write(text)
    ratings = load_ratings(tmp_path / name, columns={"user": "who", "item": "what", "score": "how"})
    assert ratings.user.tolist() == ["007", "007", "zoë"]  # ids are text, whatever they look like
    assert ratings.item.tolist() == ["bär", "2", "2"]
    assert ratings.score.tolist() == [1.5, -3, 0]
    with pytest.raises(ValueError, match=f"{name}: expected a column 'user' for user, got who, what, how"):
        load_ratings(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,score\na,x,good\n", "ratings.csv: could not convert string to float"),
        ("user,item,score\na,x,1\na,x,2\n", "ratings.csv: user, item: expected every item once per user, 'a' rated 'x' again"),
        ("user,item,score\na,x,nan\n", "ratings.csv: score: expected finite numbers, rating 0 of 'x' by 'a' is nan"),
        ("", "ratings.csv: not a readable CSV"),
        ("user,item,score\na,x,1\n,y,2\n", "ratings.csv, row 2, column 'user': expected an id, got ''"),
        ("user,item,score\n  ,x,1\nb,,2\n", "ratings.csv, row 1, column 'user': expected an id, got '  '"),
        ('user,item,score\na,x,1\nb,y,1\nb,"\t",2\n', r"ratings.csv, row 3, column 'item': expected an id, got '\\t'"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    (tmp_path / "ratings.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_ratings(tmp_path / "ratings.csv")


def test_truncated_and_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv: no such file"):
        load_ratings(tmp_path / "none.csv")
    whole = gzip.compress(b"user,item,score\n" + b"a,x,1\nb,y,2\n" * 500)
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.csv\.gz: not a readable CSV"):
        load_ratings(tmp_path / "cut.csv.gz")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.split(1.0), r"share: expected a number between 0 and 1, got 1\.0"),
        (lambda r: r.pairs(per_user=0), "per_user: expected at least 1 or None, got 0"),
        (lambda r: r.pairs(least_gap=-1), "least_gap: expected at least 0, got -1"),
        (lambda _: Ratings(["a"], ["x", "y"], [1.0]), "user, item, score: expected equal lengths, got 1, 2 and 1"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(some())


def test_texts_of_items_are_read_by_their_ids(tmp_path):
    path = tmp_path / "jokes.jsonl"
    path.write_text('{"joke": 3, "text": "Knock, knock."}\n{"joke": 10, "text": "Toc, toc – \u00e7a va?"}\n', encoding="utf-8")
    assert load_item_texts(path, columns={"item": "joke"}) == {"3": "Knock, knock.", "10": "Toc, toc – \u00e7a va?"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"item": "a"}], "row 1, column 'text': expected a value, got none"),
        ([{"item": "a", "text": "x"}, {"item": "", "text": "y"}], "row 2, column 'item': expected a value, got none"),
        ([{"item": "a", "text": ["x"]}], r"row 1, column 'text': expected text, got \['x'\]"),
        ([{"item": "a", "text": "x"}, {"item": "a", "text": "y"}], "row 2, column 'item': 'a' comes again"),
        (["a"], "row 1, column 'item': expected a value, got none"),
    ],
)
def test_bad_texts_of_items_are_named(rows, message):
    with pytest.raises(PairError, match=message):
        load_item_texts(rows)
