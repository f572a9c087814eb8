"""The pipeline's configuration: one dataclass per stage; `read_config` makes it from a YAML file."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any


class ConfigError(ValueError):
    """The configuration is not what was expected; the message names the file and the key."""


@dataclass(frozen=True)
class PlantedConfig:
    """The embedded world's size; see `palm.data.planted.make_world`.

    Attributes:
        users, bases, pairs_per_user: how many.
        responses_per_prompt: that pairs are drawn from.
        concentration: of the Dirichlet distribution of the users' weights; small where users want one thing each.
        sharpness: a pair whose utilities differ by u is judged that way with probability sigmoid(sharpness u).
    """

    users: int = 300
    bases: int = 3
    pairs_per_user: int = 40
    responses_per_prompt: int = 6
    concentration: float = 0.3
    sharpness: float = 12.0


@dataclass(frozen=True)
class DrawConfig:
    """Users drawn over a source's scored responses; see `palm.data.drawn.load_drawn`.

    Attributes:
        users: how many; 0 where the source's rows are people's pairs.
        alpha: of the Dirichlet distribution of their weights over the reward models.
        pairs_per_user: prompts that each judges.
    """

    users: int = 0
    alpha: float = 0.1
    pairs_per_user: int = 100


@dataclass(frozen=True)
class DataConfig:
    """Where the pairs come from and how users are split.

    Attributes:
        source: must be given: "planted", a file (.jsonl, .jsonl.gz, .parquet, .csv, .csv.gz), or a data set's id on the Hub.
        planted: for the source "planted".
        draw: for a source of PersonalLLM's schema, the Hub's or a file: scored responses, and users to draw over them.
        columns: where each of user, prompt, chosen, rejected, group is found.
        subset, split: of a data set on the Hub.
        drop_invalid: leave out rows that are not pairs instead of stopping at the first.
        min_pairs, min_groups: users with fewer pairs, or with pairs of fewer groups, are left out of fitting and testing.
        unseen: share (below 1) or number of users that no model is fitted on.
        shots: pairs of an unseen user to infer their weight from.
        test: share of a seen user's pairs to test on.
        train_pairs: most pairs of a seen user to fit on; all of those not tested on unless given.
    """

    source: str = ""
    planted: PlantedConfig = field(default_factory=PlantedConfig)
    draw: DrawConfig = field(default_factory=DrawConfig)
    columns: dict[str, str] = field(default_factory=dict)
    subset: str | None = None
    split: str = "train"
    drop_invalid: bool = False
    min_pairs: int = 1
    min_groups: int = 1
    unseen: float | int = 0.2
    shots: int = 10
    test: float = 0.3
    train_pairs: int | None = None


@dataclass(frozen=True)
class BaseConfig:
    """The reference policy: a model that exists, or a small one trained from scratch.

    Attributes:
        model: "scratch", or the folder or Hub id of a causal language model.
        revision, dtype: of a model that exists.
        name: id recorded in adapters; by default the model's own, or "palm-base" for one trained here.
        corpus: what a model from scratch is trained on: "data" (the pairs' prompts and responses) or "planted".
        texts: size of the planted corpus.
        vocabulary: tokens of the tokenizer from scratch.
        architecture: fields of transformers.LlamaConfig.
        sft: fields of trl.SFTConfig.
        max_length: longest text in tokens.
    """

    model: str = "scratch"
    revision: str | None = None
    dtype: str | None = None
    name: str | None = None
    corpus: str = "data"
    texts: int = 6000
    vocabulary: int = 1024
    architecture: dict[str, Any] = field(default_factory=dict)
    sft: dict[str, Any] = field(default_factory=dict)
    max_length: int = 256


@dataclass(frozen=True)
class FeaturesConfig:
    """What rewards are linear in.

    Attributes:
        model: "base", or the folder or Hub id of a language model, classifier or reward model.
        functions: given reward functions, "package.module:name" each, instead of a model's hidden states; use them with
            rewards.method Given.
        reward_models: given reward models (folders or Hub ids), their score instead of hidden states; as `functions`.
        revision, dtype: of the model.
        pooling: "last", "mean" or "mean+last".
        layer: hidden layer, from the end if negative.
        max_length: longest text in tokens.
        batch_tokens: tokens per forward pass.
        shard_size: texts per file.
        storage: "float32" or "float16" on disk.
    """

    model: str = "base"
    functions: list[str] = field(default_factory=list)
    reward_models: list[str] = field(default_factory=list)
    revision: str | None = None
    dtype: str | None = None
    pooling: str = "last"
    layer: int = -1
    max_length: int = 1024
    batch_tokens: int = 8192
    shard_size: int = 4096
    storage: str = "float32"


@dataclass(frozen=True)
class RewardsConfig:
    """Which reward model is fitted.

    Attributes:
        method: a name out of palm.rewards.METHODS with simplex geometry: it feeds the portfolio.
        options: the method's hyper-parameters.
        compare: other methods to fit and to put beside it in the accuracy table.
        fitted: folder or Hub id of a reward model of that method that was fitted before, on features of the same model, by
            recipes/train_rewards.py, say; its bases are taken as they are, and users are inferred anew from their pairs.
    """

    method: str = "LoRe"
    options: dict[str, Any] = field(default_factory=dict)
    compare: list[str] = field(default_factory=lambda: ["BradleyTerry", "Reference"])
    fitted: str | None = None


@dataclass(frozen=True)
class CandidatesConfig:
    """The responses that the plan is made on.

    Attributes:
        source: "sample" from the base model, or "pool": the responses to the same prompt in the data.
        prompts: how many prompts to plan on and train with (sample), drawn from the data's.
        held_out: prompts kept for certifying and measuring: a number, or a share below 1.
        per_prompt: responses to sample per prompt; with a pool, the most to keep.
        max_new_tokens, batch_size: of the sampling, at temperature 1: another would be another policy than the one whose
            KL cost counts.
        min_pool: prompts with a smaller pool are left out.
    """

    source: str = "sample"
    prompts: int = 96
    held_out: float | int = 64
    per_prompt: int = 32
    max_new_tokens: int = 128
    batch_size: int = 96
    min_pool: int = 2


@dataclass(frozen=True)
class PlanConfig:
    """Which portfolio is planned; see `palm.plan_portfolio`.

    Attributes:
        kl: coefficient of the KL cost, in units of reward.
        epsilon, delta: gap wanted.
        captured_gain: share of what can be gained over the base model that every weight is to have, instead of epsilon.
        size: number of policies, instead of a gap.
        method: where to solve: "cut", "lazy", "grid", "uniform", "random", "vertices".
        select: which to keep: "milp" (the fewest, proven), "greedy" (faster), or "population": the `size` that are best for the
            users whose pairs the reward model was fitted on.
        welfare: for population: the p-mean of users' ratios to maximise instead of the mean regret to minimise; at most 1.
        refine: then move the chosen weights until the gap is smallest.
        weights: how many, for uniform and random.
        most_solves: for lazy.
        curve: largest size in the picture of gap against size, which begins with the base model alone; 0 for none.
    """

    kl: float = 0.1
    epsilon: float = 0.05
    delta: float = 0.0
    captured_gain: float | None = None
    size: int | None = None
    method: str = "cut"
    select: str = "milp"
    welfare: float | None = None
    refine: bool = False
    weights: int = 200
    most_solves: int = 1000
    curve: int = 6


@dataclass(frozen=True)
class LaunchConfig:
    """What runs the members' training; only the processes that `command` starts change a result. See `palm.policies.launchers`.

    Attributes:
        launcher: "inline" (one after the other in this process), "pool" (processes of this machine) or "ray" (a Ray cluster:
            RAY_ADDRESS, else this machine).
        workers: members at a time (pool).
        gpus, cpus: of each member; 0: whatever its command takes, and an equal part of this machine's cores.
        retries: how often a member's command that failed is tried again.
        command: what each member's command begins with (pool, ray, `palm jobs`), to train it on several processes: "accelerate
            launch --config_file recipes/configs/accelerate/fsdp2.yaml", say; as many times `per_device_train_batch_size` make a
            step. By default this Python.
    """

    launcher: str = "inline"
    workers: int = 2
    gpus: int = 0
    cpus: int = 0
    retries: int = 1
    command: str = ""


@dataclass(frozen=True)
class TrainConfig:
    """How members are trained; see `palm.policies.options.TrainingOptions`.

    Attributes:
        baselines: also train single policies to compare with: the best for the worst weight, and the best for the population's
            mean weight, unless a policy that is trained anyway has 97 % of the gain planned there.
        objective: "dpo-soft" (the planned policy itself, from comparisons of candidates), "dpo" (TRL's own losses on pairs that say
            only which is better), "gibbs" (the planned policy, by weighted likelihood of candidates), "rloo" or "grpo" (rewards of
            what the policy writes itself); see `palm.policies.objectives`.
        group: responses of a prompt that are compared with each other, or read, at a time (dpo-soft, gibbs).
        listwise: share of the loss that compares a group's responses all at once and not by pairs, 0 to 1 (dpo-soft).
        pairs_per_prompt: pairs of each prompt (dpo).
        start: folder or Hub id of a trained portfolio, such as another run's route/portfolio: each member goes on from the adapter
            there whose weight is nearest, for other steps or another objective, and no steps are shared. Null: from afresh.
        shared_steps: steps at the members' mean weight, taken once; each member goes on from there. 0: each begins afresh.
        match_kl: texts that each trained member writes to learn its own KL divergence, to be scaled down to the planned one where
            that exceeds it; 0: none. Takes no part where candidates are a pool.
        stop_within: share of the planned gain that a member may lack, on `stop_prompts` of the prompts that it is not trained on,
            with 95 % confidence, for its training to stop before its last step; looked at every `stop_every` steps. 0: never.
        stop_every, stop_prompts: see there.
        max_length: longest prompt and response in tokens.
        lora: fields of peft.LoraConfig.
        dpo: fields of trl.DPOConfig, such as max_steps, learning_rate, per_device_train_batch_size (dpo-soft, dpo, gibbs);
            texts are cut by the max_length above, not by its own.
        online: fields of trl.RLOOConfig or GRPOConfig, such as max_steps, num_generations (rloo, grpo).
    """

    baselines: bool = True
    objective: str = "dpo-soft"
    group: int = 8
    listwise: float = 0.5
    pairs_per_prompt: int = 16
    start: str | None = None
    shared_steps: int = 0
    match_kl: int = 0
    stop_within: float = 0.0
    stop_every: int = 50
    stop_prompts: int = 16
    max_length: int = 1024
    lora: dict[str, Any] = field(default_factory=dict)
    dpo: dict[str, Any] = field(default_factory=dict)
    online: dict[str, Any] = field(default_factory=dict)
    launch: LaunchConfig = field(default_factory=LaunchConfig)


@dataclass(frozen=True)
class MeasureConfig:
    """How trained policies are measured on the held-out prompts.

    Attributes:
        samples: responses to generate per prompt and policy (candidates.source sample).
        draws: bootstrap samples of the gap's interval.
    """

    samples: int = 12
    draws: int = 200


@dataclass(frozen=True)
class RefineConfig:
    """When `palm refine` goes on training; see `palm.pipeline.refining`.

    Attributes:
        epsilon, delta: measured gap wanted over the whole simplex: (1 + epsilon) times what is served, and delta, reach the
            optimum on candidates at every weight.
        most: further members, at most.
        steps: optimiser steps of each; 0: as many as the other members' own (train.dpo.max_steps, or train.online.max_steps).
        share: of the held-out prompts, those that choose weights and members, above 0 and below 1; the others certify.
    """

    epsilon: float = 0.05
    delta: float = 0.0
    most: int = 4
    steps: int = 0
    share: float = 0.5


@dataclass(frozen=True)
class RouteConfig:
    """How users are sent to policies; rule: "expected", "nearest-l1" or "nearest-l2"."""

    rule: str = "expected"


@dataclass(frozen=True)
class ReportConfig:
    """The report; plots: False does without matplotlib; examples: prompts whose responses are shown."""

    title: str = "palm report"
    plots: bool = True
    examples: int = 4


@dataclass(frozen=True)
class Config:
    """A whole run.

    Attributes:
        output: folder of the run, relative to where `palm` is started.
        seed: of everything random.
    """

    output: str = "runs/palm"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    base: BaseConfig = field(default_factory=BaseConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    rewards: RewardsConfig = field(default_factory=RewardsConfig)
    candidates: CandidatesConfig = field(default_factory=CandidatesConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    route: RouteConfig = field(default_factory=RouteConfig)
    report: ReportConfig = field(default_factory=ReportConfig)


def as_record(config: Any) -> Any:
    """A configuration's section as JSON values."""
    return dataclasses.asdict(config)
