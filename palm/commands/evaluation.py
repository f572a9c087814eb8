"""`palm evaluate`: what a finished run is worth."""

from pathlib import Path
from typing import Annotated, Any

import typer


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
    within each policy and between them, at most 120 of each; KL divergence of every pair of policies, from new samples of each.

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
