"""Options that the recipes which write texts share: recipes/sample.py and recipes/generate.py."""

from pathlib import Path
from typing import Annotated

import typer

Prompts = Annotated[Path, typer.Option(help="Prompts: text, one a line, or .jsonl with the key prompt (text or messages).")]
Output = Annotated[Path, typer.Option(help="JSONL file to write.")]
MaxNewTokens = Annotated[int, typer.Option(help="Longest response, in tokens.")]
BatchSize = Annotated[int, typer.Option(help="Responses at a time; with a server, requests at a time.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Backend = Annotated[str, typer.Option(help="transformers or vllm.")]
Server = Annotated[str | None, typer.Option(help="Address of a server, such as http://localhost:8000/v1.")]
