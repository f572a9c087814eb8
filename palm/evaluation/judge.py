"""LLM-judge win rate: which of two responses a user would prefer, by a chat model that is told the user's profile.

Every comparison is asked in both orders. Where the judge names the same response twice it wins; where it changes its mind with the
order, or says tie twice, nobody does: half a win each. A judge that prefers what comes first is told by the position bias: how much
more often the first place wins than the second. An answer without a verdict is asked for again as a new request; if none comes the
comparison counts as failed, and is reported, never guessed.

Source of both orders and of position bias: L. Zheng et al., "Judging LLM-as-a-judge with MT-Bench and Chatbot Arena", NeurIPS 2023.
"""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from palm.artifacts import ArtifactError, digest, read_json, write_json
from palm.data.schema import Text, plain_text
from palm.evaluation.intervals import Estimate, bounded_mean
from palm.evaluation.judge_client import JudgeError, Message

_SYSTEM = (
    "You compare two responses to the same prompt on behalf of one particular user, whose taste is described to you. Judge by "
    "that taste, not by your own. Do not let the order or the length of the responses sway you. Explain in one or two sentences, "
    "then end with a line that is exactly one of: VERDICT: A, VERDICT: B, VERDICT: TIE."
)
_VERDICT = re.compile(r"^\W*(?:FINAL )?VERDICT:\W*(A|B|TIE)\W*$", flags=re.IGNORECASE | re.MULTILINE)
_ASKED = 3  # times for one verdict, each with the client's own tries


class Client(Protocol):
    """What a judge needs; see `palm.evaluation.judge_client.ChatClient`."""

    url: str
    model: str

    def ask(self, messages: Sequence[Message]) -> str:
        """The model's answer."""


@dataclass(frozen=True)
class Comparison:
    """Two responses to one prompt, for one user.

    Attributes:
        user: id; intervals are over users or prompts, whichever `unit` says.
        profile: what the judge is told of the user's taste.
        prompt: the prompt.
        ours, theirs: the responses.
        unit: comparisons of one unit are not independent of each other; the prompt, say.
    """

    user: str
    profile: str
    prompt: Text
    ours: Text
    theirs: Text
    unit: str


@dataclass(frozen=True)
class Judged:
    """What the judge said of some comparisons.

    Attributes:
        verdicts: (n, 2) of each comparison with ours first and ours second: 1 ours, 0 theirs, .5 a tie, nan none.
        win_rate: mean over units of wins plus half of what is undecided; of comparisons with both verdicts.
        consistent: share of comparisons whose two verdicts agree.
        ties: share of comparisons in which neither wins: two ties, or two verdicts that contradict each other.
        position_bias: how much more often the first place wins than the second, -1 to 1; 0 without bias.
        failed: comparisons without two verdicts; in none of the numbers.
    """

    verdicts: np.ndarray
    win_rate: Estimate
    consistent: float
    ties: float
    position_bias: Estimate
    failed: int

    def record(self) -> dict[str, object]:
        """JSON form, and a row of a table."""
        return {
            "comparisons": len(self.verdicts) - self.failed,
            "win_rate": self.win_rate.record(),
            "ties": self.ties,
            "consistent": self.consistent,
            "position_bias": self.position_bias.record(),
            "failed": self.failed,
        }


def profile_of(weight: np.ndarray, bases: Sequence[str], descriptions: dict[str, str] | None = None) -> str:
    """A user's weight in words: what matters to them, and how much, what matters most first.

    Args:
        weight: (K,) on the simplex.
        bases: K names.
        descriptions: of bases, where the name does not say what it rewards.
    """
    order = np.argsort(-weight, kind="stable")
    lines = [f"- {(descriptions or {}).get(bases[k], bases[k])}: {100 * weight[k]:.0f} %" for k in order if weight[k] >= 0.005]
    return "What matters to this user in a response, and how much:\n" + "\n".join(lines)


def request_messages(profile: str, prompt: Text, first: Text, second: Text) -> list[Message]:
    """What the judge is asked. Everything that users and policies wrote is quoted between tags, as material to judge."""
    asked = (
        f"<user>\n{profile}\n</user>\n\n<prompt>\n{plain_text(prompt)}\n</prompt>\n\n<response_A>\n{plain_text(first)}\n"
        f"</response_A>\n\n<response_B>\n{plain_text(second)}\n</response_B>\n\nWhich response would this user prefer?"
    )
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": asked}]


def read_verdict(answer: str) -> str | None:
    """ "A", "B" or "TIE": the last line of the answer that is a verdict and no more; None if there is none."""
    found = _VERDICT.findall(answer)
    return found[-1].upper() if found else None


def judge(
    client: Client,
    comparisons: Sequence[Comparison],
    cache: Path,
    *,
    workers: int = 4,
    advance: Callable[[int], object] | None = None,
) -> Judged:
    """Ask for every comparison in both orders.

    Args:
        client: the judge.
        comparisons: n of them.
        cache: folder with a file per request, named by a digest of the endpoint's model and of all that was asked; a later call
            asks only what is not there. Failures are not kept.
        workers: requests at a time.
        advance: called with the number of comparisons done.

    Raises:
        ValueError: there are no comparisons, or `workers` is below 1.
        JudgeError: not one comparison got its two verdicts; the message has the last reason.
    """
    if not comparisons:
        raise ValueError("comparisons: expected at least one, got none")
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    reasons: list[str] = []

    def both(one: Comparison) -> tuple[float, float]:
        try:
            forward = _verdict(client, one.profile, one.prompt, one.ours, one.theirs, cache)
            backward = _verdict(client, one.profile, one.prompt, one.theirs, one.ours, cache)
        except JudgeError as error:
            reasons.append(str(error))
            return np.nan, np.nan
        finally:
            if advance is not None:
                advance(1)
        return {"A": 1.0, "B": 0.0, "TIE": 0.5}[forward], {"A": 0.0, "B": 1.0, "TIE": 0.5}[backward]

    with ThreadPoolExecutor(workers) as pool:
        verdicts = np.array(list(pool.map(both, comparisons))).reshape(-1, 2)
    if np.isnan(verdicts).all():
        raise JudgeError(f"judge: none of {len(comparisons)} comparisons got two verdicts: {reasons[-1]}")
    return summarise(verdicts, [one.unit for one in comparisons])


def summarise(verdicts: np.ndarray, units: Sequence[str]) -> Judged:
    """Win rate, ties and position bias of (n, 2) verdicts, with intervals over units; see `Judged`."""
    there = ~np.isnan(verdicts).any(axis=1)
    known, of = verdicts[there], np.asarray(units)[there]
    agreed = np.where(known[:, 0] == known[:, 1], known[:, 0], 0.5)
    # A tie in one order and a win in the other is half a win more than a tie: the verdicts' mean, not a contradiction.
    mixed = (known == 0.5).any(axis=1) & (known[:, 0] != known[:, 1])
    won = np.where(mixed, known.mean(axis=1), agreed)
    first = known[:, 0] - known[:, 1]  # +1: the first place won both times, -1: the second
    return Judged(
        verdicts,
        bounded_mean(_by_unit(won, of), 0.0, 1.0),
        float((known[:, 0] == known[:, 1]).mean()),
        float((won == 0.5).mean()),
        bounded_mean(_by_unit(first, of), -1.0, 1.0),
        int((~there).sum()),
    )


def _by_unit(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The mean of each unit."""
    _, place = np.unique(units, return_inverse=True)
    return np.asarray(np.bincount(place, weights=values) / np.bincount(place))


def _verdict(client: Client, profile: str, prompt: Text, first: Text, second: Text, cache: Path) -> str:
    messages = request_messages(profile, prompt, first, second)
    path = cache / f"{digest({'model': client.model, 'messages': messages})}.json"
    try:
        known = read_json(path)["verdict"]
        if known in ("A", "B", "TIE"):
            return str(known)
    except (ArtifactError, KeyError, TypeError):
        pass  # not asked yet, or a file that something else damaged: ask again
    answer = ""
    for _ in range(_ASKED):
        answer = client.ask(messages)
        verdict = read_verdict(answer)
        if verdict is not None:
            write_json(path, {"model": client.model, "messages": messages, "answer": answer, "verdict": verdict})
            return verdict
    raise JudgeError(f"{client.url}: expected an answer that ends with VERDICT: A, B or TIE, got {answer!r:.80}")
