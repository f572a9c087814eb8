"""The `palm` command."""

import dataclasses
import inspect
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from palm.pipeline import Pipeline

app = typer.Typer(
    name="palm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="From everyone's pairwise preferences to a few LoRA policies, with a proof of how good that few is.\n\n"
    "`palm run CONFIG.yaml` does it all, stage by stage: data, base, embed, fit, sample, score, plan, train, measure, route, "
    "report. Each stage's result is kept with a manifest: a second run does only what a changed configuration calls for, and a "
    "killed run goes on where it was.\n\n"
    "Settings after the file override it: `palm run CONFIG.yaml seed=1 plan.size=4`.",
)

ConfigArgument = Annotated[Path, typer.Argument(help="The run's YAML file, such as recipes/configs/planted/pipeline.yaml.")]
SettingsArgument = Annotated[
    list[str] | None, typer.Argument(help="Settings that override the file, such as seed=1 plan.size=4.", show_default=False)
]


def _pipeline(config_path: Path, settings: Sequence[str] | None, *, checked: bool = True) -> "Pipeline":
    from palm.pipeline import STAGES, Pipeline, check, load_config
    from palm.progress import bars
    from palm.ranks import rank

    config = load_config(config_path, settings or ())
    if checked:
        check(config)
    return Pipeline(STAGES, config, track=bars, say=typer.echo if rank() == 0 else lambda line: None)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"palm {version('palm-align')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of the command itself."""


@app.command()
def run(config: ConfigArgument, settings: SettingsArgument = None) -> None:
    """Run every stage that is not done, in order, and end with the report."""
    pipeline = _pipeline(config, settings)
    ran = pipeline.run()
    typer.echo(f"{len(ran)} stages run, {len(pipeline.stages) - len(ran)} were done before")
    typer.echo(f"report: {pipeline.result('report') / 'index.html'}")
    typer.echo(f"portfolio: {pipeline.result('route') / 'portfolio'}")


@app.command()
def status(config: ConfigArgument, settings: SettingsArgument = None) -> None:
    """Say what is there: for every stage whether it is done, begun, stale or damaged, and why.

    CONFIG is the run's YAML file, or the folder of a run (then stages are shown as their manifests have them).
    """
    if config.is_dir():
        _status_of_folder(config)
        return
    pipeline = _pipeline(config, settings, checked=False)
    for name, stage in pipeline.stages.items():
        state = pipeline.state(name)
        made = f"{state.manifest.created}, {state.manifest.seconds:.1f} s" if state.manifest else ""
        typer.echo(f"{name:8s} {state.state:8s} {made or stage.summary}{'; ' + state.detail if state.detail else ''}")


def _status_of_folder(folder: Path) -> None:
    from palm.artifacts import ArtifactError, read_manifest
    from palm.pipeline import STAGES

    for stage in STAGES:
        begun = (folder / f".{stage.name}.partial").exists()
        try:
            manifest = read_manifest(folder / stage.name)
        except ArtifactError as error:
            typer.echo(f"{stage.name:8s} damaged  {error}")
            continue
        if manifest is None:
            typer.echo(f"{stage.name:8s} {'begun' if begun else 'missing':8s} {stage.summary}")
        else:
            size = sum(entry["bytes"] for entry in manifest.files.values())
            facts = f"{manifest.created}, {manifest.seconds:.1f} s, {len(manifest.files)} files, {size:,} bytes"
            typer.echo(f"{stage.name:8s} made     {facts}")


def _settings_of(stage: str) -> str:
    """The description of the configuration's section that a stage reads, for `--help`."""
    from palm.pipeline.config import Config

    section = {"embed": "features", "fit": "rewards", "sample": "candidates", "score": "features"}.get(stage, stage)
    return describe(get_type_hints(Config)[section], f"{section}.")


def describe(kind: Any, prefix: str) -> str:
    """The settings of a configuration's dataclass, for `--help`: what each means, and its default."""
    words = inspect.cleandoc(kind.__doc__ or "").replace("Attributes:\n", "")
    described = re.sub(r"\n {8,}", " ", words)  # an entry goes on over the line's end
    listed = re.sub(r"^ {4}([^:\n]+):", r"- **\1**:", described, flags=re.MULTILINE)
    values = {field.name: _default(field) for field in dataclasses.fields(kind)}
    defaults = ", ".join(f"{name}={value}" for name, value in values.items() if not dataclasses.is_dataclass(value))
    nested = "".join(describe(type(value), f"{prefix}{name}.") for name, value in values.items() if dataclasses.is_dataclass(value))
    return f"\n\nSettings, as {prefix}NAME=VALUE:\n\n{listed}\n\nDefaults: {defaults}{nested}"


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _stage_command(name: str, summary: str) -> Callable[..., None]:
    def command(config: ConfigArgument, settings: SettingsArgument = None) -> None:
        pipeline = _pipeline(config, settings)
        pipeline.run(only=name)
        typer.echo(f"{name}: {pipeline.result(name)}")

    command.__doc__ = (
        f"Run the stage {name} alone: {summary}.\n\nThe stages it needs must be done; its message says which are not. "
        f"A stage that is done, with nothing changed, is left as it is.{_settings_of(name)}"
    )
    return command


@app.command()
def route(
    target: Annotated[Path, typer.Argument(help="The run's YAML file, or a portfolio's folder with --weight.")],
    settings: SettingsArgument = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(help="A weight to route, such as 0.2,0.3,0.5; may be given several times.", show_default=False),
    ] = None,
) -> None:
    """Run the stage route alone, or ask a finished portfolio which policy a weight goes to.

    `palm route CONFIG.yaml` assembles the portfolio to serve and routes every user. `palm route FOLDER --weight 0.2,0.3,0.5`
    prints the policy for that weight, its utility and a bound on its regret.
    """
    if not weight and target.is_dir():
        raise ValueError(f"--weight: expected a weight to route with the portfolio in {target}, such as 0.2,0.3,0.5; got none")
    if not weight:
        _stage_command("route", "")(target, settings)
        return
    import numpy as np

    from palm.routing import Router

    router = Router.from_pretrained(target)
    for text in weight:
        try:
            numbers = np.array([float(entry) for entry in text.split(",")])
        except ValueError:
            raise ValueError(f"--weight: expected numbers separated by commas, got {text!r}") from None
        routes = router.route(numbers)
        typer.echo(f"{text}: {routes.policy[0]}, utility {routes.utility[0]:.4f}, regret at most {routes.regret_bound[0]:.4f}")


@app.command()
def jobs(
    config: ConfigArgument,
    settings: SettingsArgument = None,
    slurm: Annotated[Path | None, typer.Option(help="Also write a Slurm array script here.", show_default=False)] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="An option of sbatch for that script, such as --gpus=1; may be given several times.")
    ] = None,
) -> None:
    """Prepare the training of the members for others to do: a manifest with one command per member, and a Slurm script.

    What members share (the reference's log-probabilities, shared first steps) is made now. RUN/jobs/members.json then lists a
    command for every member that is not trained yet; they are independent, may be run anywhere that sees the run's folder, and
    again. `train.launch.command="accelerate launch --config_file FILE"` lets each of them run on several processes. When they are
    done, `palm train CONFIG` (or `palm run CONFIG`) collects what they made, and trains what is missing.
    """
    from palm.pipeline.fanout import write_jobs
    from palm.policies.jobs import write_slurm

    made = write_jobs(_pipeline(config, settings))
    if made is None:
        typer.echo("train: done before, nothing changed; there is nothing to run")
        return
    path, manifest = made
    for job in manifest.jobs:
        typer.echo(f"{job.id}: {' '.join(job.command)}")
    typer.echo(f"{len(manifest.jobs)} members to train: {path}")
    if slurm is not None and manifest.jobs:
        write_slurm(manifest, slurm, options=sbatch or ())
        typer.echo(f"sbatch {slurm}")


@app.command()
def member(
    config: ConfigArgument,
    policy: Annotated[str, typer.Argument(help="Id of the member, such as policy-0.")],
    settings: SettingsArgument = None,
) -> None:
    """Train one member of a run that `palm jobs`, or a pool, has prepared; one that is trained is left as it is."""
    from palm.pipeline.fanout import train_member
    from palm.ranks import rank

    said = train_member(_pipeline(config, settings), policy)
    if rank() == 0:
        typer.echo(said)


def _refine(config: ConfigArgument, settings: SettingsArgument = None) -> None:
    from palm.pipeline.refining import refine

    served = refine(_pipeline(config, settings))
    typer.echo(f"portfolio: {served / 'portfolio'}")
    typer.echo(f"record: {served / 'refine.json'}")


_refine.__doc__ = f"""Go on training where the measured gap is, until it is as small as wanted or the budget is spent.

Works on a run whose members are trained and measured (`palm run CONFIG`), such as `palm refine CONFIG refine.epsilon=0.03
refine.most=2`. Each round certifies what was measured over every weight, trains one more policy at the worst weight, beginning
with a copy of the nearest trained adapter, and measures it.

Held-out prompts are parted: some choose weights and members, the others only certify. The gap in the last line is of those
others, so it is not flattered by the choice; the target is compared with the first.

RUN/refine/served/portfolio is what `palm route FOLDER --weight`, `palm show` and Router read; refine.json beside it has every
round. Members that turn out not to be needed stay in RUN/refine/rounds. Killed, it goes on where it was; with a larger
refine.most it goes on after the rounds there are.{_settings_of("refine")}
"""
app.command("refine")(_refine)

PortfolioArgument = Annotated[Path, typer.Argument(help="A portfolio's folder: with portfolio.json, such as RUN/plan.")]


@app.command()
def show(folder: PortfolioArgument) -> None:
    """Explain a portfolio: who each policy is for, what is certified for every weight, and what one more policy would buy.

    FOLDER has portfolio.json: RUN/plan (as planned), RUN/measure (as trained) or RUN/route/portfolio (as served) of a run. The
    curve is shown where plan.json lies beside it, and how many users go to each policy where routes.json lies beside or above it.
    """
    from palm.portfolio import Portfolio
    from palm.portfolio.beside import curve_beside, users_beside
    from palm.portfolio.explain import show as explained

    portfolio = Portfolio.from_pretrained(folder)
    for line in explained(portfolio, curve=curve_beside(folder), users=users_beside(folder)):
        typer.echo(line)


@app.command("plan-scores")
def plan_scores(config: ConfigArgument, settings: SettingsArgument = None) -> None:
    """Plan on a table of responses that were scored on several attributes, with nothing learned or trained.

    Such as `palm plan-scores recipes/configs/nlg_multiattr/topical_chat.yaml`. Ends with the portfolio and its certificate in
    OUTPUT/plan, which `palm show` and `palm verify` read, and OUTPUT/report.md with gap against size.
    """
    from palm.pipeline.config import read_config
    from palm.pipeline.score_plan import ScorePlan, run_score_plan
    from palm.progress import bars

    wanted = read_config(config, settings or (), ScorePlan)
    planned = run_score_plan(wanted, track=bars)
    typer.echo(f"{len(planned)} policies: {Path(wanted.output) / 'plan'}")
    typer.echo(f"report: {Path(wanted.output) / 'report.md'}")


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(help="A portfolio's folder, before.")],
    second: Annotated[Path, typer.Argument(help="A portfolio's folder, after.")],
) -> None:
    """Say what changed from one portfolio to another: bases, policies, values, the certificate, and who is served better.

    Such as `palm diff RUN/plan RUN/measure` for what training made of the plan. Policies are matched by their ids.
    """
    from palm.portfolio import Portfolio
    from palm.portfolio.explain import diff as changes

    for line in changes(Portfolio.from_pretrained(first), Portfolio.from_pretrained(second)):
        typer.echo(line)


@app.command()
def verify(
    folder: PortfolioArgument,
    rewards: Annotated[
        Path | None,
        typer.Option(
            help="Reward tensor of the prompts that the certificate is for; in a run's folder it is found (RUN/score).",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[int, typer.Option(help="Random weights that look for a counterexample.", min=1)] = 100_000,
) -> None:
    """Check a portfolio's certificate again, with code that shares nothing with what made it, line by line.

    Without rewards only what portfolio.json says of itself can be compared; with them values, cells, the worst weights and the
    bound on the number of policies are counted again by other methods, and random weights and local ascent look for a weight
    that breaks the certificate. The exit status is 1 if a line fails.
    """
    from palm.portfolio.beside import rewards_beside
    from palm.portfolio.verify import sound
    from palm.portfolio.verify import verify as check_again

    rewards = rewards or rewards_beside(folder)
    lines = check_again(folder, rewards, weights=weights)
    for line in lines:
        typer.echo(str(line))
    failing = sum(line.verdict == "FAILS" for line in lines)
    typer.echo(f"{len(lines)} lines, {failing} fail" + (f"; rewards: {rewards}" if rewards else ""))
    if not sound(lines):
        raise typer.Exit(1)


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished run, such as runs/planted.")],
    samples: Annotated[
        int, typer.Option(help="New responses of every policy to each prompt; 0: those of the run, and no divergences.", min=0)
    ] = 4,
    prompts: Annotated[int, typer.Option(help="Held-out prompts that they answer.", min=2)] = 40,
    features: Annotated[str, typer.Option(help="What texts are compared by: tfidf, or a language model's folder or id.")] = "tfidf",
    draws: Annotated[int, typer.Option(help="Bootstrap samples.", min=2)] = 400,
    level: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of everything random here.", min=0)] = 0,
    plots: Annotated[bool, typer.Option(help="Draw pictures (needs Matplotlib).")] = True,
) -> None:
    """Evaluate a finished run: how well it covers everyone, and how different its policies are.

    Coverage: the multiplicative and additive gap and the captured gain, worst and mean, over the whole simplex (the worst is exact)
    and over the run's users, from what trained policies were measured to give on held-out prompts.

    Diversity: which policy serves whom (perplexity: how many are used, in effect); distinct-n, self-BLEU and Vendi score of texts
    within each policy and between them; KL divergence of every pair of policies, from new samples of each.

    Every number has an interval. FOLDER/evaluation gets evaluation.json, evaluation.md and pictures; no stage's result changes. The
    last line is the JSON, too. scripts/evaluate_judge.py asks a language model who wrote better.
    """
    from palm.artifacts import json_line, write_json, write_text
    from palm.evaluation.report import check_plots
    from palm.pipeline.evaluate import coverage_lines, coverage_of_run, diversity_lines, diversity_of_run
    from palm.pipeline.finished import FinishedRun
    from palm.progress import bars

    if plots:
        check_plots()
    run = FinishedRun.read(folder)
    target = folder / "evaluation"
    coverage = coverage_of_run(run, draws=draws, level=level, seed=seed)
    settings: dict[str, Any] = {"draws": draws, "level": level, "samples": samples, "prompts": prompts, "seed": seed}
    diversity = diversity_of_run(run, features=features, track=bars, **settings)
    record = {"run": str(folder), "coverage": coverage, "diversity": diversity}
    lines = [*coverage_lines(coverage), "", *diversity_lines(diversity)]
    write_json(target / "evaluation.json", record)
    write_text(target / "evaluation.md", "\n".join(lines) + "\n")
    if plots:
        from palm.evaluation.evaluation_pictures import write_pictures

        write_pictures(target, coverage=coverage, diversity=diversity)
    for line in [*lines, "", f"written: {target}", json_line(record)]:
        typer.echo(line)


def _add_stage_commands() -> None:
    from palm.pipeline.summaries import SUMMARIES

    for name, summary in SUMMARIES.items():
        if name != "route":  # it has more to it, above
            app.command(name)(_stage_command(name, summary))


_add_stage_commands()


def _quiet() -> None:
    """Keep other libraries' chatter off the terminal; their errors still come through."""
    for name, value in {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch|transformers|trl|peft|accelerate")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)


def run_stage(name: str, config: str | Path, settings: Sequence[str] = ()) -> None:
    """Run one stage as its command does; several processes may do it together (`accelerate launch`).

    Args:
        name: of the stage.
        config: the run's YAML file.
        settings: that override it.
    """

    def work() -> None:
        from palm.ranks import rank

        pipeline = _pipeline(Path(config), settings)
        pipeline.run(only=name)
        if rank() == 0:
            typer.echo(f"{name}: {pipeline.result(name)}")

    _guarded(work)


def run_reward_training(config: str | Path, settings: Sequence[str] = ()) -> None:
    """Train a reward backbone end to end (recipes/train_rewards.py); several processes may do it together.

    Args:
        config: the run's YAML file.
        settings: that override it.
    """

    def work() -> None:
        from palm.pipeline.config import read_config
        from palm.pipeline.reward_config import RewardTraining, check_reward_training
        from palm.pipeline.reward_stages import accuracy_lines, reward_pipeline
        from palm.progress import bars, silent
        from palm.ranks import rank

        run = read_config(config, settings, RewardTraining)
        check_reward_training(run)
        first = rank() == 0
        pipeline = reward_pipeline(run, track=bars if first else silent, say=typer.echo if first else lambda line: None)
        pipeline.run()
        if first:
            for line in accuracy_lines(pipeline.folder, run.data.shots):
                typer.echo(line)
            typer.echo(f"backbone: {pipeline.result('backbone')}, reward model: {pipeline.result('reward')}")

    _guarded(work)


def run_writing_recipe(*, model: str | None, portfolio: Path | None, policies: str | None, **options: Any) -> None:
    """Write texts (recipes/sample.py, recipes/generate.py); several processes may do it together.

    Args:
        model: the base; a portfolio's own unless given.
        portfolio: whose members write; None for the reference alone.
        policies: their ids, with commas; all of them unless given.
        options: other attributes of `palm.pipeline.writing.Writing`.
    """

    def work() -> None:
        from palm.pipeline.writing import Writing, run_writing, served_members
        from palm.progress import bars, silent
        from palm.ranks import rank

        key = os.environ.get("OPENAI_API_KEY") if options["server"] is not None else None
        adapters, base = dict[str, Path](), None
        wanted: tuple[str, ...] = ("reference",)
        chosen = model
        if portfolio is not None:
            chosen, adapters, base = served_members(portfolio, model, server=options["server"] is not None)
            wanted = tuple(adapters) if policies is None else tuple(policies.split(","))
        writing = Writing(model=chosen or "", adapters=adapters, policies=wanted, base_model=base, key=key, **options)
        written = run_writing(writing, track=bars if rank() == 0 else silent)
        if rank() == 0:
            typer.echo(f"{options['output']}: {written} responses written now by this process")

    _guarded(work)


def main() -> None:
    """Entry point of the `palm` command."""
    _guarded(app)


def _guarded(work: Callable[[], None]) -> None:
    """Expected errors become one line and exit status 1; PALM_DEBUG=1 shows their traceback."""
    _quiet()
    from safetensors import SafetensorError

    from palm.artifacts import ArtifactError
    from palm.pipeline.runner import PipelineError

    sys.path.insert(0, str(Path.cwd()))  # reward functions beside the configuration, as `python -m` would find them
    try:
        work()
    except (ValueError, OSError, ImportError, SafetensorError, ArtifactError, PipelineError) as error:
        if os.environ.get("PALM_DEBUG"):
            raise
        typer.echo(f"palm: {' '.join(str(error).split())}", err=True)  # other libraries' messages have several lines
        sys.exit(1)


if __name__ == "__main__":
    main()
