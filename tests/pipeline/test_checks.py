"""What is wrong with a configuration is said before the first stage starts, by key."""

from pathlib import Path

import pytest

from palm.pipeline import STAGES, Pipeline, check, load_config
from palm.pipeline.fanout import check_train
from palm.pipeline.runner import PipelineError

CASES = {
    "seed=-1": "seed: expected at least 0, got -1",
    "data.unseen=1.5": r"data.unseen: expected a share below 1 or a whole number, got 1.5",
    "data.shots=-1": "data.shots: expected at least 0, got -1",
    "data.test=1.0": "data.test: expected a share below 1, got 1.0",
    "data.min_groups=0": "data.min_groups: expected at least 1, got 0",
    "data.train_pairs=0": "data.train_pairs: expected at least 1, got 0",
    "data.draw={users: -1}": "data.draw.users: expected at least 0, got -1",
    "data.draw={alpha: 0}": r"data.draw.alpha: expected a positive number, got 0\.0",
    "data.draw={pairs_per_user: 0}": "data.draw.pairs_per_user: expected at least 1, got 0",
    "data.draw={users: 3}": "data.draw.users: expected a source of scored responses, got 'planted'",
    "data.source=namkoong-lab/PersonalLLM": "data.draw.users: expected how many users to draw over the scores of namkoong-lab",
    "data={source: a.jsonl, draw: {users: 3}, columns: {user: u}}": "data.columns, data.drop_invalid: expected neither with",
    "data.source=''": "data.source: expected a file of pairs, .* got nothing",
    "data.planted={users: 0}": "data.planted.users: expected at least 1, got 0",
    "data.planted={pairs_per_user: 700}": "data.planted.pairs_per_user: expected at least 1 and at most 640, got 700",
    "data.planted={sharpness: 0}": "data.planted.sharpness: expected a positive number, got 0",
    "base.model=./nowhere": "base.model: expected a folder or a Hub id, got './nowhere': there is no such folder",
    "features.model=/nowhere/at/all": "features.model: expected a folder or a Hub id, got '/nowhere/at/all': there is no such",
    "base.model=~/nowhere": "base.model: expected a folder or a Hub id, got '/.*/nowhere': there is no such folder",
    "features.layer=99": r"features.layer: expected a hidden layer from -\d+ to \d+, got 99",
    "train.lora={target_modules: [nope]}": "train.lora: expected what fits the base model, but .*nope.* not found",
    "plan={method: grid, size: null, epsilon: 0.1}": "plan.epsilon, plan.delta: expected both to be positive for plan.method grid",
    "base.corpus=web": "base.corpus: expected one of 'data', 'planted', got 'web'",
    "base.dtype=float8": "base.dtype: expected one of 'float32', .* got 'float8'",
    "base.vocabulary=20": "base.vocabulary: expected at least 260, got 20",
    "base.texts=0": "base.texts: expected at least 1, got 0",
    "base.architecture={hidden: 32}": r"base.architecture.hidden: transformers.LlamaConfig has no such option",
    "base.sft={epochs: 2}": "base.sft.epochs: trl.SFTConfig has no such option",
    "features.pooling=first": "features.pooling: expected one of 'last', 'mean', 'mean\\+last', got 'first'",
    "features.storage=int8": "features.storage: expected one of 'float32', 'float16', got 'int8'",
    "features.shard_size=0": "features.shard_size: expected at least 1, got 0",
    "rewards.method=BradleyTerry": "rewards.method: expected a method with weights on the simplex",
    "rewards.compare=[VPN]": "rewards.method, rewards.compare: expected names out of .* got 'VPN'",
    "rewards.options={rank: 2, depth: 3}": "rewards.options.depth: LoRe has no such option",
    "rewards.options={rank: 0}": "rewards.options.rank: expected a whole number of at least 1, got 0",
    "rewards.options={penalty: strong}": "rewards.options.penalty: expected a positive number or None, got 'strong'",
    "rewards.fitted=somewhere": "rewards.fitted: expected a learned method and no rewards.options, since nothing is fitted",
    "rewards.options={rnak: 2}": "rewards.options.rnak: LoRe has no such option; did you mean 'rank'",
    "candidates.source=web": "candidates.source: expected one of 'sample', 'pool', got 'web'",
    "features.functions=[nowhere:f]": "rewards.method, features.functions: expected method Given together",
    "train.dpo={learning_rate: fast}": "train.dpo.learning_rate: expected a number, got 'fast'",
    "candidates.held_out=0": "candidates.held_out: expected two prompts or more to certify and measure on, got 0",
    "candidates.held_out=1": "candidates.held_out: expected two prompts or more to certify and measure on, got 1",
    "candidates.held_out=1.5": "candidates.held_out: expected a share below 1 or a whole number, got 1.5",
    "candidates.per_prompt=0": "candidates.per_prompt: expected at least 2, got 0",
    "plan.kl=0": "plan.kl: expected a positive number, got 0",
    "plan.method=guess": "plan.method: expected one of cut, .* got 'guess'",
    "plan.size=0": "plan.size: expected a whole number of at least 1, got 0",
    "plan.epsilon=-0.1": "plan.epsilon: expected a finite number of at least 0, got -0.1",
    "plan={select: population, size: null}": "plan.size: expected how many policies to keep for plan.select population, got null",
    "plan.welfare=0.5": "plan.welfare: expected null for plan.select milp; it goes with population",
    "plan={select: population, welfare: 2}": "plan.welfare: expected a finite power of at most 1",
    "plan={captured_gain: 0.9, size: 2}": "plan.captured_gain, plan.size: expected one of them, got 0.9 and 2",
    "plan.most_solves=0": "plan.most_solves: expected a whole number of at least K",
    "plan.weights=0": "plan.weights: expected a whole number of at least 1, got 0",
    "plan.curve=-1": "plan.curve: expected at least 0, got -1",
    "refine.epsilon=-0.1": "refine.epsilon: expected at least 0, got -0.1",
    "refine.delta=-1": "refine.delta: expected at least 0, got -1",
    "refine.most=-1": "refine.most: expected at least 0, got -1",
    "refine.steps=-1": "refine.steps: expected at least 0, got -1",
    "refine.share=1": r"refine.share: expected a share above 0 and below 1, got 1\.0",
    "train.objective=dop": "train.objective: expected one of dpo-soft, dpo, gibbs, rloo, grpo, got 'dop'",
    "train.start=./nowhere": "train.start: expected a trained portfolio, such as RUN/route/portfolio: .*no such folder",
    "train.start=tests": "train.start: expected a trained portfolio, such as RUN/route/portfolio: .*portfolio.json",
    "train.group=1": "train.group: expected at least 2, got 1",
    "train.dpo={beta: 0.1}": "train.dpo.beta: the loss of dpo-soft is fixed by the plan's kl",
    "train.dpo={report_to: wandb}": "train.dpo.report_to: 'wandb' is not installed here",
    "train.dpo={report_to: [paper]}": "train.dpo.report_to: expected 'none', 'all' or one of .* got 'paper'",
    "train.dpo={learning_rate: -1}": "train.dpo.learning_rate: expected at least 0, got -1",
    "train.dpo={per_device_train_batch_size: 0}": "train.dpo.per_device_train_batch_size: expected at least 1, got 0",
    "train.dpo={max_steps: -5}": "train.dpo.max_steps: expected at least 1, or -1 for whole epochs, got -5",
    "base.architecture={hidden_size: 33}": "base.architecture: .*hidden size .33. is not a multiple",
    "train.dpo={max_steps: 0}": "train.dpo.max_steps: expected at least 1, or -1 for whole epochs, got 0",
    "train.dpo={max_steps: 2.5}": r"train.dpo.max_steps: expected a whole number, got 2\.5",
    "train={stop_within: 0.5, stop_prompts: 6}": "train.stop_prompts: expected fewer than candidates.prompts, 6, got 6",
    "train={objective: dpo, dpo: {beta: -1}}": "train.dpo.beta: expected at least 0, got -1",
    "train.dpo={train_sampling_strategy: group_by_length}": "train.dpo.train_sampling_strategy: expected one that asks for no",
    "train={objective: grpo, online: {epsilon: -1}}": "train.online.epsilon: expected a number of at least 0, got -1",
    "train={objective: grpo, online: {epsilon_high: '0.3'}}": "train.online.epsilon_high: expected a number of at least 0",
    "train.lora={inference_mode: true}": "train.lora.inference_mode: expected False, since the adapter is trained, got True",
    "train.lora={target_modules: [q_proj, lm_head]}": "train.lora.target_modules: expected layers between .* that writes tokens",
    "train.lora={target_modules: [embed_tokens]}": "train.lora.target_modules: expected layers between .* that reads tokens",
    "train.dpo={report_to: 3}": "train.dpo.report_to: expected a name or a list of names, got 3",
    "train.lora={r: 12}": "train.lora.r: expected one of 8, 16, 32, 64 .* got 12",
    "measure.draws=0": "measure.draws: expected at least 1, got 0",
    "route.rule=random": "route.rule: expected one of 'expected', 'nearest-l1', 'nearest-l2', got 'random'",
    "report.examples=-1": "report.examples: expected at least 0, got -1",
}


@pytest.mark.parametrize(("setting", "message"), CASES.items(), ids=list(CASES))
def test_refused_before_the_first_stage(setting: str, message: str, tiny_config: Path) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        check(load_config(tiny_config, [setting]))


def test_no_gap_and_no_size(tiny_config: Path) -> None:
    with pytest.raises(RuntimeError, match=r"plan.epsilon, plan.delta: expected one of them to be positive, got 0 and 0"):
        check(load_config(tiny_config, ["plan.size=null", "plan.epsilon=0"]))


def test_what_is_right_passes(tiny_config: Path) -> None:
    assert check(load_config(tiny_config)) is None


BATCHES = {
    "train={objective: rloo, online: {num_generations: 2, per_device_train_batch_size: 14}}": (
        "train.online.per_device_train_batch_size: expected at most 6 prompts to be answered together, .* got 7: 14 responses"
    ),
    "train={objective: rloo, online: {per_device_train_batch_size: 4}}": "train.online.num_generations: expected a divisor of 4",
    "train={objective: rloo, shared_steps: 1, launch: {launcher: pool, command: env}, online: {per_device_train_batch_size: 4}}": (
        "train.online.num_generations: expected a divisor of 4, .* got 8"  # the steps that all share are taken here
    ),
    "train.launch.command=env": "train.launch.launcher: expected 'pool' or 'ray' with train.launch.command, .* not run 'env'",
}


@pytest.mark.parametrize(("setting", "message"), BATCHES.items(), ids=list(BATCHES))
def test_what_this_process_cannot_train_is_refused_before_the_first_stage(
    setting: str, message: str, tiny_config: Path, tmp_path: Path
) -> None:
    """Where it is to train: others may, by more processes, and what is done on the way to that is done all the same."""
    config = load_config(tiny_config, [setting, f"output={tmp_path}"])
    check(config)
    pipeline = Pipeline(STAGES, config)
    with pytest.raises(PipelineError, match=message):
        pipeline.run()
    assert not (tmp_path / "data").exists()
    assert pipeline.run(only="data") == ["data"]


@pytest.mark.parametrize("alone", ["shared_steps: 0", "shared_steps: 1, start: ./elsewhere"])
def test_members_own_processes_count_their_batches(alone: str, tiny_config: Path) -> None:
    """Four responses a process make half a group here, and a whole one where a member is trained by two, without shared steps."""
    online = "online: {per_device_train_batch_size: 4, num_generations: 8}"
    given = f"objective: rloo, {alone}, {online}"
    with pytest.raises(PipelineError, match=r"train\.online\.num_generations: expected a divisor of 4, .* got 8"):
        check_train(load_config(tiny_config, [f"train={{{given}}}"]))
    by_command = load_config(tiny_config, [f"train={{{given}, launch: {{launcher: pool, command: accelerate launch}}}}"])
    assert check_train(by_command) is None
