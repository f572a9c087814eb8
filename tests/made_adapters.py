"""LoRA adapters with random weights, large enough to change what a tiny model writes, without training."""

from pathlib import Path

import torch

from palm.lm.load import LanguageModel
from palm.policies.adapters import lora_config, publish_adapter


def make_adapters(
    language_model: LanguageModel, folder: Path, names: tuple[str, ...], *, std: float = 0.12, **lora: object
) -> dict[str, Path]:
    """One adapter per name; the model is as before."""
    from peft import get_peft_model

    made = {}
    for number, name in enumerate(names):
        model = get_peft_model(language_model.model, lora_config({"r": 8, "lora_alpha": 16, **lora}))
        torch.manual_seed(number)
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.data.normal_(std=std)
        model.save_pretrained(folder / f"saved-{name}")
        model.unload()
        language_model.model.requires_grad_(False)
        publish_adapter(folder / f"saved-{name}", folder / name, base_model="tiny-base")
        made[name] = folder / name
    return made
