"""A language or reward model with a head on its hidden states, fully trained or through LoRA."""

import dataclasses
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from palm.backbone.batches import Batch
from palm.backbone.heads import HeadModule
from palm.features.encode import Encoder
from palm.features.pooling import pool
from palm.lm.load import pick_device
from palm.lm.training import check_alpha


class RewardBackbone(torch.nn.Module):
    """The transformer under an encoder's language-modelling or classification head, and a reward head on its hidden states.

    The encoder's model shares its weights, so it changes with training; its own head takes no part.
    """

    def __init__(self, encoder: Encoder, head: HeadModule, lora: Mapping[str, Any] | None) -> None:
        """Put a head on an encoder.

        Args:
            encoder: its pooling and layer say what the head reads.
            head: on features of the encoder's width.
            lora: fields of peft.LoraConfig; None: every weight of the transformer is trained.
        """
        super().__init__()
        self.pooling, self.layer = encoder.pooling, encoder.layer
        self.base: Any = encoder.model.base_model
        self.head = head.to(encoder.model.device)
        if lora is None:
            self.base.requires_grad_(True)
        else:
            from peft import get_peft_model

            self.base = get_peft_model(self.base, lora_config(lora))

    def features(self, batch: Batch) -> torch.Tensor:
        """(t, d) features of a part's texts, as the encoder gives them."""
        found = []
        for ids, attended, response in zip(batch["ids"], batch["attended"], batch["response"], strict=True):
            output = self.base(input_ids=ids, attention_mask=attended, output_hidden_states=True, use_cache=False)
            found.append(pool(output.hidden_states[self.layer].float(), attended, response, self.pooling))
        return torch.cat(found)[batch["place"]]

    def forward(self, **batch: Any) -> torch.Tensor:
        """The loss of a part; all of it in one call, so that processes wait for each other once a step."""
        features = self.features(batch)
        with torch.autocast(features.device.type, enabled=False):
            return self.head.loss(self.head.standardised(features), batch)

    # transformers.Trainer would pass its own count of items to whatever takes any keyword; shares are counted already.
    accepts_loss_kwargs = False

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """As transformers' models do it."""
        self.base.gradient_checkpointing_enable(**options)

    def learning_rates(self, head: float) -> dict[int, float]:
        """Rates of the head's parameters by their `id`: their own, or `head`."""
        own = self.head.own_rates()
        return {id(parameter): own.get(name, head) for name, parameter in self.head.named_parameters()}

    def trained_state(self) -> dict[str, torch.Tensor]:
        """What training changes, by name."""
        return {name: value.detach() for name, value in self.named_parameters() if value.requires_grad}

    def merge(self) -> None:
        """Make LoRA's changes, if there are any, the encoder's own weights, in float32."""
        if hasattr(self.base, "merge_and_unload"):
            self.base = self.base.float().merge_and_unload()
        self.base.requires_grad_(False)
        self.base.eval()
        self.head.eval()


def lora_config(options: Mapping[str, Any]) -> Any:
    """PEFT's LoraConfig for a backbone, which is merged after training and so may be of any kind.

    Args:
        options: fields of LoraConfig; by default rank 16, alpha 32, all linear layers.

    Raises:
        ValueError: an option is unknown, or palm sets it.
    """
    from peft import LoraConfig

    known = [field.name for field in dataclasses.fields(LoraConfig) if field.init]
    for name in options:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"lora.{name}: peft.LoraConfig has no such option{hint}")
        if name in ("task_type", "inference_mode"):
            raise ValueError(f"lora.{name}: palm sets this itself; leave it out")
    rank = options.get("r", 16)
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"lora.r: expected a whole number of at least 1, got {rank!r}")
    check_alpha(options)
    return LoraConfig(**{"r": 16, "lora_alpha": 32, "target_modules": "all-linear", **options})


def save_backbone(encoder: Encoder, folder: Path) -> None:
    """Write an encoder's model and tokenizer so that `palm.features.encode.load_encoder` reads them."""
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)


def training_dtype(dtype: str | None, lora: Mapping[str, Any] | None) -> str:
    """The number type to load a backbone in.

    Args:
        dtype: what is asked for.
        lora: as in `RewardBackbone`; by default weights that are trained themselves are float32, those beneath adapters bfloat16 on
            a GPU that has it.

    Raises:
        ValueError: weights that are trained themselves should be in float16, whose small steps vanish.
    """
    if lora is None and dtype == "float16":
        raise ValueError("dtype: expected float32 or bfloat16 where every weight is trained, got 'float16'")
    if dtype is not None:
        return dtype
    wide = lora is None or not pick_device().startswith("cuda") or not torch.cuda.is_bf16_supported()
    return "float32" if wide else "bfloat16"
