"""What else could be done with the same candidates, prompts and trained adapters: measured as a run's portfolio was.

For test weights w, on the run's held-out prompts, with as many responses as its measure stage draws and the same seeds:

* portfolio: the run's members, whichever is best for w by what was measured;
* every single policy that the run trained;
* basis members: K policies, one for each basis reward, trained as the members were; whichever is best for w;
* soup: their changes of the base mixed by w (`palm.policies.soups`); mod: their log-probabilities mixed by w
  (`palm.policies.decoding`);
* uniform, random: as many policies as the portfolio has, at weights of a grid and at random, trained as the members were;
* best-of-n: the reference's candidates, the best of n by w; n is chosen on the planning prompts.

Soups and mixtures make a policy for every user, from K trained adapters: a soup serves an adapter per user, a mixture takes K
passes a token; best-of-n trains nothing and writes n responses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palm.artifacts import digest
from palm.data.schema import Text
from palm.evaluation.best_of import best_of, choose_n
from palm.evaluation.intervals import bootstrap_mean
from palm.evaluation.measure import Measured, from_samples
from palm.lm.generate import sample_responses
from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_kl
from palm.lm.tokens import encode_prompt
from palm.pipeline.config import as_record
from palm.pipeline.data_stages import base_name, read_base
from palm.pipeline.finished import FinishedRun, on_prompts
from palm.pipeline.plan_stages import POOL, oracle_for, read_candidates, read_tensor
from palm.pipeline.policy_stages import basis_of, training_options
from palm.pipeline.policy_texts import score_responses
from palm.pipeline.runner import Context, PipelineError
from palm.policies.adapters import Members
from palm.policies.candidates import tokenise_candidates
from palm.policies.decoding import sample_mixture
from palm.policies.options import ONLINE
from palm.policies.soups import write_soup
from palm.policies.train import Member, train_members
from palm.portfolio import plan_portfolio
from palm.progress import Track, silent
from palm.seeds import derive_seed

FAMILIES = ("singles", "best-of-n", "basis", "soup", "mod", "uniform", "random")
DEFAULT = FAMILIES[:5]


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


def compare_baselines(
    run: FinishedRun, *, weights: int = 8, families: Sequence[str] = DEFAULT, most: int = 16, seed: int = 0, track: Track = silent
) -> dict[str, Any]:
    """Measure baselines at test weights and compare each with the portfolio, paired over prompts.

    Args:
        run: whose policies were measured on their own samples.
        weights: how many test weights: the certificate's worst one, the users' mean, and users' own.
        families: out of `FAMILIES`.
        most: largest n of best-of-n.
        seed: of the choice of users.

    Returns:
        for every family: trained adapters, what serving costs, utility as a share of what could be gained (mean and worst over the
        test weights), and how much less than the portfolio it gains, with an interval over prompts.

    Raises:
        PipelineError: the run's candidates are a pool, so that nothing was sampled, or it has no policies.
        ValueError: a family is not known or a number is out of range.
    """
    unknown = sorted(set(families) - set(FAMILIES))
    if unknown:
        raise ValueError(f"families: expected names out of {', '.join(FAMILIES)}, got {unknown[0]!r}")
    for name, value in (("weights", weights), ("most", most)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if run.config.candidates.source == POOL or not len(run.portfolio):
        raise PipelineError(f"{run.folder}: expected a run with trained policies and sampled candidates, got one without")
    context = run.context(run.folder / "evaluation" / "baselines" / _made_with(run), track=track)
    setting = Setting(run, context, read_base(context), weights_to_test(run, weights, seed))
    kl, served = run.portfolio.kl, _best(setting, [run.measured(name) for name in run.portfolio.ids])
    rows = [_row(setting, "portfolio", served, served, len(run.portfolio), "1 adapter")]
    for family in dict.fromkeys(families):
        for name, measured, adapters, cost in _MAKERS[family](setting, most):
            rows.append(_row(setting, name, measured, served, adapters, cost))
    return {
        "rows": rows,
        "weights": setting.weights.tolist(),
        "optimum": oracle_for(run.tensor, kl).optimum(setting.weights).tolist(),
        "reference": (setting.weights @ run.portfolio.reference).tolist(),
        "prompts": len(run.tensor.rewards),
    }


def _made_with(run: FinishedRun) -> str:
    """A name for what the adapters depend on: a run that was made anew must not find the old ones."""
    contents = [manifest.content for name in ("base", "sample", "score", "plan", "train") if (manifest := run.manifest(name))]
    return digest({"contents": contents, "train": as_record(run.config.train), "seed": run.config.seed})[:16]


def weights_to_test(run: FinishedRun, count: int, seed: int) -> np.ndarray:
    """The weight where the portfolio is worst, the users' mean, and users' own, `count` in all."""
    chosen = [] if run.portfolio.certificate is None else [run.portfolio.certificate.worst_weight]
    if len(run.users):
        chosen.append(run.users.mean.mean(axis=0))
        rng = np.random.default_rng(derive_seed(seed, "test weights"))
        chosen += list(run.users.mean[rng.permutation(len(run.users))])
    return np.array(chosen[:count])


def _best(setting: Setting, policies: Sequence[Measured]) -> list[Measured]:
    """At each test weight the best of some policies, or the reference, by their means over prompts."""
    run = setting.run
    prompts = on_prompts(run.tensor, list(policies), run.portfolio.kl)
    everything = [*policies, Measured(prompts.reference, np.zeros(len(prompts.reference)))]
    means = np.array([policy.value.mean(axis=0) - run.portfolio.kl * policy.kl.mean() for policy in everything])
    return [everything[int(place)] for place in (setting.weights @ means.T).argmax(axis=1)]


def _row(
    setting: Setting, name: str, measured: Sequence[Measured], served: Sequence[Measured], adapters: int, cost: str
) -> dict[str, Any]:
    run, kl = setting.run, setting.run.portfolio.kl
    prompts = on_prompts(run.tensor, [], kl)
    best, base = prompts.optimum(setting.weights).mean(axis=0), setting.weights @ prompts.reference.mean(axis=0)
    own = np.array([policy.value @ w - kl * policy.kl for policy, w in zip(measured, setting.weights, strict=True)])  # (T, P)
    portfolio = np.array([policy.value @ w - kl * policy.kl for policy, w in zip(served, setting.weights, strict=True)])
    gain = own.mean(axis=1) - base
    share = gain / np.maximum(best - base, 1e-12)
    return {
        "baseline": name,
        "adapters": adapters,
        "serving": cost,
        "gain": bootstrap_mean((own - setting.weights @ prompts.reference.T).mean(axis=0), seed=setting.context.seed).record(),
        "share_of_gain": round(float(gain.sum() / max(float((best - base).sum()), 1e-12)), 4),
        "worst_share": round(float(share.min()), 4),
        "less_than_portfolio": bootstrap_mean((portfolio - own).mean(axis=0), seed=setting.context.seed).record(),
        "kl": round(float(np.mean([policy.kl.mean() for policy in measured])), 4),
    }


Made = tuple[str, list[Measured], int, str]


def _singles(setting: Setting, most: int) -> list[Made]:
    """Each policy that the run trained, for everyone: the members and the single policies."""
    names = sorted(path.name.removeprefix("values-").removesuffix(".safetensors") for path in _values(setting.run))
    alone = {name: _best(setting, [setting.run.measured(name)]) for name in names if name not in setting.run.portfolio.ids}
    return [(name, found, 1, "merged") for name, found in alone.items()]


def _values(run: FinishedRun) -> list[Path]:
    return list((run.folder / "measure").glob("values-*.safetensors"))


def _best_of_n(setting: Setting, most: int) -> list[Made]:
    run = setting.run
    n = choose_n(read_tensor(run.folder / "score", "plan"), setting.weights, run.portfolio.kl, most=most)
    n = min(n, int(run.tensor.mask.sum(axis=1).min()))
    return [(f"best of {n}", [best_of(run.tensor, weight, n) for weight in setting.weights], 0, f"{n} responses")]


def _basis(setting: Setting, most: int) -> list[Made]:
    adapters = _basis_adapters(setting)
    return [("basis members", _best(setting, _measure_adapters(setting, adapters)), len(adapters), "1 adapter")]


def _soup(setting: Setting, most: int) -> list[Made]:
    adapters = _basis_adapters(setting)
    soups = {}
    for number, weight in enumerate(setting.weights):
        folder = setting.context.folder / "soups" / f"soup-{number}"
        write_soup(adapters, dict(zip(adapters, weight.tolist(), strict=True)), folder)
        soups[folder.name] = folder
    return [("rewarded soup", _measure_adapters(setting, soups), len(adapters), "1 adapter a user")]


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
            basis = score_responses(setting.context, f"mod-{number}", run.candidates.prompts, texts)
            found.append(from_samples(basis, kl, run.config.measure.samples, log_ratio=ratio))
    finally:
        members.close()
    return [("decoding (MOD)", found, len(adapters), f"{len(adapters)} passes a token")]


def _planned(method: str) -> Callable[[Setting, int], list[Made]]:
    def make(setting: Setting, most: int) -> list[Made]:
        run = setting.run
        oracle = oracle_for(read_tensor(run.folder / "score", "plan"), run.portfolio.kl)
        chosen = plan_portfolio(oracle, size=len(run.portfolio), method=method, seed=setting.context.seed)
        adapters = _train(setting, {f"{method}-{number}": weight for number, weight in enumerate(chosen.weights)})
        return [(f"{method} weights", _best(setting, _measure_adapters(setting, adapters)), len(adapters), "1 adapter")]

    return make


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
    """Adapters for some weights, trained as the run's members were; what is there is not trained again."""
    run, context = setting.run, setting.context
    folder, options = context.folder / "adapters", training_options(run.config)
    if weights:
        candidates = read_candidates(run.folder / "sample", "plan")
        tokenised = tokenise_candidates(
            setting.base, candidates.prompts, candidates.responses, folder / ".writing-reference", max_length=options.max_length
        )
        train_members(
            setting.base,
            [Member(name, weight) for name, weight in weights.items()],
            tokenised,
            read_tensor(run.folder / "score", "plan"),
            folder,
            kl=run.portfolio.kl,
            base_model=base_name(run.folder / "base"),
            options=options,
            seed=derive_seed(run.config.seed, "train"),
            basis=basis_of(context) if options.objective in ONLINE else None,
            track=context.track,
        )
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
                encoded = [
                    (encode_prompt(policy.tokenizer, prompt), sample.token_ids)
                    for prompt, row in zip(run.candidates.prompts, drawn, strict=True)
                    for sample in row
                ]
                kl, ratio = response_kl(policy, encoded, without_adapter=members.without_adapter)
            texts: list[list[Text]] = [[sample.text for sample in row] for row in drawn]
            basis = score_responses(setting.context, name, run.candidates.prompts, texts)
            found.append(from_samples(basis, kl, samples, log_ratio=ratio))
    finally:
        members.close()
    return found


def _sampling_seed(run: FinishedRun) -> int:
    """The measure stage's."""
    return derive_seed(derive_seed(run.config.seed, "measure"), "samples")


_MAKERS: dict[str, Callable[[Setting, int], list[Made]]] = {
    "singles": _singles,
    "best-of-n": _best_of_n,
    "basis": _basis,
    "soup": _soup,
    "mod": _mod,
    "uniform": _planned("uniform"),
    "random": _planned("random"),
}
