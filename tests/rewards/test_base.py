import numpy as np
import pytest

from palm.artifacts import ArtifactError
from palm.rewards import Calibration, LoRe, PopulationModel, RewardModel, SimplexModel, load_reward_model
from palm.rewards.weighted import WeightedModel

RAW = np.column_stack([np.linspace(-3, 5, 101), np.linspace(10, 12, 101)])


def test_one_width_for_all_bases_keeps_what_users_weigh():
    calibration = Calibration.common_width(RAW, outside=0.0)
    np.testing.assert_allclose(calibration.low, [-3, 10])
    np.testing.assert_allclose(calibration.high, [5, 18])
    scores = calibration.apply(RAW)
    # utility differences of any weight are those of the raw rewards, in units of the width
    weight = np.array([0.3, 0.7])
    np.testing.assert_allclose(np.diff(scores @ weight), np.diff(RAW @ weight) / 8, atol=1e-12)


def test_a_few_outliers_do_not_squeeze_everyone_else():
    raw = RAW[:, :1].copy()
    raw[0] = -1e6
    calibration = Calibration.common_width(raw, outside=0.02)
    assert calibration.apply(raw)[0, 0] == 0
    assert np.ptp(calibration.apply(raw)[5:]) > 0.8


def test_each_width_of_its_own_uses_all_of_0_to_1():
    scores = Calibration.own_width(RAW).apply(RAW)
    np.testing.assert_allclose(scores.min(axis=0), 0)
    np.testing.assert_allclose(scores.max(axis=0), 1)


@pytest.mark.parametrize("make", [Calibration.own_width, Calibration.common_width])
def test_constant_rewards_become_0(make):
    calibration = make(np.full((5, 2), 3.0))
    np.testing.assert_array_equal(calibration.apply(np.full((4, 2), 3.0)), 0)


def test_rewards_beyond_the_range_are_clipped():
    calibration = Calibration(np.array([0.0]), np.array([2.0]))
    np.testing.assert_array_equal(calibration.apply(np.array([[-9.0], [1.0], [99.0]])), [[0], [0.5], [1]])


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (np.nan, 1.0), (0.0, np.inf)])
def test_ranges_that_are_none_are_refused(low, high):
    with pytest.raises(ValueError, match=rf"low, high: expected finite numbers with high above low, got \[{low:g}\.?\] and"):
        Calibration(np.array([low]), np.array([high]))


def test_a_method_without_bases_says_so():
    class Wordless(RewardModel):
        method = "Wordless"
        geometry = "latent"

    for call in (lambda: Wordless().basis(np.zeros((1, 2))), lambda: Wordless().margin(None, None)):
        with pytest.raises(TypeError, match="Wordless: has no"):
            call()
    with pytest.raises(TypeError, match="Wordless cannot be saved"):
        Wordless()._write(None)


def test_a_model_of_another_geometry_is_refused(small, tmp_path):
    LoRe(rank=2, penalty=1.0, personal_penalty=3.0).fit(small.seen).save_pretrained(tmp_path)
    assert isinstance(load_reward_model(tmp_path), SimplexModel)
    with pytest.raises(ArtifactError, match=r"reward\.json: expected a palm\.RewardModel/1 of geometry 'none'"):
        PopulationModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("source", ["./absent", "/absent/folder", "absent"])
def test_a_folder_that_is_not_there_is_named(source):
    with pytest.raises(ArtifactError, match=f"{source}: no such folder"):
        load_reward_model(source)


def test_saving_over_a_file_is_refused(small, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="file: expected a folder, this is a file"):
        LoRe(rank=1, penalty=1.0).fit(small.seen).save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("missing", ["raw", "width"])
def test_a_weighted_model_without_a_part_cannot_be_made(missing):
    parts = {"raw": lambda self, items: items, "width": property(lambda self: 1)}
    incomplete = type("Incomplete", (WeightedModel,), {name: part for name, part in parts.items() if name != missing})
    with pytest.raises(TypeError, match=f"abstract method '?{missing}'?"):
        incomplete()
    assert type("Complete", (WeightedModel,), parts)().width == 1
