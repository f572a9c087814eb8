"""Train a language or reward model end to end as the backbone of a personalised reward, on as many processes as there are.

    python recipes/train_rewards.py --config recipes/configs/planted/rewards.yaml
    torchrun --nproc_per_node 2 recipes/train_rewards.py --config recipes/configs/planted/rewards.yaml
    torchrun --nproc_per_node 2 recipes/train_rewards.py --config my.yaml rewards.method=VRF trainer.learning_rate=5e-5

Supported: Bradley-Terry, LoRe and VRF; every weight trained, or LoRA; any causal language model, classifier or reward model; one
process or several (DDP). A run that is killed goes on from its last checkpoint when it is started again with the same settings.
Refused, with a message: unknown keys, FSDP and DeepSpeed, options of transformers.TrainingArguments that would be without effect.
"""

from typing import Annotated

import typer

from palm.commands.describe import describe
from palm.commands.recipes import run_reward_training
from palm.pipeline.reward_config import RewardTraining

_HELP = f"""Train a language or reward model end to end as the backbone of a personalised reward.

What it leaves in `output`: `backbone/`, a model that transformers, `features.model` and `palm embed` read as any other (LoRA is
merged into it), and `reward/`, the same kind of reward model that `palm fit` makes: `palm.rewards.load_reward_model` reads it.
Beside them the stages on the way, each with a manifest; what is done is not done again.

Pairs are trained on in *blocks*: up to `backbone.targets` pairs of one user, with `backbone.context` other pairs of theirs that
say who the user is, dealt anew each epoch (VRF). `trainer.per_device_train_batch_size` counts blocks; memory is that of twice as
many texts as a block has pairs. Several processes share a step's blocks: two with a batch of 4 do what one does with 8.

The last lines are the accuracy on held-out pairs of users seen in training and of others, inferred from `data.shots` pairs, and the
same for simple models on the features as they were before training.
{describe(RewardTraining, "")}
"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command(help=_HELP)
def main(
    config: Annotated[str, typer.Option(help="The run's YAML file, such as recipes/configs/planted/rewards.yaml.")],
    settings: Annotated[
        list[str] | None, typer.Argument(help="Settings that override it, such as trainer.learning_rate=5e-5 rewards.method=VRF.")
    ] = None,
) -> None:
    """Train a reward backbone end to end."""
    run_reward_training(config, settings or [])


if __name__ == "__main__":
    app()
