"""palm.portfolio.curve: gap against size between what was found and what is proven."""

import itertools

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, PoolOracle, certify, hypervolume, plan_curve


@pytest.fixture(scope="module")
def curve(random_tensor):
    oracle = GibbsOracle(random_tensor(6, 3), 0.05)
    return oracle, plan_curve(oracle, sizes=range(5), effort=1e3)


def test_the_curve_falls_with_every_policy_and_stays_above_what_is_proven(curve):
    oracle, points = curve
    assert [point.size for point in points] == [0, 1, 2, 3, 4]
    gaps = [point.epsilon for point in points]
    assert all(later <= earlier for earlier, later in itertools.pairwise(gaps))
    assert gaps[-1] < 0.5 * gaps[0]
    for point in points:
        assert len(point.portfolio) <= point.size
        assert point.epsilon == pytest.approx(certify(point.portfolio, oracle).epsilon)
        assert 0.3 * point.epsilon <= point.epsilon_at_least <= point.epsilon


def test_the_reference_alone_is_a_point_and_its_bound_is_its_gap(curve):
    oracle, points = curve
    alone = points[0]
    assert len(alone.portfolio) == 0
    assert alone.epsilon == pytest.approx((oracle.optimum(np.eye(3)) / oracle.reference).max() - 1)
    assert alone.epsilon_at_least == pytest.approx(alone.epsilon, rel=1e-7)
    assert alone.hypervolume == pytest.approx(oracle.reference.prod())
    assert alone.front == ("reference",)


def test_volume_and_front_are_those_of_the_values_with_the_reference(curve):
    oracle, points = curve
    last = points[-1].portfolio
    value = np.vstack([last.value, oracle.reference])
    assert points[-1].hypervolume == pytest.approx(hypervolume(value))
    assert points[-1].hypervolume > points[0].hypervolume
    beaten = [(value >= row).all(axis=1).sum() > 1 for row in value]
    names = [*last.ids, "reference"]
    assert points[-1].front == tuple(name for name, is_beaten in zip(names, beaten, strict=True) if not is_beaten)


def test_two_opposed_bases_meet_their_bound_where_it_is_known(two_sided):
    points = plan_curve(two_sided(0.3), sizes=[0, 1, 2])
    for point in points[:2]:
        assert point.epsilon_at_least == pytest.approx(point.epsilon, rel=1e-7)
    assert points[2].epsilon < points[1].epsilon


def test_more_policies_than_are_needed_change_nothing():
    oracle = PoolOracle(np.eye(2) * 0.8 + 0.1, np.zeros(2), reference=np.array([0.3, 0.3]))
    points = plan_curve(oracle, sizes=[1, 2, 5])
    assert points[1].epsilon == points[2].epsilon == 0
    assert len(points[2].portfolio) == 2
    assert points[2].portfolio is points[1].portfolio  # what fewer policies reach is not searched for again
    assert points[0].epsilon_at_least > 0
    assert points[1].epsilon_at_least == points[2].epsilon_at_least == 0


def test_bounds_may_be_left_out_and_sizes_may_be_none(two_sided):
    assert [point.epsilon_at_least for point in plan_curve(two_sided(0.3), sizes=[0, 1], bounds=False)] == [0, 0]
    assert plan_curve(two_sided(0.3), sizes=[]) == []


@pytest.mark.parametrize("sizes", [[-1, 0], [2, 1], [1, 1], [1.5], [True], ["1"], 5, "3"])
def test_sizes_that_are_none_or_do_not_increase_are_refused(two_sided, sizes):
    with pytest.raises(ValueError, match="sizes: expected whole numbers of at least 0 in increasing order, got"):
        plan_curve(two_sided(0.3), sizes=sizes)
