"""What cannot be a portfolio or a certificate fails before anything is computed with it."""

import numpy as np
import pytest

from palm.portfolio.form import on_simplex


def off_simplex_witnesses(record):
    """260 weights off the simplex, where OPT bends as much as one likes, as witnesses for as many policies."""
    pairs = np.array([[3, -2, 0], [-2, 3, 0], [0, -2, 3], [0, 3, -2], [-2, 0, 3]])
    rows = np.concatenate([scale * pairs + (1 - scale) / 3 for scale in range(1, 53)])
    record["certificate"]["incompatible"], record["certificate"]["size_at_least"] = rows.tolist(), 260


def as_weight(name, weight):
    return lambda record: record["certificate"].__setitem__(name, weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (off_simplex_witnesses, "0 of 260 weights in incompatible are on the simplex, got [3.0, -2.0, 0.0]"),
        (as_weight("incompatible", [[0.2, 0.3, 0.5], [np.nan, 0, 1]]), "1 of 2 weights in incompatible are on the simplex"),
        (as_weight("incompatible", [[0.5, 0.5]]), "0 of 1 weights in incompatible are on the simplex"),
        (as_weight("incompatible", [[10.0, 0, 0]]), "0 of 1 weights in incompatible are on the simplex"),
        (as_weight("captured_incompatible", [[10.0, 0, 0]]), "0 of 1 weights in captured_incompatible are on the simplex"),
        (as_weight("worst_weight", [np.nan, 0, 1]), "worst_weight is on the simplex of 3 bases, got [nan, 0.0, 1.0]"),
        (as_weight("worst_weight_delta", [2, -1, 0]), "worst_weight_delta is on the simplex of 3 bases, got [2.0, -1.0, 0.0]"),
        (as_weight("worst_weight_captured", [0.5, 0.5]), "worst_weight_captured is on the simplex of 3 bases, got [0.5, 0.5]"),
        (as_weight("worst_weight_captured_given_delta", [0, 0, 0]), "worst_weight_captured_given_delta is on the simplex"),
    ],
)
def test_every_weight_must_lie_on_the_simplex(tampered, change, message):
    for few in tampered(change):
        assert len(few) == 1
        assert message in few[0]


def test_rounding_is_allowed_and_no_more():
    weights = np.random.default_rng(0).dirichlet(np.ones(4), size=5)
    assert on_simplex(weights)
    assert on_simplex(weights * (1 + 1e-12))
    assert not on_simplex(weights * (1 + 1e-7))
    assert not on_simplex(np.array([[1 + 1e-7, -1e-7, 0]]))
    assert on_simplex(np.zeros((0, 3)))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("epsilon", np.nan),
        ("epsilon", -1),
        ("epsilon", True),
        ("delta", None),
        ("delta", np.inf),
        ("given_epsilon", np.inf),
        ("given_delta", -0.05),
        ("captured_gain", 1.1),
        ("captured_gain_given_delta", np.nan),
        ("size_at_least", 1.5),
        ("captured_size_at_least", -1),
        ("corners", 0),
    ],
)
def test_every_number_must_be_one_of_its_kind(tampered, name, number):
    for few in tampered(as_weight(name, number)):
        assert len(few) == 1
        assert few[0].startswith(f"{name} is {number}: ")


def test_a_certificate_that_is_none_is_told_apart_from_an_odd_one(tampered):
    for odd in ([], "fine", {"worst_weight": [1, 0, 0]}):
        for few in tampered(lambda record, odd=odd: record.__setitem__("certificate", odd)):
            assert any("the certificate is complete: " in what for what in few)


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        ("format", "palm.Portfolio/99", "the format is 'palm.Portfolio/99'"),
        ("format", None, "the format is None"),
        ("solves", -5, "solves is -5: a whole number, at least 0"),
        ("solves", 2.5, "solves is 2.5: a whole number, at least 0"),
        ("solves", "many", "solves is 'many': a whole number, at least 0"),
    ],
)
def test_format_and_solves_are_checked(tampered, name, found, message):
    for few in tampered(lambda record: record.__setitem__(name, found)):
        assert len(few) == 1
        assert few[0].startswith(message)


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        ("bases", ["one", "two", "one"], "bases are distinct names"),
        ("bases", ["one", "two", " "], "bases are distinct names"),
        ("bases", ["one", "two", 3], "bases are distinct names"),
        ("calibration", [[0, 1], [0, 1]], "calibration is null, or a least and a largest reward of 3 bases"),
        ("calibration", [[0, 1], [0, 1], [1, 0]], "calibration is null, or"),
        ("calibration", [[0, 1], [0, 1], [0, np.nan]], "calibration is null, or"),
        ("calibration", "none", "calibration is null, or"),
    ],
)
def test_names_and_calibration_are_checked(tampered, name, found, message):
    for few in tampered(lambda record: record.__setitem__(name, found)):
        assert len(few) == 1
        assert few[0].startswith(message)


@pytest.mark.parametrize("found", ["", "policy-1"])
def test_ids_are_checked(tampered, found):
    for few in tampered(lambda record: record["policies"][0].__setitem__("id", found)):
        assert few == ["ids are distinct names"]


def test_without_a_certificate_nothing_holds(tampered):
    for few in tampered(lambda record: record.__setitem__("certificate", None)):
        assert few == ["there is a certificate to check"]
