"""What a model's own description tells before the first stage: that it is there, its layers, and where LoRA fits.

Nothing is downloaded and no weights are made: a model on the Hub is looked at if it was downloaded before.
"""

from pathlib import Path
from typing import Any

from palm.lm.load import is_folder_name
from palm.lm.pretrain import scratch_config
from palm.pipeline.config import Config
from palm.pipeline.data_stages import BASE, SCRATCH, uses_base
from palm.pipeline.policy_stages import training_options
from palm.pipeline.runner import PipelineError


def check_models(config: Config) -> None:
    """See that models are there, that `features.layer` exists and that LoRA's options fit the base model.

    Raises:
        PipelineError: one does not; the message names the key.
    """
    base = _scratch(config) if config.base.model == SCRATCH else _described("base.model", config.base.model, config.base.revision)
    for source in config.features.reward_models:
        _described("features.reward_models", source, None)
    features = config.features
    if uses_base(features):
        _check_layer(features.layer, base)
    elif features.model != BASE:
        _check_layer(features.layer, _described("features.model", features.model, features.revision))
    if config.train.lora and base is not None:
        _check_lora(config, base)


def _scratch(config: Config) -> Any:
    return scratch_config(config.base.architecture, vocabulary=config.base.vocabulary, max_length=config.base.max_length)


def _described(key: str, source: str, revision: str | None) -> Any:
    from transformers import AutoConfig

    local = Path(source).is_dir()
    if is_folder_name(source) and not local:
        raise PipelineError(f"{key}: expected a folder or a Hub id, got {source!r}: there is no such folder")
    try:
        return AutoConfig.from_pretrained(source, revision=revision, local_files_only=True)
    except (OSError, ValueError) as error:
        if not local:
            return None  # a Hub id that was not downloaded yet; the stage that downloads it says what is wrong
        raise PipelineError(f"{key}: expected the folder or Hub id of a model, got {source!r}: {error}") from error


def _check_layer(layer: int, described: Any) -> None:
    layers = None if described is None else getattr(described.get_text_config(), "num_hidden_layers", None)
    if layers is not None and not -layers - 1 <= layer <= layers:
        raise PipelineError(f"features.layer: expected a hidden layer from {-layers - 1} to {layers}, got {layer}")


def _check_lora(config: Config, described: Any) -> None:
    """Put the adapter on a skeleton of the base, whose tensors have shapes and no numbers."""
    import torch
    from peft import get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers import AutoModelForCausalLM

    from palm.policies.adapters import lora_config

    wanted = lora_config(training_options(config).lora)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(described)
        try:
            get_peft_model(skeleton, wanted)
        except ValueError as error:
            raise PipelineError(f"train.lora: expected what fits the base model, but {' '.join(str(error).split())}") from error
    reads, writes = skeleton.get_input_embeddings(), skeleton.get_output_embeddings()
    if isinstance(reads, BaseTunerLayer):
        raise PipelineError(
            "train.lora.target_modules: expected layers between the embeddings, got the one that reads tokens: soups and match_kl "
            "leave its adapter as it is"
        )
    if isinstance(writes, BaseTunerLayer):
        raise PipelineError(
            "train.lora.target_modules: expected layers between the embeddings, got the one that writes tokens, whose adapter TRL "
            "does not train"
        )
