"""palm.data.planted: attributes are read from the text, bases pull apart, labels follow the planted weights."""

import numpy as np
import pytest

from palm.data import planted
from palm.data.loaders import load_pairs
from palm.data.planted import ATTRIBUTES, BASES, attributes, basis_rewards, make_world, prompt_texts, write_corpus, write_response


def _measure(text: str) -> dict[str, float]:
    return dict(zip(ATTRIBUTES, attributes(text), strict=True))


@pytest.mark.parametrize(
    ("attribute", "low", "high"),
    [
        ("length", "Just mix the flour and water.", "Just mix the flour and water. " * 9),
        ("formality", "Just toss in the salt.", "One should incorporate the salt."),
        ("warmth", "Just toss in the salt.", "What a lovely idea! Just toss in the salt. I believe in you, my friend!"),
        ("hedging", "Just toss in the salt.", "Maybe you could toss in the salt."),
        ("structure", "Just toss in the salt.", "1) Just toss in the salt."),
        ("detail", "Just toss in the salt.", "Just toss in the salt about 10 grams."),
        ("closure", "Just toss in the salt.", "Just toss in the salt. In short, this is all you need."),
    ],
)
def test_attribute_is_measured_on_the_text(attribute: str, low: str, high: str) -> None:
    assert _measure(low)[attribute] < _measure(high)[attribute]


def test_attributes_of_one_response_counted_by_hand() -> None:
    """14 words; one formal marker beside one casual; 1 of 3 warm words; of 2 advices 1 hedged, 1 numbered, 1 with a number."""
    text = "1) One should knead it for 12 minutes. Maybe wait. Great job! Overall, done."
    assert len(text.split()) == 14
    expected = [14 / 36, 2 / 3, 1 / 3, 1 / 2, 1 / 2, 1 / 2, 1.0]  # formal: "one should", "knead"; casual: "maybe"
    np.testing.assert_allclose(attributes(text), expected)


@pytest.mark.parametrize("text", ["", " ", "!!!", "zzz", "1) 2) 3)", "Ünïcode 🎉 " * 500])
def test_any_text_has_attributes_in_range(text: str) -> None:
    measured = attributes(text)
    assert measured.shape == (len(ATTRIBUTES),)
    assert ((measured >= 0) & (measured <= 1)).all()


def test_generator_reaches_both_ends_of_every_attribute() -> None:
    measured = np.array([attributes(response) for _, response in write_corpus(600, np.random.default_rng(0))])
    assert (measured.std(axis=0) > 0.15).all()
    assert (np.quantile(measured, 0.05, axis=0) < 0.3).all()
    assert (np.quantile(measured, 0.95, axis=0) > 0.7).all()


def test_rewards_are_in_range_and_conflict() -> None:
    """No basis stands for another, the first three pull apart pairwise, and no response is best for two of them."""
    responses = [response for _, response in write_corpus(800, np.random.default_rng(1))]
    rewards = basis_rewards(responses)
    assert rewards.shape == (800, len(BASES))
    assert rewards.min() >= 0
    assert rewards.max() <= 1
    correlation = np.corrcoef(rewards.T)
    assert (correlation[~np.eye(len(BASES), dtype=bool)] < 0.75).all()
    assert (correlation[:3, :3][~np.eye(3, dtype=bool)] < 0.35).all()
    best = rewards.argmax(axis=0)
    for one in range(3):
        for other in set(range(3)) - {one}:
            assert rewards[best[one], other] < rewards[:, other].max() - 0.15


def test_reward_of_a_response_recounted() -> None:
    """brief wants length, hedging, detail at 0 and closure at 1: 5 words, nothing else, no closure."""
    assert basis_rewards(["Just toss in the salt."], ("brief",))[0, 0] == pytest.approx(1 - (5 / 36 + 0 + 0 + 1) / 4)
    assert basis_rewards([], ("brief", "coach")).shape == (0, 2)
    with pytest.raises(ValueError, match="bases: expected names out of expert, friend, brief, careful, coach, got 'kind'"):
        basis_rewards(["x"], ("brief", "kind"))


def test_given_functions_are_the_bases() -> None:
    responses = [response for _, response in write_corpus(20, np.random.default_rng(2))]
    rewards = basis_rewards(responses)
    for column, name in enumerate(BASES):
        np.testing.assert_array_equal(getattr(planted, name)([""] * 20, responses), rewards[:, column])


def test_prompts_are_distinct_and_answerable() -> None:
    prompts = prompt_texts()
    assert len(set(prompts)) == 640
    rng = np.random.default_rng(0)
    assert all(write_response(prompt, rng).strip() for prompt in prompts)
    with pytest.raises(ValueError, match="prompt: expected one of the world's prompts"):
        write_response("Who are you?", rng)


def test_no_pair_of_the_world_compares_equal_texts() -> None:
    """In this world two of 18,000 pairs did, before responses to a prompt were drawn until they differ."""
    world = make_world(users=300, pairs_per_user=60, seed=2)
    assert len(world.rows) == 18000
    assert all(row["chosen"] != row["rejected"] for row in world.rows)


def test_world_is_a_data_set() -> None:
    world = make_world(users=10, pairs_per_user=20)
    pairs = load_pairs(world.rows)
    assert set(pairs["user"]) == set(world.users)
    assert all(row["prompt"] == prompt_texts()[int(row["group"][-3:])] for row in pairs)


def test_each_user_judges_a_prompt_once() -> None:
    world = make_world(users=5, pairs_per_user=640)
    for user in world.users:
        assert len({row["prompt"] for row in world.rows if row["user"] == user}) == 640


def test_weights_are_on_the_simplex_and_concentration_decides_how_opinionated() -> None:
    opinionated = make_world(users=200, bases=4, pairs_per_user=1, concentration=0.1).weights
    mild = make_world(users=200, bases=4, pairs_per_user=1, concentration=10).weights
    for weights in (opinionated, mild):
        assert weights.shape == (200, 4)
        np.testing.assert_allclose(weights.sum(axis=1), 1)
        assert weights.min() >= 0
    assert opinionated.max(axis=1).mean() > 0.75 > 0.45 > mild.max(axis=1).mean()


def test_labels_follow_bradley_terry_frequencies() -> None:
    """Among pairs judged with probability near p, a share p is judged that way: four standard errors in every bin."""
    world = make_world(users=250, pairs_per_user=60, sharpness=6.0, seed=4)
    weight = dict(zip(world.users, world.weights, strict=True))
    chosen = basis_rewards([row["chosen"] for row in world.rows], world.bases)
    rejected = basis_rewards([row["rejected"] for row in world.rows], world.bases)
    of_user = np.array([weight[row["user"]] for row in world.rows])
    margin = ((chosen - rejected) * of_user).sum(axis=1)
    # Without the label: the pair's larger side by utility, chosen with probability sigmoid(sharpness |margin|).
    probability = 1 / (1 + np.exp(-6.0 * np.abs(margin)))
    kept = margin > 0
    edges = np.quantile(probability, np.linspace(0, 1, 9))
    bins = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, 7)
    for number in range(8):
        here = bins == number
        error = np.sqrt((probability[here] * (1 - probability[here])).sum()) / here.sum()
        assert (
            abs(kept[here & (margin != 0)].sum() + (margin[here] == 0).sum() / 2 - probability[here].sum()) / here.sum() < 4 * error
        )
    assert edges[-2] - edges[1] > 0.25, "the bins hardly differ, so this tests nothing"


def test_seed_decides_the_world() -> None:
    one, same, other = (make_world(users=6, pairs_per_user=5, seed=seed) for seed in (1, 1, 2))
    assert one.rows == same.rows
    assert (one.weights == same.weights).all()
    assert one.rows != other.rows
    assert not np.allclose(one.weights, other.weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"users": 0}, "users: expected at least 1, got 0"),
        ({"bases": 6}, "bases: expected at least 1 and at most 5, got 6"),
        ({"pairs_per_user": 641}, "pairs_per_user: expected at least 1 and at most 640, got 641"),
        ({"responses_per_prompt": 1}, "responses_per_prompt: expected at least 2, got 1"),
        ({"concentration": 0.0}, r"concentration: expected a positive number, got 0\.0"),
        ({"sharpness": float("nan")}, "sharpness: expected a positive number, got nan"),
    ],
)
def test_world_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_world(**options)
