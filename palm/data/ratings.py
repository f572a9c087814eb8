"""Ratings of items by users, and the pairs that follow from them: whoever rated two items judged the pair.

Pairs of one user's ratings follow from each other by transitivity, so what is tested must share no item with what is fitted
on: `Ratings.split` deals each user's items to two sides before any pair is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palm.data.ids import as_ids
from palm.data.rows import Source, read_rows
from palm.data.schema import PairError


@dataclass(frozen=True)
class Ratings:
    """n ratings.

    Attributes:
        user: (n,) user ids.
        item: (n,) item ids.
        score: (n,) finite numbers, larger is better; scales may differ between users.
    """

    user: np.ndarray
    item: np.ndarray
    score: np.ndarray

    def __post_init__(self) -> None:
        """Check lengths, scores and repeats.

        Raises:
            ValueError: lengths differ, an id is missing, a score is not finite, or a user rated an item twice.
        """
        user, item = (as_ids(getattr(self, name), name=name) for name in ("user", "item"))
        score = np.asarray(self.score, dtype=np.float64)
        if not len(user) == len(item) == len(score):
            raise ValueError(f"user, item, score: expected equal lengths, got {len(user)}, {len(item)} and {len(score)}")
        if not np.isfinite(score).all():
            bad = int((~np.isfinite(score)).argmax())
            raise ValueError(
                f"score: expected finite numbers, rating {bad} of {str(item[bad])!r} by {str(user[bad])!r} is {score[bad]}"
            )
        cells = np.unique(user, return_inverse=True)[1] * (len(item) + 1) + np.unique(item, return_inverse=True)[1]
        distinct, first = np.unique(cells, return_index=True)
        if len(distinct) < len(cells):
            bad = int(np.setdiff1d(np.arange(len(cells)), first)[0])
            raise ValueError(f"user, item: expected every item once per user, {str(user[bad])!r} rated {str(item[bad])!r} again")
        for name, value in (("user", user), ("item", item), ("score", score)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.score)

    def select(self, rows: np.ndarray) -> "Ratings":
        """Some of the ratings, by row number or by a mask."""
        return Ratings(self.user[rows], self.item[rows], self.score[rows])

    def of(self, users: np.ndarray) -> "Ratings":
        """The ratings by some users."""
        return self.select(np.isin(self.user, users))

    def split(self, share: float, *, seed: int = 0) -> tuple["Ratings", "Ratings"]:
        """Deal each user's items to two sides.

        Args:
            share: of a user's items that goes to the second side, rounded; above 0 and below 1.
            seed: who gets what; the order of the ratings has no part in it.

        Raises:
            ValueError: `share` is out of range.
        """
        if not 0 < share < 1:
            raise ValueError(f"share: expected a number between 0 and 1, got {share}")
        order = np.lexsort((self.item, self.user))
        code = np.unique(self.user[order], return_inverse=True)[1]
        counts = np.bincount(code)
        drawn = order[np.lexsort((np.random.default_rng(seed).random(len(order)), code))]
        rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        late = rank < np.repeat(np.round(counts * share), counts)
        return self.select(np.sort(drawn[~late])), self.select(np.sort(drawn[late]))

    def pairs(self, *, per_user: int | None = None, least_gap: float = 0.0, seed: int = 0) -> dict[str, np.ndarray]:
        """The pairs that users judged by rating both items differently.

        Args:
            per_user: most pairs of a user, drawn at random; all unless given.
            least_gap: pairs whose scores differ by less are left out; equal scores always are.
            seed: of the draws; pairs come in random order.

        Returns:
            user, chosen, rejected: (m,) ids.

        Raises:
            ValueError: `per_user` or `least_gap` is out of range.
        """
        if per_user is not None and per_user < 1:
            raise ValueError(f"per_user: expected at least 1 or None, got {per_user}")
        if not least_gap >= 0:
            raise ValueError(f"least_gap: expected at least 0, got {least_gap}")
        rng = np.random.default_rng(seed)
        order = np.lexsort((self.item, self.user))
        ends = np.cumsum(np.unique(self.user[order], return_counts=True)[1]) if len(order) else np.zeros(0, dtype=np.int64)
        parts: list[np.ndarray] = [np.zeros((0, 2), dtype=np.int64)]
        for rows in np.split(order, ends[:-1]):
            first, second = np.triu_indices(len(rows), k=1)
            gap = self.score[rows[first]] - self.score[rows[second]]
            kept = np.flatnonzero((gap != 0) & (np.abs(gap) >= least_gap))
            kept = rng.permutation(kept)[:per_user]
            above, below = rows[first[kept]], rows[second[kept]]
            turned = gap[kept] < 0
            parts.append(np.column_stack([np.where(turned, below, above), np.where(turned, above, below)]))
        rows = np.concatenate(parts)
        return {"user": self.user[rows[:, 0]], "chosen": self.item[rows[:, 0]], "rejected": self.item[rows[:, 1]]}


def load_ratings(path: str | Path, *, columns: Mapping[str, str] | None = None) -> Ratings:
    """Read ratings from a CSV, optionally compressed with gzip.

    Args:
        path: with a header line.
        columns: what user, item and score are called, where it is something else.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, an id is blank or scores are not numbers; the message names the file.
    """
    from pyarrow import ArrowException, csv

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    names = {"user": "user", "item": "item", "score": "score", **(columns or {})}
    text = {names[name]: "string" for name in ("user", "item")}
    try:
        table = csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=text))
    except (ArrowException, OSError, EOFError) as error:
        raise ValueError(f"{path}: not a readable CSV: {error}") from error
    for name, column in names.items():
        if column not in table.column_names:
            raise ValueError(f"{path}: expected a column {column!r} for {name}, got {', '.join(table.column_names)}")
    for name in text:
        ids = np.asarray(table[name].fill_null("").to_pylist(), dtype=object)
        blank = np.flatnonzero([not identity.strip() for identity in ids])
        if len(blank):
            raise ValueError(f"{path}, row {blank[0] + 1}, column {name!r}: expected an id, got {ids[blank[0]]!r}")
    try:
        score = np.asarray(table[names["score"]].to_numpy(), dtype=np.float64)
        return Ratings(table[names["user"]].to_numpy(), table[names["item"]].to_numpy(), score)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def load_item_texts(source: Source, *, columns: Mapping[str, str] | None = None) -> dict[str, str]:
    """Texts of rated items, by their ids.

    Args:
        source: a table with the columns item and text, as `palm.load_pairs` takes it.
        columns: where these are found, such as `{"item": "joke_id"}`.

    Raises:
        PairError: a column is missing, a text is empty, or an item comes twice; the message names the row.
    """
    names = {name: (columns or {}).get(name, name) for name in ("item", "text")}
    label, rows = read_rows(source)
    texts: dict[str, str] = {}
    for number, row in rows:
        where = f"{label}, row {number}"
        for column in names.values():
            if not isinstance(row, Mapping) or row.get(column) in (None, ""):
                raise PairError(f"{where}, column {column!r}: expected a value, got none")
        item, text = str(row[names["item"]]), row[names["text"]]
        if not isinstance(text, str):
            raise PairError(f"{where}, column {names['text']!r}: expected text, got {text!r:.60}")
        if item in texts:
            raise PairError(f"{where}, column {names['item']!r}: {item!r} comes again")
        texts[item] = text
    return texts
