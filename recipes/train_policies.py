"""Train one LoRA policy per weight of a plan, on as many processes as there are.

    accelerate launch recipes/train_policies.py --config recipes/configs/planted/pipeline.yaml
    accelerate launch --config_file recipes/configs/accelerate/multi_gpu.yaml \
        recipes/train_policies.py --config my.yaml train.dpo.learning_rate=2e-4

The stages before it must be done: run `palm data`, `palm base`, ... `palm plan` (`palm run` does them on the way to training
all members itself).
What is trained is the stage `train` of the run's folder, the same as `palm train CONFIG` with one process: finished members are
kept, a killed run goes on with the others, and `palm run` afterwards measures, routes and reports.

Supported: DDP on one or many nodes, DeepSpeed ZeRO, FSDP2, by the launcher's configuration. Raises what `palm train` raises.
"""

from typing import Annotated

import typer

from palm.commands.recipes import run_stage


def main(
    config: Annotated[str, typer.Option(help="The run's YAML file.")],
    settings: Annotated[
        list[str] | None, typer.Argument(help="Settings that override it, such as train.dpo.max_steps=500.")
    ] = None,
) -> None:
    """Train one LoRA policy per weight of the plan."""
    run_stage("train", config, settings or [])


if __name__ == "__main__":
    typer.run(main)
