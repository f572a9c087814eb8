"""palm.rewards.worth: what a question is worth, against sampling and against adaptive integration."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import entr, expit

from palm.rewards.worth import WIDE, design, information


def test_information_is_that_of_a_large_sample():
    rng = np.random.default_rng(0)
    for mean, variance in ((0.0, 1.0), (2.0, 0.5), (-1.0, 9.0), (0.3, 1e-6)):
        yes = 1 / (1 + np.exp(-(mean + np.sqrt(variance) * rng.normal(size=400_000))))

        def entropy(p):
            return -(p * np.log(p) + (1 - p) * np.log1p(-p))

        expected = entropy(yes.mean()) - entropy(yes).mean()
        assert information(np.array([mean]), np.array([variance]))[0] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("worth", [information, design])
def test_worth_does_not_depend_on_the_answer_and_is_nothing_where_nothing_is_unsure(worth):
    mean, variance = np.linspace(-5, 5, 11), np.linspace(0.1, 4, 11)
    np.testing.assert_allclose(worth(mean, variance), worth(-mean, variance), atol=1e-12)
    np.testing.assert_allclose(worth(mean, np.zeros(11)), 0, atol=1e-12)
    np.testing.assert_allclose(worth(np.array([1e4, -1e4]), np.array([1.0, 1.0])), 0, atol=1e-12)
    assert (np.diff(worth(np.zeros(11), variance)) > 0).all()


def integrated(mean, variance):
    """Mutual information by adaptive integration, cut where the sigmoid bends."""
    deviation = np.sqrt(variance)
    low, high = mean - 12 * deviation, mean + 12 * deviation
    cuts = [low, *sorted(cut for cut in (-30, -10, -5, 0, 5, 10, 30, mean) if low < cut < high), high]

    def expected(value):
        def weighed(logit):
            return value(logit) * np.exp(-0.5 * ((logit - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))

        return sum(quad(weighed, *ends, epsabs=1e-12, limit=300)[0] for ends in pairwise(cuts))

    yes = expected(expit)
    return entr(yes) + entr(1 - yes) - expected(lambda logit: entr(expit(logit)) + entr(expit(-logit)))


@pytest.mark.parametrize("variance", [0.01, 1.0, WIDE, WIDE + 1e-9, 10.0, 300.0, 4e3, 1e6])
def test_information_is_the_integral_at_every_variance(variance):
    means = np.array([0.0, 0.4, -2.0, 7.0, 25.0, -80.0])
    expected = [integrated(mean, variance) for mean in means]
    np.testing.assert_allclose(information(means, np.full(len(means), variance)), expected, atol=1e-6)


def test_information_grows_with_the_variance_up_to_one_bit():
    variance = np.concatenate([[0.0], np.geomspace(1e-3, 1e12, 400), [1e300, np.inf]])
    found = information(np.zeros(len(variance)), variance)
    assert (np.diff(found) > -1e-7).all()
    assert found[-1] == pytest.approx(np.log(2), abs=1e-12)
    assert found.max() <= np.log(2) + 1e-12
