"""Score sampled responses by given rewards, as a table that users can be drawn over.

    python recipes/sample.py --model MODEL --prompts prompts.txt --output texts.jsonl --count 8
    python recipes/score.py --responses texts.jsonl --output scored.jsonl \\
        --functions palm.rewards.traits:length --functions palm.rewards.traits:cheer
    palm run my.yaml data.source=scored.jsonl data.draw.users=80

`--help` says more. Raises one line for a bad argument.
"""

from pathlib import Path
from typing import Annotated

import typer

from palm.commands.recipes import run_scoring_recipe

_HELP = """Score responses by given rewards: Python functions, or reward models.

Rows of the output, JSON lines, one for each prompt: prompt, response_1, response_2, ..., and response_1_NAME, ... for every reward.
That is PersonalLLM's schema: with it as `data.source`, `data.draw` draws users who weigh these rewards and judge these responses.
Prompts with an empty response are left out.
"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command(help=_HELP)
def main(
    responses: Annotated[Path, typer.Option(help="Table of prompt and text, as recipes/sample.py writes it: JSONL, CSV, Parquet.")],
    output: Annotated[Path, typer.Option(help="JSONL file to write.")],
    functions: Annotated[
        list[str] | None, typer.Option(help="Reward function, package.module:name; once for each. See palm/rewards/traits.py.")
    ] = None,
    reward_models: Annotated[list[str] | None, typer.Option(help="Reward model, folder or Hub id; once for each.")] = None,
) -> None:
    """Score responses by given rewards."""
    run_scoring_recipe(responses=responses, output=output, functions=functions or [], reward_models=reward_models or [])


if __name__ == "__main__":
    app()
