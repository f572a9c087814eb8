"""`palm route`, `palm show`, `palm plan-scores`, `palm diff`, `palm verify`: a portfolio, and what can be asked of it."""

from pathlib import Path
from typing import Annotated

import typer

from palm.commands.arguments import ConfigArgument, SettingsArgument
from palm.commands.stages import stage_command

PortfolioArgument = Annotated[Path, typer.Argument(help="A portfolio's folder: with portfolio.json, such as RUN/plan.")]


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
        stage_command("route", "")(target, settings)
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


def plan_scores(config: ConfigArgument, settings: SettingsArgument = None) -> None:
    """Plan on a table of responses that were scored on several attributes, with nothing learned or trained.

    Such as `palm plan-scores recipes/configs/nlg_multiattr/topical_chat.yaml`. Ends with the portfolio and its certificate in
    OUTPUT/plan, which `palm show` and `palm verify` read, and OUTPUT/report.md with gap against size. OUTPUT appears whole or not
    at all; where it is there already and nothing changed, nothing is done.
    """
    from palm.pipeline.read_config import read_config
    from palm.pipeline.score_plan import ScorePlan, run_score_plan
    from palm.portfolio.explain import policies
    from palm.progress import bars

    wanted = read_config(config, settings or (), ScorePlan)
    planned = run_score_plan(wanted, track=bars, say=typer.echo)
    typer.echo(f"{policies(len(planned))}: {Path(wanted.output) / 'plan'}")
    typer.echo(f"report: {Path(wanted.output) / 'report.md'}")
    if planned.confidence is None or planned.confidence.caution:
        typer.echo(
            "over all prompts: " + (planned.confidence.caution if planned.confidence else "nothing is said from a single one")
        )


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


def verify(
    folder: PortfolioArgument,
    rewards: Annotated[
        Path | None,
        typer.Option(
            help="Reward tensor of the prompts that the certificate is for; in a run's folder it is found (RUN/score).",
            show_default=False,
        ),
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            help="Reward tensor of the prompts that confidence is stated from; in a run's folder it is found (RUN/score).",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[int, typer.Option(help="Random weights that look for a counterexample.", min=1)] = 100_000,
) -> None:
    """Check a portfolio's certificate again, with code that shares nothing with what made it, line by line.

    Without rewards only what portfolio.json says of itself can be compared; with them values, cells, the worst weights and the
    bound on the number of policies are counted again by other methods, and random weights and local ascent look for a weight
    that breaks the certificate. Of what is stated of all prompts the estimate is counted again on the prompts held out. The exit
    status is 1 if a line fails.
    """
    from palm.portfolio.beside import held_out_beside, rewards_beside
    from palm.portfolio.verify import sound
    from palm.portfolio.verify import verify as check_again

    rewards = rewards or rewards_beside(folder)
    lines = check_again(folder, rewards, held_out=held_out or held_out_beside(folder), weights=weights)
    for line in lines:
        typer.echo(str(line))
    failing = sum(line.verdict == "FAILS" for line in lines)
    unknown = sum(line.verdict == "open" for line in lines)
    typer.echo(f"{len(lines)} lines, {failing} fail, {unknown} open" + (f"; rewards: {rewards}" if rewards else ""))
    if not sound(lines):
        raise typer.Exit(1)
