"""palm.evaluation.judge and judge_client: against real HTTP servers on loopback that judge, fail, ramble or are slow."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import by_length, chat, parts

from palm.evaluation.judge import Comparison, judge, profile_of, read_verdict, request_messages, summarise
from palm.evaluation.judge_client import ChatClient, JudgeError


def comparisons(count: int = 6, profile: str = "long") -> list[Comparison]:
    """Ours is longer in two of three, and as long as theirs in the third."""
    return [
        Comparison(f"user-{n}", profile, f"prompt {n}", "x" * (5 if n % 3 else 3), "yyy", unit=f"prompt {n}") for n in range(count)
    ]


def test_the_profile_decides_and_both_orders_are_asked(serve: Any, tmp_path: Path) -> None:
    endpoint = serve(by_length)
    found = judge(endpoint.client(key="secret"), comparisons(), tmp_path)
    assert found.verdicts.tolist() == [[0.5, 0.5], [1, 1], [1, 1]] * 2
    assert found.win_rate.mean == pytest.approx(5 / 6)
    assert (found.ties, found.consistent, found.position_bias.mean, found.failed) == (pytest.approx(1 / 3), 1, 0, 0)
    assert found.win_rate.count == 6
    assert found.win_rate.low < 5 / 6 < found.win_rate.high
    assert len(endpoint.asked) == 12
    assert {body["model"] for body in endpoint.asked} == {"judge-1"}
    assert {body["temperature"] for body in endpoint.asked} == {0}
    assert {headers["Authorization"] for headers in endpoint.headers} == {"Bearer secret"}
    pairs = {parts(body)[1:] for body in endpoint.asked}
    assert pairs == {("xxxxx", "yyy"), ("yyy", "xxxxx"), ("xxx", "yyy"), ("yyy", "xxx")}
    other = judge(endpoint.client(), comparisons(profile="short"), tmp_path)
    assert other.win_rate.mean == pytest.approx(1 / 6)


def test_a_judge_that_looks_at_the_place_only_is_told(serve: Any, tmp_path: Path) -> None:
    found = judge(serve(lambda body, number: chat("VERDICT: A")).client(), comparisons(), tmp_path)
    assert found.win_rate.mean == 0.5
    assert (found.position_bias.mean, found.consistent, found.ties) == (1, 0, 1)
    second = judge(serve(lambda body, number: chat("verdict: **B**")).client(), comparisons(), tmp_path / "b")
    assert second.position_bias.mean == -1


def test_what_was_judged_is_not_asked_again(serve: Any, tmp_path: Path) -> None:
    """A run that stopped after some comparisons goes on with the others; a damaged file, another judge or profile is asked."""
    endpoint = serve(by_length)
    judge(endpoint.client(), comparisons(2), tmp_path)
    first = judge(endpoint.client(), comparisons(), tmp_path)
    assert len(endpoint.asked) == 12
    again = judge(endpoint.client(), comparisons(), tmp_path)
    assert len(endpoint.asked) == 12
    assert again.record() == first.record()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 12
    files[0].write_text('{"verdict"')
    judge(endpoint.client(), comparisons(), tmp_path)
    assert len(endpoint.asked) == 13
    judge(ChatClient(endpoint.url, "judge-2"), comparisons(1), tmp_path)
    judge(endpoint.client(), comparisons(1, profile="short"), tmp_path)
    assert len(endpoint.asked) == 17


def test_a_server_that_fails_now_and_then_is_asked_again(serve: Any, tmp_path: Path) -> None:
    """Of every four requests one is refused for the time being, one breaks and one is no chat completion."""

    def flaky(body: dict[str, Any], number: int) -> tuple[int, Any]:
        wrong = [(429, {"error": "slow down"}), (500, b"<html>"), (200, b"not json"), (200, {"choices": []}), chat(None)]
        return wrong[number % 6] if number % 6 < 5 else by_length(body, number)

    endpoint = serve(flaky)
    found = judge(endpoint.client(tries=6), comparisons(2), tmp_path, workers=1)
    assert found.failed == 0
    assert found.verdicts.tolist() == [[0.5, 0.5], [1, 1]]
    assert len(endpoint.asked) == 24


def test_tries_are_bounded_and_what_failed_is_told(serve: Any, tmp_path: Path) -> None:
    """A server that breaks on one prompt: that comparison is in no number, the others are; later it is asked again."""
    broken = [True]

    def breaks(body: dict[str, Any], number: int) -> tuple[int, Any]:
        return (503, b"busy") if broken[0] and "prompt 1\n" in body["messages"][1]["content"] else by_length(body, number)

    endpoint = serve(breaks)
    found = judge(endpoint.client(tries=3), comparisons(3), tmp_path)
    assert found.failed == 1
    assert np.isnan(found.verdicts[1]).all()
    assert found.win_rate.mean == pytest.approx(0.75)
    assert found.record()["comparisons"] == 2
    assert len(endpoint.asked) == 4 + 3
    broken[0] = False
    assert judge(endpoint.client(), comparisons(3), tmp_path).failed == 0
    assert len(endpoint.asked) == 4 + 3 + 2


def test_nonsense_is_no_verdict(serve: Any, tmp_path: Path) -> None:
    endpoint = serve(lambda body, number: chat("I like both. A is nice, B is nicer."))
    with pytest.raises(JudgeError, match=r"none of 2 comparisons got two verdicts: .*expected an answer that ends with VERDICT"):
        judge(endpoint.client(), comparisons(2), tmp_path, workers=1)
    assert len(endpoint.asked) == 2 * 3
    assert list(tmp_path.iterdir()) == []


def test_a_slow_server_is_given_up(serve: Any) -> None:
    def slow(body: dict[str, Any], number: int) -> tuple[int, Any]:
        time.sleep(0.6 if number == 0 else 0.0)
        return chat("VERDICT: A")

    endpoint = serve(slow)
    assert endpoint.client(timeout=0.2).ask([{"role": "user", "content": "?"}]) == "VERDICT: A"
    assert len(endpoint.asked) == 2
    with pytest.raises(JudgeError, match=r"no answer in 1 tries; last .*[Tt]imed? ?[Oo]ut"):
        serve(slow).client(timeout=0.2, tries=1).ask([{"role": "user", "content": "?"}])


def test_refusals_are_not_repeated(serve: Any) -> None:
    endpoint = serve(lambda body, number: (401, {"error": "no such key"}))
    with pytest.raises(JudgeError, match=r"refused the request with status 401: .*no such key"):
        endpoint.client(tries=5).ask([{"role": "user", "content": "?"}])
    assert len(endpoint.asked) == 1


def test_an_answer_that_breaks_off_is_asked_for_again(serve: Any) -> None:
    class Broken(bytes):
        """As long as it says, in its header only."""

        def __len__(self) -> int:
            return 5000

    endpoint = serve(lambda body, number: (200, Broken(b"{")) if number == 0 else chat("VERDICT: B"))
    assert endpoint.client(timeout=1.0).ask([{"role": "user", "content": "?"}]) == "VERDICT: B"
    assert len(endpoint.asked) == 2


def test_intervals_end_where_rates_do_and_not_before() -> None:
    found = summarise(np.array([[1, 1]] * 3, dtype=float), ["a", "b", "c"])
    assert found.win_rate.low < 0.7
    assert (found.win_rate.mean, found.win_rate.high) == (1, 1)
    turned = summarise(np.array([[1, 0], [0, 1], [1, 0]], dtype=float), ["a", "b", "c"])
    assert -1 <= turned.position_bias.low < turned.position_bias.mean < turned.position_bias.high == 1


def test_nobody_listens() -> None:
    with pytest.raises(JudgeError, match="no answer in 2 tries"):
        ChatClient("http://127.0.0.1:9/v1", "m", tries=2, wait=0.0).ask([])


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("VERDICT: A", "A"),
        ("verdict: b.", "B"),
        ("**VERDICT:** TIE", "TIE"),
        ("First I thought VERDICT: A, but no.\nVERDICT: B", "B"),
        ("Final verdict: A", "A"),
        ("VERDICT: A\nI hope this helps.", "A"),
        ("VERDICT: Absolutely", None),
        ("VERDICT: A/B", None),
        ("VERDICT: A or VERDICT: B", None),
        ("VERDICT: A response like B would be better, so the winner is B.", None),
        ("A", None),
        ("", None),
    ],
)
def test_verdicts_are_read_where_they_are_clear(answer: str, verdict: str | None) -> None:
    assert read_verdict(answer) == verdict


def test_half_decided_comparisons_count_half() -> None:
    """A win and a tie: three quarters of a win. Two wins against none: by unit, prompts with many comparisons count once."""
    found = summarise(np.array([[1, 0.5], [1, 0], [0, 0], [0, 0], [np.nan, 1]]), ["a", "b", "c", "c", "d"])
    assert found.win_rate.mean == pytest.approx((0.75 + 0.5 + 0) / 3)
    assert found.position_bias.mean == pytest.approx((0.5 + 1 + 0) / 3)
    assert (found.consistent, found.ties, found.failed) == (0.5, 0.25, 1)


def test_profiles_say_what_matters_most_first() -> None:
    text = profile_of(np.array([0.2, 0.799, 0.001]), ["warm", "short", "odd"], {"short": "brief answers"})
    assert text.splitlines()[1:] == ["- brief answers: 80 %", "- warm: 20 %"]


def test_conversations_are_judged_as_text() -> None:
    content = request_messages("p", [{"role": "user", "content": "hi"}], "first", "second")[1]["content"]
    assert "hi" in content
    assert content.index("first") < content.index("second")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost"}, "url: expected an address such as http://localhost:8000/v1, got 'localhost'"),
        ({"model": ""}, "model: expected the name"),
        ({"tries": 0}, "tries: expected at least 1, got 0"),
        ({"timeout": 0.0}, "timeout, wait: expected seconds above 0"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChatClient(**{"url": "http://x/v1", "model": "m", **options})


def test_nothing_to_judge(tmp_path: Path) -> None:
    client = ChatClient("http://x/v1", "m")
    with pytest.raises(ValueError, match="comparisons: expected at least one, got none"):
        judge(client, [], tmp_path)
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        judge(client, comparisons(1), tmp_path, workers=0)
