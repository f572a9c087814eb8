"""What a configuration's section `plan` asks of the planner: checked, and planned."""

from collections.abc import Sequence

import numpy as np

from palm.pipeline.config import PlanConfig
from palm.pipeline.runner import PipelineError
from palm.portfolio import CurvePoint, GibbsOracle, Portfolio, plan_curve, plan_portfolio
from palm.portfolio.gains import check_captured_gain
from palm.portfolio.plan_checks import check_captured_alone, check_most_solves, check_search
from palm.portfolio.population import check_welfare
from palm.progress import Track


def check_plan(wish: PlanConfig, *, users: bool) -> None:
    """Refuse what the planner would, before anything that it needs is made.

    Args:
        wish: the section.
        users: whether there are any to plan for.

    Raises:
        PipelineError: a setting is out of range, or two of them exclude each other.
    """
    if not wish.kl > 0:
        raise PipelineError(f"plan.kl: expected a positive number, got {wish.kl}")
    if not wish.curve >= 0:
        raise PipelineError(f"plan.curve: expected at least 0, got {wish.curve}")
    try:
        check_search(wish.epsilon, wish.delta, wish.size, wish.method, wish.select, wish.weights, captured_gain=wish.captured_gain)
        check_most_solves(wish.most_solves, 1)
        if wish.captured_gain is not None:
            check_captured_gain(wish.captured_gain, wish.delta)
            check_captured_alone(wish.captured_gain, size=wish.size, refine=wish.refine)
        if wish.select == "population":
            check_welfare(wish.welfare)
    except ValueError as error:
        names, _, said = str(error).partition(":")
        raise PipelineError(f"{', '.join(f'plan.{name}' for name in names.split(', '))}:{said}") from error
    if wish.method == "grid" and not (wish.epsilon > 0 and wish.delta > 0):
        raise PipelineError(
            "plan.epsilon, plan.delta: expected both to be positive for plan.method grid, whose size they set, "
            f"got {wish.epsilon} and {wish.delta}"
        )
    if wish.select == "population" and not users:
        raise PipelineError("plan.select: expected milp or greedy, as there are no users here, got population")
    if wish.select == "population" and wish.size is None:
        raise PipelineError("plan.size: expected how many policies to keep for plan.select population, got null")
    if wish.select != "population" and wish.welfare is not None:
        raise PipelineError(f"plan.welfare: expected null for plan.select {wish.select}; it goes with population")


def plan_as_wished(
    oracle: GibbsOracle,
    wish: PlanConfig,
    *,
    names: Sequence[str],
    users: np.ndarray | None = None,
    seed: int,
    track: Track,
) -> tuple[Portfolio, list[CurvePoint]]:
    """The portfolio, and gap against size (empty if none is wanted).

    Args:
        oracle: on the prompts to plan on.
        wish: the section, checked.
        names: of the bases.
        users: (U, K) weights, for `select: population`.
        seed: of random weights.
        track: for a progress bar.
    """
    with track("planning", None) as advance:
        portfolio = plan_portfolio(
            oracle,
            epsilon=wish.epsilon,
            delta=wish.delta,
            captured_gain=wish.captured_gain,
            size=wish.size,
            method=wish.method,
            select=wish.select,
            users=users if wish.select == "population" else None,
            welfare=wish.welfare,
            refine=wish.refine,
            weights=wish.weights,
            most_solves=wish.most_solves,
            seed=seed,
            names=tuple(names),
            advance=lambda line: advance(1),
        )
        curve = plan_curve(oracle, sizes=range(wish.curve + 1), advance=lambda line: advance(1)) if wish.curve else []
    return portfolio, curve
