"""Stages route and report: the portfolio as it is served, and what a person reads."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from palm.artifacts import finite_or_none, read_json, write_json, write_text
from palm.data.planted import basis_rewards
from palm.evaluation.measure import Measured
from palm.evaluation.report import write_report
from palm.pipeline.card import portfolio_card
from palm.pipeline.data_stages import PLANTED, SCRATCH, base_weights, planted_world
from palm.pipeline.fit_stage import read_main_model
from palm.pipeline.measure_stages import read_measured, read_results
from palm.pipeline.plan_stages import POOL, read_candidates, read_tensor
from palm.pipeline.policy_card import policy_card
from palm.pipeline.policy_stages import read_plan, read_policies
from palm.pipeline.report_data import collect
from palm.pipeline.runner import Context
from palm.policies.adapters import SERVED_BASE, served_adapters
from palm.portfolio import Portfolio
from palm.rewards.users import UserWeights
from palm.routing import Router
from palm.routing.served import View, serve

SERVED = "portfolio"


def run_route(context: Context) -> None:
    """The portfolio's folder as it is served, and where every user goes."""
    portfolio = Portfolio.from_pretrained(context.inputs["measure"])
    router = assemble(
        context,
        portfolio,
        context.folder / SERVED,
        adapters={name: context.inputs["train"] / name for name in portfolio.ids},
        measured={name: read_measured(context.inputs["measure"], name) for name in portfolio.ids},
        planned={row["id"]: row["planned_utility"] for row in read_results(context.inputs["measure"])["members"]},
    )

    users = {part: UserWeights.load(context.inputs["measure"], f"users-{part}") for part in ("seen", "unseen")}
    table: dict[str, Any] = {}
    for part, posterior in users.items():
        routes = router.route(posterior)
        for index, user in enumerate(posterior.ids):
            table[str(user)] = {
                "part": part,
                "policy": str(routes.policy[index]),
                "weight": posterior.mean[index].round(6).tolist(),
                "utility": float(routes.utility[index]),
                "regret_bound": finite_or_none(float(routes.regret_bound[index])),
                "confidence": float(routes.confidence[index]),
            }
    write_json(context.folder / "routes.json", table)
    write_json(context.folder / "served.json", _served(context, users))


def assemble(
    context: Context,
    portfolio: Portfolio,
    folder: Path,
    *,
    adapters: Mapping[str, Path],
    measured: Mapping[str, Measured],
    planned: Mapping[str, float],
) -> Router:
    """Write a portfolio as it is served: router, rewards, adapters, cards, and the base if it was made here.

    Args:
        context: gives the reward model and the base.
        portfolio: what is served.
        folder: where to.
        adapters: folder of each member's adapter.
        measured: what each member gave on the prompts that the portfolio's values are of.
        planned: utility that was planned for each member's own weight.
    """
    rule = context.config.route.rule if len(portfolio) else "expected"
    router = Router(portfolio, rule=rule, reward_model=read_main_model(context))
    router.save_pretrained(folder)
    base = "base" if context.config.base.model == SCRATCH else context.config.base.model
    for name, adapter in served_adapters(folder, portfolio.ids).items():
        shutil.copytree(adapters[name], adapter, dirs_exist_ok=True)
        card = policy_card(
            portfolio, name, adapter, base=base, measured=measured[name], planned=planned.get(name), seed=context.seed
        )
        write_text(adapter / "README.md", card)
    if context.config.base.model == SCRATCH:
        shutil.copytree(context.inputs["base"] / "model", folder / "base", dirs_exist_ok=True)
    write_json(folder / SERVED_BASE, {"name": portfolio.base_model, "weights": base_weights(context.inputs["base"])})
    write_text(folder / "README.md", portfolio_card(portfolio))
    return router


def _served(context: Context, users: dict[str, UserWeights]) -> dict[str, Any]:
    """Routed users against one policy for all: by learned rewards, and in the embedded world by the planted ones."""
    planned = read_plan(context)
    measured = {name: read_measured(context.inputs["measure"], name) for name in read_policies(context)}
    tensor = read_tensor(context.inputs["score"], "held_out")
    reference = tensor.rewards.sum(axis=1) / tensor.mask.sum(axis=1)[:, None]
    result: dict[str, Any] = {"learned": {}}
    if len(reference) < 2:
        return result
    for part, posterior in users.items():
        if len(posterior) == 0:
            continue
        chosen = View(measured, reference, posterior.mean)
        served = serve(planned, chosen, rule=context.config.route.rule, seed=context.seed)
        result["learned"][part] = served.record()
        if context.config.data.source == PLANTED and context.config.candidates.source != POOL:
            judged = _planted_view(context, measured, posterior)
            served = serve(planned, chosen, judged=judged, rule=context.config.route.rule, seed=context.seed)
            result.setdefault("planted", {})[part] = served.record()
    return result


def _planted_view(context: Context, measured: dict[str, Measured], users: UserWeights) -> View:
    """The policies' texts by the planted rewards, and the users' planted weights."""
    world = planted_world(context.config)
    texts = read_json(context.inputs["measure"] / "texts.json")
    candidates = read_candidates(context.inputs["sample"], "held_out")
    position = {user: index for index, user in enumerate(world.users)}

    def per_prompt(rows: list[list[Any]]) -> np.ndarray:
        rewards = basis_rewards([text for row in rows for text in row], world.bases)
        return rewards.reshape(len(rows), -1, len(world.bases)).mean(axis=1)

    return View(
        {name: Measured(per_prompt(texts[name]), policy.kl) for name, policy in measured.items()},
        per_prompt(candidates.responses),
        world.weights[[position[str(user)] for user in users.ids]],
    )


def run_report(context: Context) -> None:
    """report/index.html."""
    write_report(collect(context), context.folder / "index.html", plots=context.config.report.plots)
