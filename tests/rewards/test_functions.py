import numpy as np
import pytest

from palm.features.pairs import PairFeatures
from palm.rewards import Given, score_texts
from palm.rewards.functions import resolve_function, source_files

TEXTS = [("hi", "one"), ("hi", "three words here"), ("you", "")]


def length(prompts, responses):
    return [len(response) for response in responses]


def words(prompts, responses):
    return np.array([len(response.split()) for response in responses])


def test_every_function_scores_every_text():
    np.testing.assert_array_equal(score_texts([length, words], TEXTS), [[3, 1], [16, 3], [0, 0]])
    assert score_texts([length], []).shape == (0, 1)


def test_functions_are_found_by_name():
    assert resolve_function("math:hypot")(3, 4) == 5
    np.testing.assert_array_equal(score_texts(["operator:add"], [(1.0, 2.0)] * 0), np.zeros((0, 1)))


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ([], "functions: expected at least one, got none"),
        ([length, lambda prompts, responses: [1.0]], r"<lambda>: expected 3 rewards, one per text, got the shape \(1,\)"),
        ([lambda prompts, responses: 0.5], r"<lambda>: expected 3 rewards, one per text, got the shape \(\)"),
        ([lambda prompts, responses: [1, np.nan, 2]], "<lambda>: expected finite rewards, got nan for text 1"),
        ([lambda prompts, responses: ["good", "bad", "ugly"]], "<lambda>: expected 3 rewards, one per text, got .*'good'"),
        ([lambda prompts, responses: [1, None, 2]], "<lambda>: expected finite rewards, got nan for text 1"),
        (["no-colon"], "functions: expected 'package.module:function', got 'no-colon'"),
        (["absent_module:f"], "functions: 'absent_module:f' could not be imported: No module named 'absent_module'"),
        (["math:absent"], "functions: 'math:absent' could not be imported"),
        (["math:pi"], "functions: expected 'math:pi' to be callable, it is a float"),
    ],
)
def test_functions_that_do_not_reward_are_named(functions, message):
    with pytest.raises(ValueError, match=message):
        score_texts(functions, TEXTS)


@pytest.fixture(scope="module")
def world():
    """60 users who weigh three given rewards, on scales of their own, and judge with a sharpness of 8."""
    rng = np.random.default_rng(0)
    low, width = np.array([0.0, -5.0, 100.0]), np.array([1.0, 20.0, 300.0])
    calibrated = rng.random((400, 3))
    calibrated[0], calibrated[1] = 0, 1
    weights = rng.dirichlet([2.0, 1.0, 1.0], size=60)
    user = np.repeat(np.arange(60), 60)
    first = rng.integers(400, size=len(user))
    second = (first + rng.integers(1, 400, size=len(user))) % 400
    logit = 8 * ((calibrated[first] - calibrated[second]) * weights[user]).sum(axis=1)
    wins = rng.random(len(user)) < 1 / (1 + np.exp(-logit))
    pairs = PairFeatures.from_items(
        [f"u{n:02d}" for n in user], low + width * calibrated, np.where(wins, first, second), np.where(wins, second, first)
    )
    return pairs, weights, calibrated


@pytest.fixture(scope="module")
def given(world):
    return Given(names=("brevity", "warmth", "order")).fit(world[0])


def test_what_users_weigh_and_how_sharply_is_recovered(world, given):
    pairs, weights, _ = world
    assert given.sharpness == pytest.approx(8, rel=0.2)
    assert given.users.ids.tolist() == pairs.ids.tolist()
    deviation = np.sqrt(np.diagonal(given.users.covariance, axis1=1, axis2=2))
    surprise = (given.users.mean - weights) / deviation
    assert np.abs(given.users.mean - weights).mean() < 0.1
    assert 0.85 < (np.abs(surprise) < 2).mean() <= 1  # the posterior knows how wrong it is
    np.testing.assert_allclose(given.population.mean, [0.5, 0.25, 0.25], atol=0.07)


def test_each_reward_is_calibrated_on_its_own(world, given):
    pairs, _, calibrated = world
    np.testing.assert_allclose(given.basis(pairs.items), calibrated, atol=1e-5)
    np.testing.assert_allclose(given.calibration.low, [0, -5, 100], atol=1e-4)
    np.testing.assert_allclose(given.calibration.high, [1, 15, 400], atol=1e-4)


def test_a_constant_reward_is_0_for_everyone():
    items = np.column_stack([np.linspace(0, 1, 8), np.full(8, 7.0)])
    pairs = PairFeatures.from_items(["a", "b"] * 2, items, np.array([7, 6, 5, 4]), np.array([0, 1, 2, 3]))
    model = Given().fit(pairs)
    np.testing.assert_array_equal(model.basis(items)[:, 1], 0)
    assert np.isfinite(model.users.mean).all()


def test_names_are_kept_and_counted(world, given):
    assert given.names == ("brevity", "warmth", "order")
    assert Given().fit(world[0]).names == ("basis-0", "basis-1", "basis-2")
    with pytest.raises(ValueError, match="names: expected 3 names, one per reward, got 2"):
        Given(names=("a", "b")).fit(world[0])


@pytest.mark.parametrize("concentration", [0.0, -1.0, np.nan])
def test_a_concentration_out_of_range_is_refused(world, concentration):
    with pytest.raises(ValueError, match=f"concentration: expected a positive number, got {concentration}"):
        Given(concentration=concentration).fit(world[0])


def test_function_that_raises_is_named() -> None:
    def forgetful(prompts: list[object], responses: list[object]) -> list[float]:
        return [{"known": 1.0}[response] for response in responses]  # type: ignore[index]

    with pytest.raises(ValueError, match="forgetful: the reward function raised KeyError: 'new'"):
        score_texts([forgetful], [("a prompt", "new")])


def test_source_files_of_functions_once_each() -> None:
    names = ["palm.data.planted:expert", "palm.data.planted:friend"]
    assert [path.name for path in source_files(names)] == ["planted.py"]
    with pytest.raises(ValueError, match="could not be imported"):
        source_files(["palm.nowhere:f"])
