"""What estimators check before a fit: their hyper-parameters' ranges, and that there are pairs."""

import math
from numbers import Integral, Real
from typing import TypeGuard

from palm.features.pairs import PairFeatures


def check_whole(options: object, *names: str, least: int = 1, optional: bool = False) -> None:
    """Whole numbers of at least `least`; None too where `optional`. NumPy's become Python's, which JSON can hold.

    Raises:
        ValueError: an attribute is another; the message names it.
    """
    for name in names:
        value = getattr(options, name)
        if optional and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name}: expected a whole number of at least {least}{' or None' if optional else ''}, got {value!r}")
        object.__setattr__(options, name, int(value))


def check_switch(options: object, *names: str) -> None:
    """True or False.

    Raises:
        ValueError: an attribute is another; the message names it.
    """
    for name in names:
        if not isinstance(getattr(options, name), bool):
            raise ValueError(f"{name}: expected True or False, got {getattr(options, name)!r}")


def check_positive(options: object, *names: str, optional: bool = False, infinite: bool = False) -> None:
    """Positive numbers, finite unless `infinite`; None too where `optional`.

    Raises:
        ValueError: an attribute is another; the message names it.
    """
    for name in names:
        value = getattr(options, name)
        if not (optional and value is None) and not (_is_number(value) and value > 0 and (infinite or value < math.inf)):
            raise ValueError(f"{name}: expected a positive number{' or None' if optional else ''}, got {value!r}")


def check_not_negative(options: object, *names: str) -> None:
    """Finite numbers of at least 0.

    Raises:
        ValueError: an attribute is another; the message names it.
    """
    for name in names:
        value = getattr(options, name)
        if not (_is_number(value) and 0 <= value < math.inf):
            raise ValueError(f"{name}: expected at least 0, got {value!r}")


def check_penalties(options: object, name: str) -> None:
    """Penalties to choose among: one at least, all positive.

    Raises:
        ValueError: they are others; the message names the attribute.
    """
    values = getattr(options, name)
    if (
        not isinstance(values, tuple | list)
        or not values
        or not all(_is_number(value) and 0 < value < math.inf for value in values)
    ):
        raise ValueError(f"{name}: expected positive numbers, one at least, got {values!r}")


def check_pairs(features: PairFeatures, seed: int) -> None:
    """Refuse a fit on no pairs, on something else, or with a seed that is none.

    Raises:
        ValueError: there are none, or the seed is not a whole number of at least 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"seed: expected a whole number of at least 0, got {seed!r}")
    if not isinstance(features, PairFeatures):
        raise ValueError(f"features: expected PairFeatures, got {type(features).__name__}")
    if len(features) == 0:
        raise ValueError("features: expected at least one pair, got none")


def as_switch(value: object) -> bool:
    """True or False as it is.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, bool):
        raise ValueError(f"expected True or False, got {value!r}")
    return value


def positive(value: object) -> float:
    """A number as it is, if it is positive and finite.

    Raises:
        ValueError: it is not.
    """
    if not (_is_number(value) and 0 < value < math.inf):
        raise ValueError(f"expected a positive number, got {value!r}")
    return float(value)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)
