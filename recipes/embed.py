"""Turn the texts of a run into features, on as many processes as there are.

    torchrun --nproc_per_node 2 recipes/embed.py --config recipes/configs/planted/pipeline.yaml
    accelerate launch --config_file recipes/configs/accelerate/multi_gpu.yaml recipes/embed.py --config my.yaml

The stages before it must be done (`palm data`, `palm base`). What is written is the stage `embed` of the run's folder, the same
numbers as `palm embed CONFIG` with one process gives. Each process writes shards of its own; shards that a killed run completed
are kept. Raises what `palm embed` raises.
"""

from typing import Annotated

import typer

from palm.commands.recipes import run_stage


def main(
    config: Annotated[str, typer.Option(help="The run's YAML file.")],
    settings: Annotated[list[str] | None, typer.Argument(help="Settings that override it, such as features.pooling=mean.")] = None,
) -> None:
    """Turn the texts of a run into features."""
    run_stage("embed", config, settings or [])


if __name__ == "__main__":
    typer.run(main)
