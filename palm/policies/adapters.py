"""LoRA adapters on disk and on a model: plain, atomic, the same bytes for the same training."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palm.arrays import read_arrays
from palm.artifacts import ArtifactError, read_json, write_json
from palm.lm.load import LanguageModel
from palm.lm.training import check_alpha

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
RANKS = (8, 16, 32, 64)
DEFAULT_RANK = 8
SERVED_BASE = "base.json"  # of a portfolio that is served: its base's id, and the digest of its weights

_VARIANT = "a variant whose change is no plain low-rank sum; adapters could not be merged exactly, and vLLM does not load it"
_REFUSED = {
    "use_dora": "its weights are not a sum of low-rank updates, so adapters could not be merged exactly",
    "use_rslora": "its scaling differs from the one that exact merging and vLLM assume",
    "lora_bias": "vLLM refuses adapters with biases",
    "modules_to_save": "whole modules in an adapter cannot be merged, and vLLM refuses them",
    "trainable_token_indices": "rows of the embedding in an adapter cannot be merged exactly, and vLLM refuses them",
    "use_qalora": _VARIANT,
    "use_bdlora": _VARIANT,
    "arrow_config": _VARIANT,
    "kasa_config": _VARIANT,
    "monteclora_config": _VARIANT,
    "alora_invocation_tokens": _VARIANT,
    "layer_replication": "it makes another base model, which members do not share",
    "target_parameters": "changes of bare parameters are no LoRA layers, and vLLM does not load them",
}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that take something off the base model's weights
_PICKLED = "adapter_model.bin"


def lora_config(options: Mapping[str, Any]) -> Any:
    """PEFT's LoraConfig for a portfolio adapter: plain LoRA, so that PEFT and vLLM load it unchanged.

    Args:
        options: fields of LoraConfig; by default rank 8, alpha 16, all linear layers.

    Raises:
        ValueError: an option is unknown, or asks for what could not be served or merged.
    """
    import dataclasses

    from peft import LoraConfig

    known = {field.name for field in dataclasses.fields(LoraConfig) if field.init}
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"lora.{name}: peft.LoraConfig has no such option")
        if name in _REFUSED and value:
            raise ValueError(f"lora.{name}: expected it not to be set, got {value!r}: {_REFUSED[name]}")
    if options.get("bias", "none") != "none":
        raise ValueError(f"lora.bias: expected 'none', got {options['bias']!r}: vLLM refuses adapters with biases")
    start = options.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise ValueError(
            f"lora.init_lora_weights: expected one that leaves the base model as it is, got {start!r}: the adapter would fit "
            "only a base changed in the same way, which members do not share"
        )
    for name in ("rank_pattern", "alpha_pattern"):
        if options.get(name):
            raise ValueError(f"lora.{name}: expected nothing, got {options[name]!r}: soups want one rank and scale")
    if options.get("inference_mode"):
        raise ValueError("lora.inference_mode: expected False, since the adapter is trained, got True")
    rank = options.get("r", DEFAULT_RANK)
    if rank not in RANKS:
        raise ValueError(f"lora.r: expected one of {', '.join(map(str, RANKS))} (what vLLM serves), got {rank!r}")
    check_alpha(options)
    return LoraConfig(
        **{
            "r": DEFAULT_RANK,
            "lora_alpha": 16,
            "target_modules": "all-linear",
            "lora_dropout": 0.0,
            **options,
            "task_type": "CAUSAL_LM",
        }
    )


def publish_adapter(saved: Path, folder: Path, *, base_model: str) -> None:
    """Move a trainer's saved adapter to its place: two files, sorted and named by the base model's id, in one rename.

    Args:
        saved: where PEFT wrote the adapter; removed.
        folder: where it is to be.
        base_model: id to record, instead of the local path that PEFT records.

    Raises:
        ArtifactError: a number of it is not finite.
    """
    _check_finite(saved)
    config = read_json(saved / CONFIG)
    config["base_model_name_or_path"] = base_model
    config = {name: sorted(value) if isinstance(value, list) else value for name, value in sorted(config.items())}
    building = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    write_json(building / CONFIG, config)
    shutil.copyfile(saved / WEIGHTS, building / WEIGHTS)
    shutil.rmtree(saved)
    if folder.exists():
        shutil.rmtree(folder)
    building.rename(folder)


def load_into(model: Any, folder: Path) -> None:
    """Set a PEFT model's active adapter to what a folder holds.

    Raises:
        ArtifactError: the adapter is incomplete, or does not fit the model's or has another scale, under which it would be another
            policy.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    check_adapter(folder)
    check_scale(folder, model.peft_config[model.active_adapter].lora_alpha)
    try:
        found = set_peft_model_state_dict(model, load_file(folder / WEIGHTS))
    except RuntimeError as error:
        first = [*str(error).splitlines(), ""][1].strip() or str(error)  # torch names every module, after a heading
        raise ArtifactError(f"{folder / WEIGHTS}: expected an adapter of the same shape: {first}") from error
    missing = [name for name in found.missing_keys if "lora_" in name]
    if found.unexpected_keys or missing:
        what = f"lacks {missing[0]}" if missing else f"has also {found.unexpected_keys[0]}"
        raise ArtifactError(f"{folder / WEIGHTS}: expected the modules of train.lora.target_modules, but it {what}")


def served_adapters(portfolio: Path, ids: Sequence[str]) -> dict[str, Path]:
    """Where the folder of a portfolio that is served has each member's adapter."""
    return {name: portfolio / "policies" / name for name in ids}


def served_weights(portfolio: Path) -> str | None:
    """Digest of the weights that a served portfolio's adapters were trained on, if they are a folder's and it says so."""
    path = portfolio / SERVED_BASE
    weights: str | None = read_json(path).get("weights") if path.exists() else None
    return weights


def check_adapter(folder: Path, *, base_model: str | None = None) -> None:
    """See that an adapter is complete and plain, and for the base model that it is to be used with.

    Args:
        folder: of the adapter.
        base_model: id that it must have recorded; None for any.

    Raises:
        ArtifactError: a file is missing, truncated, or holds what palm does not serve; or the adapter is for another base.
    """
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or config.get("peft_type", "LORA") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise ArtifactError(f"{folder / CONFIG}: peft_type: expected 'LORA', got {kind!r}")
    for name, reason in _REFUSED.items():
        if config.get(name):
            raise ArtifactError(f"{folder / CONFIG}: {name} is set: {reason}")
    if config.get("bias", "none") != "none":
        raise ArtifactError(f"{folder / CONFIG}: bias is {config['bias']!r}: {_REFUSED['lora_bias']}")
    recorded = config.get("base_model_name_or_path")
    if base_model is not None and recorded != base_model:
        raise ArtifactError(
            f"{folder / CONFIG}: base_model_name_or_path: expected {base_model!r}, which it is loaded on, got {recorded!r}: "
            "an adapter changes the weights it was trained on and no others"
        )
    if (folder / _PICKLED).exists() and not (folder / WEIGHTS).exists():
        raise ArtifactError(f"{folder / _PICKLED}: expected {WEIGHTS}: a pickle can run code when it is read, palm never does")
    _check_finite(folder)


def check_scale(folder: Path, alpha: float) -> None:
    """See that training can go on from an adapter with this `lora_alpha`: with another its weights are another policy.

    Raises:
        ArtifactError: it has another, or one of its own for some modules.
    """
    config = read_json(folder / CONFIG)
    if (own := config.get("lora_alpha")) != alpha:
        raise ArtifactError(f"{folder / CONFIG}: lora_alpha: expected {alpha}, train.lora.lora_alpha, got {own}")
    if config.get("alpha_pattern"):
        raise ArtifactError(f"{folder / CONFIG}: alpha_pattern: expected nothing, got {config['alpha_pattern']}")


def _check_finite(folder: Path) -> None:
    for name, array in read_arrays(folder / WEIGHTS).items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ArtifactError(f"{folder / WEIGHTS}: {name}: expected finite numbers, got others: its training diverged")


def is_complete(folder: Path) -> bool:
    """Whether a readable adapter is there."""
    try:
        check_adapter(folder)
    except (ArtifactError, json.JSONDecodeError):
        return False
    return True


class Members:
    """A base model with the adapters of several policies, one of them active at a time."""

    def __init__(self, language_model: LanguageModel, adapters: Mapping[str, Path], *, base_model: str | None = None) -> None:
        """Load adapters onto a base model.

        Args:
            language_model: the base; its modules carry the adapters until `close`.
            adapters: folder of each adapter by id, at least one.
            base_model: the base's id, which every adapter must have recorded; None takes any.

        Raises:
            ArtifactError: an adapter is incomplete, not plain LoRA, or for another base.
            ValueError: there are no adapters.
        """
        from peft import PeftModel

        if not adapters:
            raise ValueError("adapters: expected at least one, got none")
        for folder in adapters.values():
            check_adapter(folder, base_model=base_model)
        self._keys = {name: f"member-{number}" for number, name in enumerate(adapters)}  # PEFT takes no dots, nor "__base__"
        (first, folder), *others = adapters.items()
        try:
            self._peft = PeftModel.from_pretrained(language_model.model, folder, adapter_name=self._keys[first])
            for name, folder in others:
                self._peft.load_adapter(folder, adapter_name=self._keys[name])
        except (RuntimeError, ValueError) as error:  # other shapes, other modules
            reason = " ".join(str(error).split())
            raise ArtifactError(f"{folder}: expected an adapter that fits the model {language_model.source}: {reason}") from error
        self._peft.eval()
        self._base = language_model
        self.ids = tuple(adapters)

    @contextlib.contextmanager
    def policy(self, name: str) -> Iterator[LanguageModel]:
        """The base model with one adapter active."""
        self._peft.set_adapter(self._keys[name], inference_mode=True)
        yield LanguageModel(self._peft, self._base.tokenizer, f"{self._base.source}+{name}")

    @contextlib.contextmanager
    def reference(self) -> Iterator[LanguageModel]:
        """The base model with no adapter active."""
        with self._peft.disable_adapter():
            yield LanguageModel(self._peft, self._base.tokenizer, self._base.source)

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return self._base.tokenizer

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self._base.device

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end a response."""
        return self._base.end_ids

    def names_of(self, ids: Sequence[str | None]) -> list[str]:
        """PEFT's names of adapters for a batch's rows, None for the base alone."""
        return ["__base__" if name is None else self._keys[name] for name in ids]

    def forward(self, adapters: list[str], **inputs: Any) -> Any:
        """One forward pass whose rows go through different adapters; see `names_of`."""
        self._peft.enable_adapter_layers()
        return self._peft(adapter_names=adapters, **inputs)

    def generate(self, ids: Sequence[str | None], **options: Any) -> Any:
        """transformers' `generate` with each row through its own policy's adapter; None for the base alone."""
        self._peft.enable_adapter_layers()
        return self._peft.generate(adapter_names=self.names_of(ids), **options)

    def without_adapter(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which the model is the base alone."""
        return self._peft.disable_adapter()

    def close(self) -> None:
        """Take the adapters off; the base model is as it was."""
        self._peft.unload()
