"""Stage measure: what the trained policies really give on the held-out prompts, and how well users are predicted."""

from pathlib import Path
from typing import Any

import numpy as np

from palm.arrays import read_arrays, write_arrays
from palm.artifacts import read_json, write_json
from palm.data.candidates import Candidates
from palm.data.planted import basis_rewards
from palm.data.schema import Text, plain_text
from palm.evaluation import accuracy, compare, coverage, diversity
from palm.evaluation.measure import Measured, from_pool, gap_interval, measured_portfolio, on_prompts
from palm.features.pairs import PairFeatures
from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_logprobs
from palm.pipeline.data_stages import PLANTED, base_name, planted_world, read_base, read_split_features
from palm.pipeline.fit_stage import read_main_model, read_method
from palm.pipeline.plan_stages import POOL, oracle_for, read_candidates, read_tensor
from palm.pipeline.policy_stages import read_plan, read_policies
from palm.pipeline.policy_texts import write_and_score
from palm.pipeline.runner import Context
from palm.policies.adapters import Members
from palm.policies.candidates import encode_candidates, flatten
from palm.portfolio import GibbsOracle, Portfolio
from palm.rewards import RewardTensor
from palm.rewards.base import RewardModel
from palm.rewards.users import UserWeights
from palm.seeds import derive_seed


def run_measure(context: Context) -> None:
    """Values and KL costs of the trained policies on held-out prompts; accuracy, coverage, diversity."""
    planned = read_plan(context)
    tensor = read_tensor(context.inputs["score"], "held_out")
    oracle = oracle_for(tensor, planned.kl)
    names = list(read_policies(context))
    measured, texts = measure_policies(context, names, tensor)
    for name, policy in measured.items():
        write_arrays(context.folder / f"values-{name}.safetensors", {"value": policy.value, "kl": policy.kl})
    write_json(context.folder / "texts.json", texts)

    policies = [measured[name] for name in planned.ids]
    portfolio = measured_portfolio(planned, policies, oracle)
    portfolio.save_pretrained(context.folder)
    gap = gap_interval(on_prompts(tensor, policies, planned.kl), draws=context.config.measure.draws, seed=context.seed)
    users = _user_weights(context)
    everyone = np.vstack([posterior.mean for posterior in users.values() if len(posterior)])
    written = {name: [plain_text(response) for responses in texts[name] for response in responses] for name in planned.ids}
    results: dict[str, Any] = {
        "gap": {name: estimate.record() for name, estimate in gap.items()},
        "members": _members(planned, portfolio, measured, oracle),
        "singles": _singles(context, measured, oracle),
        "accuracy": _accuracies(context, users),
        "coverage": coverage(portfolio, oracle, everyone, seed=context.seed).record(),
        "diversity": diversity(portfolio, written, users=everyone, seed=context.seed).record(),
    }
    if context.config.data.source == PLANTED and context.config.candidates.source != POOL:
        results["truth"] = _truth(context, names, texts, measured, tensor)
    write_json(context.folder / "measure.json", results)
    for name, posterior in users.items():
        posterior.save(context.folder, f"users-{name}")


def read_measured(folder: Path, name: str) -> Measured:
    """What the policy `name` gave on the held-out prompts."""
    arrays = read_arrays(folder / f"values-{name}.safetensors")
    return Measured(arrays["value"], arrays["kl"])


def measure_policies(
    context: Context, names: list[str], tensor: RewardTensor
) -> tuple[dict[str, Measured], dict[str, list[list[Text]]]]:
    """Each policy's measured values, and its texts: generated, or the pool's responses it favours most.

    Adapters are read from the folder of the stage train, unfinished work is kept in the context's.
    """
    if not names:
        return {}, {}
    config = context.config
    candidates = read_candidates(context.inputs["sample"], "held_out")
    base = read_base(context)
    adapters = {name: context.inputs["train"] / name for name in names}
    members = Members(base, adapters, base_model=base_name(context.inputs["base"]))
    if config.candidates.source == POOL:
        found = _on_pool(context, base, members, candidates, tensor)
    else:
        seed = derive_seed(context.seed, "samples")
        written = {
            name: write_and_score(context, members, name, candidates.prompts, count=config.measure.samples, seed=seed)
            for name in names
        }
        found = {name: one.measured() for name, one in written.items()}, {name: one.texts for name, one in written.items()}
    members.close()
    return found


def _on_pool(
    context: Context, base: LanguageModel, members: Members, candidates: Candidates, tensor: RewardTensor
) -> tuple[dict[str, Measured], dict[str, list[list[Text]]]]:
    """Policies that may only give a prompt's candidates: what they make of those, and the three that each favours most."""
    measured: dict[str, Measured] = {}
    texts: dict[str, list[list[Text]]] = {}
    encoded = flatten(
        *encode_candidates(base.tokenizer, candidates.prompts, candidates.responses, max_length=context.config.train.max_length)
    )
    with members.without_adapter():
        reference = response_logprobs(base, encoded)
    for name in members.ids:
        ratio = np.zeros(tensor.mask.shape)
        with members.policy(name) as policy, context.track(f"measuring {name}", len(encoded)) as advance:
            ratio[tensor.mask] = response_logprobs(policy, encoded, advance=advance) - reference
        measured[name] = from_pool(tensor, ratio)
        order = np.argsort(-np.where(tensor.mask, ratio, -np.inf), axis=1)[:, :3]
        texts[name] = [
            [responses[index] for index in row if index < len(responses)]
            for responses, row in zip(candidates.responses, order, strict=True)
        ]
    return measured, texts


def _user_weights(context: Context) -> dict[str, UserWeights]:
    """Posterior weights of the seen users, and of the unseen from their few pairs."""
    model = read_main_model(context)
    features = read_split_features(context.inputs["data"], context.inputs["embed"])
    unseen = np.unique(np.concatenate([features["unseen_context"].user, features["unseen_test"].user]))
    return {"seen": model.seen, "unseen": model.infer(features["unseen_context"], ids=unseen)}


def _accuracies(context: Context, users: dict[str, UserWeights]) -> dict[str, Any]:
    """Every fitted method on the seen users' and the unseen users' held-out pairs, with what the main one gains on each."""
    features = read_split_features(context.inputs["data"], context.inputs["embed"])
    main = context.config.rewards.method
    table: dict[str, Any] = {}
    found = {}
    for name in [main, *context.config.rewards.compare]:
        model = read_method(context, name)
        if model is None:
            continue
        table[name] = {}
        for part in ("seen", "unseen"):
            held_out = features[f"{part}_test"]
            if len(held_out) == 0:
                continue
            own = users[part].select(held_out.ids) if name == main else _own_users(model, part, features, held_out.ids)
            found[name, part] = accuracy(model, held_out, own, seed=context.seed)
            table[name][part] = found[name, part].record()
            if name != main:
                table[name][part]["gain_of_main"] = compare(found[main, part], found[name, part], seed=context.seed).record()
    return table


def _own_users(model: RewardModel, part: str, features: dict[str, PairFeatures], ids: np.ndarray) -> UserWeights:
    """Users as a model itself sees them: the seen from its fit, the unseen from their few pairs."""
    if part == "seen" and model.users is not None:
        return model.users.select(ids)
    return model.infer(features["unseen_context"], ids=ids)


def _members(planned: Portfolio, portfolio: Portfolio, measured: dict[str, Measured], oracle: GibbsOracle) -> list[dict[str, Any]]:
    """Planned against measured for every member, at its own weight."""
    rows = []
    on_held_out = planned.revalued(oracle)
    for position, name in enumerate(planned.ids):
        weight = planned.weights[position]
        base = float(weight @ oracle.reference)
        best = float(oracle.optimum(weight[None, :])[0])
        utility = measured[name].utility(weight, planned.kl)
        rows.append(
            {
                "id": name,
                "weight": weight.tolist(),
                "reference_utility": base,
                "planned_utility": best,
                "planned_value": on_held_out.value[position].tolist(),
                "planned_cost": float(on_held_out.cost[position]),
                "measured_utility": utility.record(),
                "measured_value": portfolio.value[position].tolist(),
                "measured_cost": float(portfolio.cost[position]),
                "measured": measured[name].record(),
                "share_of_planned_gain": (utility.mean - base) / (best - base) if best > base else None,
            }
        )
    return rows


def _singles(context: Context, measured: dict[str, Measured], oracle: GibbsOracle) -> dict[str, dict[str, float]]:
    """The measured gaps of every trained policy on its own: what a single policy gives."""
    result = {}
    for name, weight in read_policies(context).items():
        planned = Portfolio(weight[None, :], np.zeros((1, oracle.bases)), np.zeros(1), oracle.reference, oracle.kl, (name,))
        alone = measured_portfolio(planned, [measured[name]], oracle).certificate
        assert alone is not None
        result[name] = {"epsilon": alone.epsilon, "delta": alone.delta, "captured_gain": alone.captured_gain}
    return result


def _truth(
    context: Context,
    names: list[str],
    texts: dict[str, list[list[Text]]],
    measured: dict[str, Measured],
    tensor: RewardTensor,
) -> dict[str, Any]:
    """In the embedded world: values by the planted rewards, on the same texts."""
    world = planted_world(context.config)
    candidates = read_candidates(context.inputs["sample"], "held_out")
    flat = [plain_text(response) for _, response in candidates.texts]
    reference = basis_rewards(flat, world.bases)
    result: dict[str, Any] = {"bases": list(world.bases), "reference": reference.mean(axis=0).tolist(), "value": {}, "cost": {}}
    for name in names:
        rewards = basis_rewards([plain_text(response) for row in texts[name] for response in row], world.bases)
        result["value"][name] = rewards.mean(axis=0).tolist()
        result["cost"][name] = float(context.config.plan.kl * measured[name].kl.mean())
    result["users"] = dict(zip(world.users, world.weights.tolist(), strict=True))
    return result


def read_results(folder: Path) -> dict[str, Any]:
    """What the measure stage found."""
    return dict(read_json(folder / "measure.json"))
