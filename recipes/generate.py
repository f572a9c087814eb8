"""Write texts with the members of a portfolio, on as many processes as there are.

    python recipes/generate.py --portfolio runs/planted/route/portfolio --prompts prompts.txt --output texts.jsonl
    torchrun --nproc_per_node 2 recipes/generate.py --portfolio PORTFOLIO --prompts prompts.jsonl --output texts.jsonl
    python recipes/generate.py --server http://localhost:8000/v1 --model NAME --portfolio PORTFOLIO --prompts p.txt --output t.jsonl

Members go through the base together: a batch has rows of several, each through its own adapter. Each finished batch is kept: the
same command again goes on where a killed one was. `--help` says more. Raises one line for a bad argument.
"""

from pathlib import Path
from typing import Annotated

import typer

from palm.commands import writing_options as options
from palm.commands.recipes import run_writing_recipe

_HELP = """Write texts with the members of a portfolio: at temperature 1, with no top-k or top-p.

Rows of the output, JSON lines: prompt, policy (its id, or "reference"), text, prompt_tokens, tokens, seed. A prompt has the same
seeds for every policy, so that policies are compared on the same draws.

Who writes: transformers here (the default; several members in one batch); vLLM here (`--backend vllm`; `pip install vllm`); or a
server with OpenAI's interface (`--server`), which knows each member by its id:
`vllm serve BASE --enable-lora --lora-modules ID=PORTFOLIO/policies/ID ... --generation-config vllm`.

Killed, the same command goes on after its finished batches (OUTPUT.parts); several processes (`accelerate launch`, `torchrun`)
share the batches, and the file is the same as one process writes.
"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command(help=_HELP)
def main(
    portfolio: Annotated[Path, typer.Option(help="Folder with portfolio.json and policies, such as RUN/route/portfolio.")],
    prompts: options.Prompts,
    output: options.Output,
    policies: Annotated[
        str | None, typer.Option(help="Ids, with commas; 'reference' for the base. All members, if not given.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The base: the portfolio's own unless given; the server's name for it.")] = None,
    count: Annotated[int, typer.Option(help="Responses of each policy to each prompt.")] = 1,
    max_new_tokens: options.MaxNewTokens = 128,
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    backend: options.Backend = "transformers",
    server: options.Server = None,
) -> None:
    """Write texts with the members of a portfolio."""
    run_writing_recipe(
        model=model,
        portfolio=portfolio,
        policies=policies,
        prompts=prompts,
        output=output,
        count=count,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        seed=seed,
        backend=backend,
        server=server,
    )


if __name__ == "__main__":
    app()
