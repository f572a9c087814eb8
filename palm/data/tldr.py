"""TL;DR: which of two summaries of a post a worker preferred (N. Stiennon et al., arXiv 2009.01325).

On the Hub as `openai/summarize_from_feedback`, configuration "comparisons". Users are the workers.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from palm.data.schema import PairError

SOURCE, SUBSET = "openai/summarize_from_feedback", "comparisons"


def tldr_pairs(rows: Iterable[Mapping[str, Any]], *, posts_only: bool = True) -> Iterator[dict[str, Any]]:
    """Pairs of the columns user, prompt, chosen, rejected, group; a post is a group.

    Args:
        rows: info (post or article, title), summaries (two texts), choice (0 or 1), worker.
        posts_only: leave out the news articles, as papers on TL;DR do.

    Yields:
        a pair for every row whose two summaries differ.

    Raises:
        PairError: a row is not of that form; the message names it and the column.
    """
    for number, row in enumerate(rows, start=1):
        where = f"{SOURCE}, row {number}"
        info, summaries, choice = row.get("info"), row.get("summaries"), row.get("choice")
        if not isinstance(info, Mapping) or not (info.get("post") or info.get("article")):
            raise PairError(f"{where}, column 'info': expected a post or an article, got {info!r:.60}")
        texts = [part.get("text") for part in summaries or () if isinstance(part, Mapping)]
        if len(texts) != 2 or not all(isinstance(text, str) and text.strip() for text in texts):
            raise PairError(f"{where}, column 'summaries': expected two texts, got {summaries!r:.60}")
        if isinstance(choice, bool | float) or choice not in (0, 1):
            raise PairError(f"{where}, column 'choice': expected 0 or 1, got {choice!r}")
        if not row.get("worker"):
            raise PairError(f"{where}, column 'worker': expected an id, got {row.get('worker')!r}")
        if posts_only and not info.get("post"):
            continue
        texts = [str(text).strip() for text in texts]
        if texts[0] == texts[1]:
            continue
        text = str(info.get("post") or info["article"]).strip()
        title = f"Title: {info['title']}\n" if info.get("title") else ""
        yield {
            "user": str(row["worker"]),
            "prompt": f"{title}{text}\n\nTL;DR:",
            "chosen": texts[choice],
            "rejected": texts[1 - choice],
            "group": str(info.get("id") or text[:200]),
        }
