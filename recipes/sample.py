"""Sample candidates from the reference, on as many processes as there are.

    python recipes/sample.py --model runs/planted/base/model --prompts prompts.txt --output candidates.jsonl --count 32
    torchrun --nproc_per_node 2 recipes/sample.py --model MODEL --prompts prompts.jsonl --output candidates.jsonl
    python recipes/sample.py --server http://localhost:8000/v1 --model NAME --prompts prompts.jsonl --output candidates.jsonl

Each finished batch is kept: the same command again goes on where a killed one was. A response's seed comes from its prompt, so the
number of processes changes nothing. `--help` says more. Raises one line for a bad argument.
"""

from typing import Annotated

import typer

from palm.commands import writing_options as options
from palm.commands.recipes import run_writing_recipe

_HELP = """Sample candidates from the reference: so many responses to each prompt, at temperature 1, with no top-k or top-p.

Rows of the output, JSON lines: prompt, policy ("reference"), text, prompt_tokens, tokens, seed.

Who writes: transformers here (the default); vLLM here (`--backend vllm`; `pip install vllm`); or a server with OpenAI's interface
(`--server http://HOST:8000/v1`; start vLLM's with `--generation-config vllm`, or it changes the distribution by the model's own
settings). From the same seed each draws differently, but always the same.

Killed, the same command goes on after its finished batches (OUTPUT.parts); several processes (`accelerate launch`, `torchrun`)
share the batches, and the file is the same as one process writes.
"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command(help=_HELP)
def main(
    model: Annotated[str, typer.Option(help="Folder or Hub id of the reference; with --server, what the server calls it.")],
    prompts: options.Prompts,
    output: options.Output,
    count: Annotated[int, typer.Option(help="Responses to each prompt.")] = 8,
    max_new_tokens: options.MaxNewTokens = 128,
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    backend: options.Backend = "transformers",
    server: options.Server = None,
) -> None:
    """Sample candidates from the reference."""
    run_writing_recipe(
        model=model,
        portfolio=None,
        policies=None,
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
