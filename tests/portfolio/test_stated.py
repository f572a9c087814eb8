"""What is stated of all prompts holds as it was made, and does not once it was changed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, Portfolio, certify, confidence, held_out_confidence, plan_portfolio
from palm.portfolio.on_prompts import OnPrompts, optimal_on
from palm.portfolio.verify import FAILS, OPEN, sound, verify
from palm.rewards import RewardTensor


@pytest.fixture(scope="module")
def stated(tmp_path_factory, random_tensor):
    """A folder with a plan, what other prompts say of it, and both tensors."""
    folder = tmp_path_factory.mktemp("stated")
    rewards = random_tensor(0, 3, prompts=52, candidates=8)
    mask = np.random.default_rng(0).random(rewards.shape[:2]) < 0.8
    mask[:, :2] = True
    rewards = np.where(mask[:, :, None], rewards, 0)
    for name, rows in (("rewards", slice(0, 12)), ("held_out", slice(12, None))):
        RewardTensor(rewards[rows], mask[rows]).save(folder / f"{name}.safetensors")
    planned = plan_portfolio(GibbsOracle(rewards[:12], 0.05, mask=mask[:12]), epsilon=0.1, delta=0.01)
    said = held_out_confidence(planned, rewards[12:], mask[12:], 0.05, delta=0.01)
    replace(planned, confidence=said).save_pretrained(folder)
    return folder


def check(folder, tensors, *, held_out=True):
    return verify(
        folder,
        tensors / "rewards.safetensors",
        held_out=tensors / "held_out.safetensors" if held_out else None,
        weights=1000,
        starts=5,
    )


def failures(lines):
    return [line.what for line in lines if line.verdict == FAILS]


def test_as_it_was_made_it_holds_and_what_is_not_counted_again_is_said(stated):
    lines = check(stated, stated)
    assert failures(lines) == []
    assert sum("the estimate of" in line.what for line in lines) == 3
    assert [line.what for line in lines if line.verdict == OPEN] == [
        "confidence: that its bounds allow enough for sampling was not counted again, only that they leave some room"
    ]
    assert sum("leaves room for sampling" in line.what for line in lines) == 4
    bare = check(stated, stated, held_out=False)
    assert sound(bare)
    assert "what 40 prompts say of all was not counted again" in next(line.what for line in bare if line.verdict == OPEN)


@pytest.fixture
def forged(stated, tmp_path):
    """change -> what fails, with and without the held-out rewards, after `change` had the section."""

    def forge(change):
        record = json.loads((stated / "portfolio.json").read_text())
        change(record["confidence"])
        (tmp_path / "portfolio.json").write_text(json.dumps(record))
        return [failures(check(tmp_path, stated, held_out=held_out)) for held_out in (True, False)]

    return forge


def put(part, name, number):
    return lambda section: section[part].__setitem__(name, number)


def at_the_estimate(part, name, share=0.0):
    """The end of an interval or a bound moved to the estimate, or so that a share of its distance is left."""

    def change(section):
        section[part][name] = section["estimate"][name] + share * (section[part][name] - section["estimate"][name])

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("bootstrap", "epsilon", 1e-6), "no bound of bootstrap is better than the estimate, but of epsilon"),
        (put("bootstrap", "captured_gain", 1.0), "no bound of bootstrap is better than the estimate, but of captured_gain"),
        (put("bernstein", "delta", 1e-6), "no bound of bernstein is better than the estimate, but of delta"),
        (at_the_estimate("high", "epsilon"), "intervals reach beyond the bounds by resampling, but of epsilon"),
        (at_the_estimate("low", "captured_gain"), "intervals reach beyond the bounds by resampling, but of captured_gain"),
        (put("high", "delta", 0.0), "estimate is not above high, but of delta"),
        (put("low", "epsilon", 9.0), "low is not above estimate, but of epsilon"),
        (put("low", "captured_gain", 0.99), "low is not above estimate, but of captured_gain"),
        (put("bootstrap", "epsilon", float("nan")), "bootstrap has numbers that gaps can have, but of epsilon nan"),
        (put("estimate", "captured_gain", None), "estimate has numbers that gaps can have, but of captured_gain None"),
        (lambda section: section.update(level=1.0), "level is 1.0: above 0 and below 1"),
        (lambda section: section.update(level=0.99999), "1000 draws have a quantile at the level 0.99999"),
        (lambda section: section.update(prompts=1), "prompts is 1: a whole number, at least 2"),
        (lambda section: section.update(draws=0.5), "draws is 0.5: a whole number"),
        (lambda section: section.update(pairs=0), "pairs is 0: a whole number, at least 1"),
        (lambda section: section.update(given_delta=-1), "given_delta is -1: not negative"),
        (lambda section: section.pop("bootstrap"), "confidence is complete: KeyError('bootstrap')"),
    ],
)
def test_a_changed_section_fails_without_the_rewards(forged, change, message):
    for few in forged(change):
        assert any(message in what for what in few), few


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda section: section.update(prompts=41), "stated from 41 prompts; the rewards held out are of 40"),
        (lambda section: section.update(given_delta=0.02), "the estimate of epsilon"),
        (lambda section: section["estimate"].update(epsilon=section["estimate"]["epsilon"] - 1e-5), "the estimate of epsilon"),
        (lambda section: section["estimate"].update(delta=section["estimate"]["delta"] + 1e-5), "the estimate of delta"),
        (lambda section: section["estimate"].update(captured_gain=section["estimate"]["captured_gain"] + 1e-5), "of captured_gain"),
    ],
)
def test_an_estimate_is_counted_again_on_the_held_out_prompts(forged, change, message):
    counted, bare = forged(change)
    assert any(message in what for what in counted), counted
    assert bare == []


@pytest.mark.parametrize(
    ("part", "name", "share"),  # Bernstein's bounds are wide, and say nothing of the other gaps from so few prompts
    [
        *((part, name, 0.05) for part in ("bootstrap", "low", "high") for name in ("epsilon", "delta", "captured_gain")),
        ("bernstein", "delta", 0.05),
    ],
)
def test_a_bound_moved_to_the_estimate_leaves_no_room_for_sampling(forged, part, name, share):
    counted, _ = forged(at_the_estimate(part, name, share))
    assert any(f"{part} leaves room for sampling, but of {name}" in what for what in counted), counted


@pytest.mark.parametrize(("name", "number"), [("epsilon", 0.1), ("captured_gain", 0.7)])
def test_bernsteins_inequality_does_not_say_so_much_from_so_few_prompts(forged, name, number):
    counted, bare = forged(put("bernstein", name, number))
    assert any(f"bernstein leaves room for sampling, but of {name}" in what for what in counted), counted
    assert all("leaves room" not in what for what in bare)


def test_measured_values_are_taken_as_said(stated, tmp_path):
    tensor = RewardTensor.load(stated / "held_out.safetensors")
    planned = Portfolio.from_pretrained(stated)
    on = optimal_on(planned.weights, tensor.rewards, tensor.mask, planned.kl)
    on = OnPrompts(on.rewards, on.mask, on.kl, 0.98 * on.value, on.cost)
    oracle = GibbsOracle(tensor.rewards, planned.kl, mask=tensor.mask)
    made = replace(planned, value=on.value.mean(axis=1), cost=on.cost.mean(axis=1), reference=oracle.reference, origin="measured")
    said = confidence(made, on, bernstein=False, draws=100)
    replace(made, certificate=certify(made, oracle), confidence=said).save_pretrained(tmp_path)
    where = stated / "held_out.safetensors"
    assert failures(verify(tmp_path, where, held_out=where, weights=1000, starts=5)) == []
    said = replace(said, estimate=replace(said.estimate, delta=said.estimate.delta - 1e-4))
    replace(made, certificate=certify(made, oracle), confidence=said).save_pretrained(tmp_path)
    assert any("of delta" in what for what in failures(verify(tmp_path, where, held_out=where, weights=1000, starts=5)))
