"""What `palm show` and `palm diff` say, against portfolios whose story is known by hand."""

from dataclasses import replace

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, certify, confidence, optimal_on, plan_portfolio
from palm.portfolio.explain import diff, in_words, show


@pytest.fixture
def specialists(pool_oracle, portfolio_of):
    """Two specialists that leave 60 % to a generalist in the middle; each is best for half of all weights."""
    oracle = pool_oracle([[1, 0], [0, 1], [0.8, 0.8]], reference=[0.2, 0.2])
    portfolio = replace(portfolio_of(oracle, np.eye(2)), bases=("warmth", "brevity"))
    return replace(portfolio, certificate=certify(portfolio, oracle, delta=0.1, captured_bound=True))


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        ([1.0, 0.0, 0.0], "only a (1.00)"),
        ([0.6, 0.3, 0.1], "mostly a (0.60), some b (0.30), a little c (0.10)"),
        ([0.02, 0.0, 0.98], "only c (0.98)"),
        ([1 / 3, 1 / 3, 1 / 3], "all 3 bases alike"),
        ([0.2, 0.5, 0.3], "mostly b (0.50), some c (0.30), some a (0.20)"),
    ],
)
def test_weights_in_words(weight, words):
    assert in_words(np.array(weight), ("a", "b", "c")) == words


def test_one_basis_in_words():
    assert in_words(np.ones(1), ("a",)) == "only a (1.00)"


def test_who_is_served_by_whom_and_what_is_certified(specialists):
    text = "\n".join(show(specialists, users={"policy-0": 7, "reference": 1}))
    assert "2 policies over 2 bases (warmth, brevity), planned values" in text
    assert (
        "policy-0: made for only warmth (1.00); best for 50." in text
        or "policy-0: made for only warmth (1.00); best for 49." in text
    )
    assert "in the middle mostly warmth (0.75), some brevity (0.25); 7 users" in text
    assert "reference: the base model itself; best for none; 1 users" in text
    assert "a policy of one's own would give at most 40.0 % more beside an additive 0.1; worst for all 2 bases alike" in text
    assert "at least 50.0 % of what personalisation can gain" in text
    assert "with 0.1 in reward forgiven, at least 66.7 % of it" in text
    assert "no portfolio this good has fewer than 1 policy" in text
    assert "these are all the policies there are" in text


def test_what_one_more_policy_buys(specialists):
    curve = [{"size": size, "epsilon": gap, "captured_gain": 0.5} for size, gap in ((1, None), (2, 0.6), (3, 0.25))]
    text = "\n".join(show(specialists, curve=curve))
    assert "1: gap without bound, 50.0 % gained" in text
    assert "2: gap 60.0 %, 50.0 % gained  <- this size" in text
    assert text.endswith("one more policy lowers the gap from 60.0 % to 25.0 %")
    assert "one more" not in "\n".join(show(specialists, curve=curve[:2]))


def test_a_smaller_gap_of_the_same_size_is_told_apart_from_the_portfolios_own(random_tensor):
    portfolio = plan_portfolio(GibbsOracle(random_tensor(0, 3), 0.1), epsilon=0.1)
    curve = [{"size": len(portfolio), "epsilon": portfolio.certificate.epsilon, "captured_gain": 0.5}]
    assert show(portfolio, curve=curve)[-1].endswith("<- this size")
    curve[0]["epsilon"] -= 0.01
    own = 100 * portfolio.certificate.epsilon
    assert show(portfolio, curve=curve)[-1].endswith(f"<- this size; this portfolio leaves {own:.1f} %")
    assert show(replace(portfolio, origin="measured"), curve=curve)[-1].endswith("<- this size")


def test_what_no_portfolio_of_a_size_can_beat(specialists):
    rows = ((1, None, None), (2, 0.6, 0.31), (3, 0.25, 0.2))
    names = ("size", "epsilon", "epsilon_at_least")
    curve = [{**dict(zip(names, row, strict=True)), "captured_gain": 0.5} for row in rows]
    text = "\n".join(show(specialists, curve=curve))
    assert "1: gap without bound, 50.0 % gained" in text
    assert "2: gap 60.0 % (any 2: at least 31.0 %), 50.0 % gained  <- this size" in text
    assert text.endswith("from 60.0 % to 25.0 %; whatever it is, at least 20.0 % are left")


def test_portfolios_without_policies_certificate_or_bound(pool_oracle, portfolio_of, random_tensor):
    oracle = pool_oracle([[1, 0], [0, 1]], reference=[0, 0])
    empty = portfolio_of(oracle, np.zeros((0, 2)))
    assert "no certificate was made" in show(empty)
    assert any("would give possibly any factor more" in line for line in show(replace(empty, certificate=certify(empty, oracle))))
    assert any("reference: the base model itself; best for 100.0 % of all weights" in line for line in show(empty))


def test_confidence_is_told(random_tensor):
    planned = plan_portfolio(GibbsOracle(random_tensor(0, 2), 0.1), epsilon=0.05)
    rewards = random_tensor(1, 2, prompts=30)
    on = optimal_on(planned.weights, rewards, np.ones(rewards.shape[:2], dtype=bool), 0.1)
    lines = show(replace(planned, confidence=confidence(planned, on, draws=20)))
    assert any("over all prompts drawn like 30 on which nothing was chosen, each with 95.0 % confidence" in line for line in lines)
    assert any("whatever their distribution" in line for line in lines)
    bounds = confidence(planned, on, draws=20).bootstrap
    assert any(f"at most {100 * bounds.epsilon:.1f} % more and at most {bounds.delta:.4f} more" in line for line in lines)
    given = show(replace(planned, confidence=confidence(planned, on, draws=20, delta=0.01)))
    assert any("% more beside an additive 0.01 and at most" in line for line in given)
    bare = show(replace(planned, confidence=confidence(planned, on, draws=20, bernstein=False)))
    assert not any("whatever" in line for line in bare)


def test_few_prompts_are_told_and_the_bound_that_holds_anyway_comes_first(random_tensor):
    planned = plan_portfolio(GibbsOracle(random_tensor(0, 2), 0.1), epsilon=0.05)

    def told(prompts, **bernstein):
        rewards = random_tensor(1, 2, prompts=prompts)
        found = confidence(planned, optimal_on(planned.weights, rewards, np.ones(rewards.shape[:2], dtype=bool), 0.1), draws=20)
        lines = show(replace(planned, confidence=replace(found, bernstein=replace(found.bernstein, **bernstein))))
        start = next(place for place, line in enumerate(lines) if "over all prompts drawn like" in line)
        return [line.strip().partition(":")[0] for line in lines[start + 1 :]]

    resampled, anyway, nominal = "by resampling", "whatever their distribution", "95 % is nominal"
    assert told(30, epsilon=0.4) == [anyway, resampled, nominal]
    assert told(30, epsilon=np.inf, captured_gain=0.0) == [resampled, anyway, nominal]
    assert told(120, epsilon=0.4) == [resampled, anyway]


def test_a_change_of_what_is_stated_of_all_prompts_is_named(random_tensor):
    planned = plan_portfolio(GibbsOracle(random_tensor(0, 2), 0.1), epsilon=0.05)
    rewards = random_tensor(1, 2, prompts=30)
    found = confidence(planned, optimal_on(planned.weights, rewards, np.ones(rewards.shape[:2], dtype=bool), 0.1), draws=20)
    first = replace(planned, confidence=found)
    assert diff(first, replace(first)) == ["nothing changed"]
    better = replace(found, bootstrap=replace(found.bootstrap, epsilon=1e-6), level=0.9)
    assert diff(first, replace(first, confidence=better)) == [
        "confidence: level: 0.95 -> 0.9",
        f"confidence: bootstrap: epsilon: {found.bootstrap.epsilon:.4g} -> 1e-06",
    ]
    assert diff(first, planned) == ["confidence: one -> none"]
    assert diff(planned, first) == ["confidence: none -> one"]
    bare = replace(first, confidence=replace(found, bernstein=None))
    assert diff(first, bare) == ["confidence: bernstein: some -> none"]
    endless = replace(first, confidence=replace(found, high=replace(found.high, epsilon=np.inf)))
    assert diff(endless, endless) == ["nothing changed"]
    assert diff(first, endless) == [f"confidence: high: epsilon: {found.high.epsilon:.4g} -> inf"]


def test_equal_portfolios_differ_in_nothing(specialists):
    assert diff(specialists, replace(specialists)) == ["nothing changed"]


def test_every_change_is_named(specialists, pool_oracle, portfolio_of):
    oracle = pool_oracle([[1, 0], [0, 1], [0.8, 0.8]], reference=[0.2, 0.2])
    better = portfolio_of(oracle, np.array([[0.5, 0.5], [0.0, 1.0]]))
    better = replace(better, bases=specialists.bases, kl=0.2, origin="measured", ids=("policy-0", "policy-9"))
    lines = diff(specialists, replace(better, certificate=certify(better, oracle)))
    for line in (
        "origin: planned -> measured",
        "kl: 0.0 -> 0.2",
        "policy gone: policy-1",
        "policy-0: weight: only warmth (1.00) -> all 2 bases alike",
        "policy-0: value of warmth: 1.0000 -> 0.8000",
        "policy-0: value of brevity: 0.0000 -> 0.8000",
        "policy new: policy-9, made for only brevity (1.00)",
        "epsilon: 0.4 -> 0.25",
        "given_delta: 0.1 -> 0",
    ):
        assert line in lines
    assert lines[-1].startswith("served utility: +0.07")  # 0.045 + 0.045 - 0.02, by integration
    assert "better for 60." in lines[-1]
    assert "(most +0.29" in lines[-1]
    assert "(most -0.19" in lines[-1]


def test_bases_and_certificates_that_come_and_go(specialists, random_tensor):
    three = plan_portfolio(GibbsOracle(random_tensor(0, 3), 0.2), epsilon=0.2, names=("warmth", "brevity", "structure"))
    lines = diff(specialists, replace(three, certificate=None))
    assert "basis new: structure" in lines
    assert "certificate: one -> none" in lines
    assert "basis gone: structure" in diff(three, specialists)
    assert not any(line.startswith("served") for line in lines)
