"""What else could be done with a run's candidates, prompts and trained adapters: each family trained, written with and measured.

All for test weights w, on the run's held-out prompts, with as many responses as its measure stage draws and the same seeds:

* every single policy that the run trained;
* basis members: K policies, one for each basis reward, trained as the members were; whichever is best for w;
* soup: their changes of the base mixed by w (`palm.policies.soups`); mod: their log-probabilities mixed by w
  (`palm.policies.decoding`);
* member-soup: the portfolio's members mixed likewise, in the shares that come nearest to w;
* uniform, random: as many policies as the portfolio has, trained as the members were, at weights that nothing was planned for:
  evenly spread over the simplex, or drawn from it at random;
* best-of-n: the reference's candidates, the best of n by w; n is chosen on the planning prompts.

Soups and mixtures make a policy for every user: a soup serves an adapter per user, a mixture takes K passes a token; best-of-n
trains nothing and writes n responses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from palm.artifacts import digest
from palm.data.schema import Text
from palm.evaluation.best_of import best_of, choose_n
from palm.evaluation.measure import Measured, on_prompts
from palm.lm.generate import sample_responses
from palm.lm.load import LanguageModel
from palm.pipeline.data_stages import base_name
from palm.pipeline.finished import FinishedRun
from palm.pipeline.plan_stages import read_tensor
from palm.pipeline.policy_stages import train_in_process
from palm.pipeline.policy_texts import ScoredTexts, score_responses, score_samples
from palm.pipeline.runner import Context
from palm.policies.adapters import Members
from palm.policies.decoding import sample_mixture
from palm.policies.soups import nearest_mixture, write_soup
from palm.policies.train import Member
from palm.portfolio.grid import grid_of_size
from palm.seeds import derive_seed
from palm.simplex import sample_simplex

_GRID = 5000  # weights that are split into cells


@dataclass(frozen=True)
class Setting:
    """What all baselines are measured on.

    Attributes:
        run: the finished run.
        context: for the stages' functions; its folder keeps adapters and samples, so that a second call goes on.
        base: the base model.
        weights: (T, K) test weights.
    """

    run: FinishedRun
    context: Context
    base: LanguageModel
    weights: np.ndarray


@dataclass(frozen=True)
class Made:
    """One baseline, measured.

    Attributes:
        name: for the table.
        adapters: how many were trained.
        serving: what it costs.
        measured: what each of the T test weights gets.
        policies: those that everyone is given the best of, whatever the weight; None where each weight has a policy of its own.
    """

    name: str
    adapters: int
    serving: str
    measured: list[Measured]
    policies: list[Measured] | None = None


def best_of_few(setting: Setting, name: str, policies: list[Measured], serving: str = "1 adapter") -> Made:
    """A few trained policies, each weight given the best of them."""
    return Made(name, len(policies), serving, best_at(setting, policies), policies)


def best_at(setting: Setting, policies: Sequence[Measured]) -> list[Measured]:
    """At each test weight the best of some policies, or the reference, by their means over prompts."""
    run = setting.run
    prompts = on_prompts(run.tensor, policies, run.portfolio.kl)
    everything = [*policies, Measured(prompts.reference, np.zeros(len(prompts.reference)))]
    means = np.array([policy.value.mean(axis=0) - run.portfolio.kl * policy.kl.mean() for policy in everything])
    return [everything[int(place)] for place in (setting.weights @ means.T).argmax(axis=1)]


def _singles(setting: Setting, most: int) -> list[Made]:
    """Each policy that the run trained, for everyone: the members and the single policies."""
    names = sorted(path.name.removeprefix("values-").removesuffix(".safetensors") for path in _values(setting.run))
    alone = [name for name in names if name not in setting.run.portfolio.ids]
    return [best_of_few(setting, name, [setting.run.measured(name)], "merged") for name in alone]


def _values(run: FinishedRun) -> list[Path]:
    return list((run.folder / "measure").glob("values-*.safetensors"))


def _best_of_n(setting: Setting, most: int) -> list[Made]:
    run = setting.run
    n = choose_n(read_tensor(run.folder / "score", "plan"), setting.weights, run.portfolio.kl, most=most)
    n = min(n, int(run.tensor.mask.sum(axis=1).min()))
    return [Made(f"best of {n}", 0, f"{n} responses", [best_of(run.tensor, weight, n) for weight in setting.weights])]


def _basis(setting: Setting, most: int) -> list[Made]:
    return [best_of_few(setting, "basis members", _measure_adapters(setting, _basis_adapters(setting)))]


def _soup(setting: Setting, most: int) -> list[Made]:
    adapters = _basis_adapters(setting)
    found = _measure_soups(setting, "soup", adapters, setting.weights)
    return [Made("rewarded soup", len(adapters), "1 adapter a user", found)]


def _member_soup(setting: Setting, most: int) -> list[Made]:
    run = setting.run
    adapters = {name: run.folder / "train" / name for name in run.portfolio.ids}
    spread = read_tensor(run.folder / "score", "plan").spread()
    shares = np.array([nearest_mixture(run.portfolio.weights, weight, spread) for weight in setting.weights])
    found = _measure_soups(setting, "member-soup", adapters, shares)
    return [Made("soup of members", len(adapters), "1 adapter a user", found)]


def _measure_soups(setting: Setting, kind: str, adapters: dict[str, Path], shares: np.ndarray) -> list[Measured]:
    """Of one soup of all adapters for each row of (T, adapters) shares."""
    soups = {}
    for row in shares:
        folder = setting.context.folder / "soups" / f"{kind}-{_of_weight(row)}"
        write_soup(adapters, dict(zip(adapters, row.tolist(), strict=True)), folder)
        soups[folder.name] = folder
    measured = dict(zip(soups, _measure_adapters(setting, soups), strict=True))
    return [measured[f"{kind}-{_of_weight(row)}"] for row in shares]


def _of_weight(weight: np.ndarray) -> str:
    """A name for a weight: what is kept for it must not be found for another."""
    return digest(weight.tolist())[:12]


def _mod(setting: Setting, most: int) -> list[Made]:
    adapters = _basis_adapters(setting)
    run, members, found = setting.run, Members(setting.base, adapters, base_model=base_name(setting.run.folder / "base")), []
    try:
        for number, weight in enumerate(setting.weights):
            with setting.context.track(f"decoding {number + 1} of {len(setting.weights)}", None):
                drawn = sample_mixture(
                    members,
                    dict(zip(adapters, weight.tolist(), strict=True)),
                    run.candidates.prompts,
                    count=run.config.measure.samples,
                    max_new_tokens=run.config.candidates.max_new_tokens,
                    batch_size=run.config.candidates.batch_size,
                    seed=_sampling_seed(run),
                )
            texts: list[list[Text]] = [[mixed.sample.text for mixed in row] for row in drawn]
            flat = [mixed for row in drawn for mixed in row]
            kl, ratio = np.array([mixed.kl for mixed in flat]), np.array([mixed.log_ratio for mixed in flat])
            basis = score_responses(setting.context, f"mod-{_of_weight(weight)}", run.candidates.prompts, texts)
            found.append(ScoredTexts(texts, basis, kl, ratio).measured())
    finally:
        members.close()
    return [Made("decoding (MOD)", len(adapters), f"{len(adapters)} passes a token", found)]


def spread_weights(bases: int, count: int, *, seed: int) -> np.ndarray:
    """(count, K) weights spread evenly over the simplex: the middles of as many cells, by k-means on a fine grid."""
    from scipy.cluster.vq import kmeans2

    grid = grid_of_size(bases, _GRID)
    starts = grid[np.random.default_rng(seed).choice(len(grid), size=min(count, len(grid)), replace=False)]
    return np.asarray(kmeans2(grid, starts, iter=100, minit="matrix")[0])


def _uniform(setting: Setting, most: int) -> list[Made]:
    count, bases = setting.run.portfolio.weights.shape
    return _unplanned(setting, "uniform weights", "spread", spread_weights(bases, count, seed=setting.context.seed))


def _random(setting: Setting, most: int) -> list[Made]:
    count, bases = setting.run.portfolio.weights.shape
    rng = np.random.default_rng(derive_seed(setting.context.seed, "random weights"))
    return _unplanned(setting, "random weights", "drawn", sample_simplex(count, bases, rng))


def _unplanned(setting: Setting, name: str, prefix: str, weights: np.ndarray) -> list[Made]:
    adapters = _train(setting, {f"{prefix}-{number}": weight for number, weight in enumerate(weights)})
    return [best_of_few(setting, name, _measure_adapters(setting, adapters))]


def _basis_adapters(setting: Setting) -> dict[str, Path]:
    """Policies for the basis rewards; a member that is for one of them is that one."""
    run = setting.run
    bases, known = len(run.portfolio.reference), {}
    for name, weight in zip(run.portfolio.ids, run.portfolio.weights, strict=True):
        if weight.max() > 1 - 1e-9:
            known[int(weight.argmax())] = run.folder / "train" / name
    trained = _train(setting, {f"basis-{k}": np.eye(bases)[k] for k in range(bases) if k not in known})
    return {f"basis-{k}": known.get(k) or trained[f"basis-{k}"] for k in range(bases)}


def _train(setting: Setting, weights: dict[str, np.ndarray]) -> dict[str, Path]:
    """Adapters for some weights, trained as the run's members were, from where they began; what is there is not trained again."""
    folder, seed = setting.context.folder / "adapters", derive_seed(setting.run.config.seed, "train")
    if weights:
        members = [Member(name, weight) for name, weight in weights.items()]
        train_in_process(replace(setting.context, folder=folder, seed=seed), members=members)
    return {name: folder / name for name in weights}


def _measure_adapters(setting: Setting, adapters: dict[str, Path]) -> list[Measured]:
    """What adapters give on the held-out prompts, as the measure stage has it."""
    run, found = setting.run, []
    members = Members(setting.base, adapters, base_model=base_name(setting.run.folder / "base"))
    samples = run.config.measure.samples
    try:
        for name in adapters:
            with members.policy(name) as policy, setting.context.track(f"measuring {name}", None):
                drawn = sample_responses(
                    policy,
                    run.candidates.prompts,
                    count=samples,
                    batch_size=run.config.candidates.batch_size,
                    max_new_tokens=run.config.candidates.max_new_tokens,
                    seed=_sampling_seed(run),
                )
                found.append(score_samples(setting.context, members, policy, name, run.candidates.prompts, drawn).measured())
    finally:
        members.close()
    return found


def _sampling_seed(run: FinishedRun) -> int:
    """The measure stage's."""
    return derive_seed(derive_seed(run.config.seed, "measure"), "samples")


MAKERS: dict[str, Callable[[Setting, int], list[Made]]] = {
    "singles": _singles,
    "best-of-n": _best_of_n,
    "basis": _basis,
    "soup": _soup,
    "member-soup": _member_soup,
    "mod": _mod,
    "uniform": _uniform,
    "random": _random,
}
