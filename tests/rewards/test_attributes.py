"""palm.rewards.attributes: scored attributes are basis rewards that a portfolio is planned on; on human scores too, if at hand."""

from pathlib import Path

import numpy as np
import pytest

import palm
from palm.data.attributes import load_scores
from palm.rewards import Calibration, attribute_rewards

SHARED = Path(__file__).parents[2] / "../shared/data/nlg_multiattr"
TOPICAL = ("understandability", "naturalness", "coherence", "engagingness", "groundedness", "overall")
ROWS = [
    {"prompt": prompt, "response": response, "quality": quality, "tone": tone, "same": 4}
    for prompt, response, quality, tone in (
        ("Why?", "Because.", 3.0, 100),
        ("Why?", "No idea.", 2.0, 300),
        ("Why?", "Ask him.", -1.0, 200),
        ("How?", "Slowly.", 0.0, 500),
        ("How?", "Fast.", 1.0, 100),
    )
]


def test_each_attribute_uses_all_of_0_to_1_whatever_its_scale_and_missing_candidates_are_masked():
    rewards, calibration = attribute_rewards(load_scores(ROWS, ["quality", "tone", "same"]))
    np.testing.assert_allclose(rewards.rewards[0], [[1, 0, 0], [0.75, 0.5, 0], [0, 0.25, 0]])
    np.testing.assert_allclose(rewards.rewards[1], [[0.25, 1, 0], [0.5, 0, 0], [0, 0, 0]])
    assert rewards.mask.tolist() == [[True, True, True], [True, True, False]]
    np.testing.assert_array_equal(calibration.low, [-1, 100, 4])
    np.testing.assert_array_equal(calibration.high[:2], [3, 500])


def test_other_prompts_are_scored_on_the_same_scale():
    calibration = attribute_rewards(load_scores(ROWS, ["quality", "tone"]))[1]
    other = [{**row, "quality": row["quality"] + 1} for row in ROWS]
    rewards = attribute_rewards(load_scores(other, ["quality", "tone"]), calibration=calibration)[0]
    np.testing.assert_allclose(rewards.rewards[0, :, 0], [1, 1, 0.25])  # beyond the range is clipped
    with pytest.raises(ValueError, match="calibration: expected 1 attributes as in the scores, got 2"):
        attribute_rewards(load_scores(ROWS, ["tone"]), calibration=calibration)


def test_a_plan_on_two_prompts_is_what_the_closed_form_says():
    """The masked candidate takes no part: opt(w) = kl mean_x log mean_n exp(w.phi_n / kl) over what each prompt has."""
    rewards, _ = attribute_rewards(load_scores(ROWS, ["quality", "tone"]))
    oracle = palm.GibbsOracle(rewards.rewards, kl=0.2, mask=rewards.mask)
    weight = np.array([0.3, 0.7])
    utilities = [[0.3, 0.3 * 0.75 + 0.7 * 0.5, 0.7 * 0.25], [0.3 * 0.25 + 0.7, 0.3 * 0.5]]
    expected = np.mean([0.2 * np.log(np.mean(np.exp(np.array(row) / 0.2))) for row in utilities])
    assert oracle.optimum(weight[None])[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.skipif(not SHARED.exists(), reason="human scores are not at hand")
def test_human_scores_of_six_attributes_are_planned_and_certified():
    """Topical-Chat: 60 contexts of 6 responses each; the certificate holds at weights that no search looked at."""
    scored = load_scores(SHARED / "topical_chat_scores.jsonl.gz", [f"scores.{name}" for name in TOPICAL])
    assert scored.names == TOPICAL
    assert scored.candidates.counts == [6] * 60
    rewards, calibration = attribute_rewards(scored)
    assert isinstance(calibration, Calibration)
    assert (rewards.rewards.min(axis=(0, 1)) == 0).all()
    assert (rewards.rewards.max(axis=(0, 1)) == 1).all()
    oracle = palm.GibbsOracle(rewards.rewards, kl=0.1, mask=rewards.mask)
    portfolio = palm.plan_portfolio(oracle, size=3, names=scored.names)
    proof = portfolio.certificate
    assert len(portfolio) == 3
    assert 0 < proof.epsilon < 0.1
    assert 0 < proof.captured_gain < 1
    weights = np.random.default_rng(0).dirichlet(np.full(6, 0.5), size=500)
    served = np.maximum((weights @ portfolio.value.T - portfolio.cost).max(axis=1), weights @ portfolio.reference)
    assert ((1 + proof.epsilon) * served >= oracle.optimum(weights) - 1e-9).all()


@pytest.mark.skipif(not SHARED.exists(), reason="human scores are not at hand")
def test_human_scores_of_uneven_pools_are_planned_and_certified():
    """SFHOT: 875 rows of 398 acts; the same sentence of two systems is one candidate, and pools of one are left out."""
    scored = load_scores(SHARED / "sfhot_scores.jsonl.gz", ["scores.informativeness", "scores.naturalness", "scores.quality"])
    counts = scored.candidates.counts
    assert min(counts) == 2
    assert max(counts) > 4
    rewards, _ = attribute_rewards(scored)
    assert rewards.mask.sum() == sum(counts) == len(scored.scores)
    portfolio = palm.plan_portfolio(palm.GibbsOracle(rewards.rewards, kl=0.1, mask=rewards.mask), size=2)
    assert 0 < portfolio.certificate.epsilon < 0.1
