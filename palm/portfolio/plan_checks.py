"""What `plan_portfolio` can be asked for: its arguments, checked one by one and together."""

from collections import Counter
from numbers import Integral, Real

import numpy as np

from palm.portfolio.oracle import Oracle, trains
from palm.portfolio.population import check_welfare
from palm.rewards.users import UserWeights

METHODS = ("cut", "lazy", "grid", "uniform", "random", "vertices")
_MOST_OF_SIZE = 5000
_LEAST = 1e-6  # gap: certificates are exact to 1e-9, and K = 2 takes some 700 policies for this


def check_search(
    epsilon: float, delta: float, size: int | None, method: str, select: str, weights: int, *, captured_gain: float | None = None
) -> None:
    """See that what to reach, and how, is in its range.

    Raises:
        ValueError: one is not, or epsilon and delta are both 0 and neither a size nor a captured gain is asked for.
    """
    for name, value in (("epsilon", epsilon), ("delta", delta)):
        if isinstance(value, bool) or not isinstance(value, Real) or not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name}: expected a finite number of at least 0, got {value!r}")
    if size is None and captured_gain is None and epsilon + delta <= 0:
        raise ValueError("epsilon, delta: expected one of them to be positive, got 0 and 0; no finite portfolio reaches that")
    if size is None and captured_gain is None and delta == 0 and epsilon < _LEAST:
        raise ValueError(f"epsilon: expected at least {_LEAST:g}, or a positive delta, got {epsilon:g}: too many policies")
    if size is not None and (isinstance(size, bool) or not isinstance(size, Integral) or size < 1):
        raise ValueError(f"size: expected a whole number of at least 1, got {size!r}")
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if select not in ("milp", "greedy", "population"):
        raise ValueError(f"select: expected 'milp', 'greedy' or 'population', got {select!r}")
    if isinstance(weights, bool) or not isinstance(weights, Integral) or weights < 1:
        raise ValueError(f"weights: expected a whole number of at least 1, got {weights!r}")


def check_pool(method: str, count: int, size: int | None) -> None:
    """See that a given number of policies can be chosen from so many: their gaps at as many weights must fit into memory.

    Raises:
        ValueError: there are more than 5,000 policies of fixed weights, and a size is asked for.
    """
    if size is not None and count > _MOST_OF_SIZE:
        name = "epsilon, delta: expected a grid" if method == "grid" else "weights: expected a pool"
        raise ValueError(
            f"{name} of at most {_MOST_OF_SIZE:,} weights to choose size = {size} policies from, got {count:,}; without a size, or "
            "with method 'cut', there is no such limit"
        )


def check_most_solves(most_solves: int, bases: int) -> None:
    """See that the vertices of the simplex can be solved, without which nothing is proven.

    Raises:
        ValueError: they cannot.
    """
    if isinstance(most_solves, bool) or not isinstance(most_solves, Integral) or most_solves < bases:
        raise ValueError(f"most_solves: expected a whole number of at least K = {bases}, got {most_solves!r}")


def check_names(names: tuple[str, ...], bases: int) -> None:
    """See that there is a name for every basis, each another, or none at all.

    Raises:
        ValueError: there is not.
    """
    listed = isinstance(names, tuple | list)
    if not listed or any(not isinstance(name, str) for name in names) or len(names) not in (0, bases):
        raise ValueError(f"names: expected {bases} names, one per basis, got {list(names) if listed else names!r}")
    if odd := [name for name in names if not name.strip() or not name.isprintable()]:
        raise ValueError(f"names: expected a line of text that can be printed for every basis, got {odd[0]!r}")
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"names: expected another name for every basis, got {repeated[0]!r} more than once")


def check_users_given(select: str, size: int | None, users: np.ndarray | UserWeights | None, welfare: float | None) -> None:
    """See that users and welfare are given where they choose, and nowhere else.

    Raises:
        ValueError: one is missing, superfluous or out of range.
    """
    if select == "population":
        if users is None:
            raise ValueError("users: expected their weights for select 'population', got None")
        if size is None:
            raise ValueError("size: expected how many policies to keep for select 'population', got None")
        check_welfare(welfare)
    elif users is not None:
        raise ValueError(f"users: expected none for select {select!r}, which covers every weight; use select 'population'")
    elif welfare is not None:
        raise ValueError(f"welfare: expected none for select {select!r}; it goes with users and select 'population'")


def check_trainings(oracle: Oracle, *, method: str, refine: bool) -> None:
    """Refuse what solves hundreds of weights where every solve is a training.

    Raises:
        ValueError: the oracle trains, and `refine` or a method for cheap oracles is asked for.
    """
    if trains(oracle) and (refine or method == "cut"):
        asked = "refine: expected False" if refine else "method: expected 'lazy' or fixed weights"
        raise ValueError(
            f"{asked} for an oracle that trains, got {refine if refine else method!r}, which solves hundreds of weights"
        )


def check_captured_alone(captured_gain: float, *, size: int | None, refine: bool) -> None:
    """Refuse a captured gain together with what makes another gap smallest.

    Raises:
        ValueError: `size` or `refine` is given, too.
    """
    if size is not None:
        raise ValueError(f"captured_gain, size: expected one of them, got {captured_gain} and {size}")
    if refine:
        raise ValueError(
            "captured_gain, refine: expected one of them: refinement shrinks the gap, which another weight may pay for"
        )
