"""Load a causal language model and its tokenizer, from a folder or the Hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palm.artifacts import digest, digest_file

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model that is only read: in evaluation mode, its own parameters frozen.

    Attributes:
        model: transformers' causal language model.
        tokenizer: its tokenizer, with a padding token.
        source: folder or Hub id that it was loaded from.
    """

    model: Any
    tokenizer: Any
    source: str

    @property
    def device(self) -> Any:
        """Where the model's parameters are."""
        return next(self.model.parameters()).device

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end a response: the tokenizer's, and those that the model's generation settings add (a turn's end, say)."""
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        own = model.generation_config.eos_token_id
        listed = own if isinstance(own, list | tuple) else [own]
        return sorted({int(token) for token in (self.tokenizer.eos_token_id, *listed) if token is not None})


def load_tokenizer(source: str | Path, *, revision: str | None = None) -> Any:
    """A model's tokenizer; one without a padding token pads with its end-of-sequence token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def pick_device() -> str:
    """This process's GPU if there is one, else the CPU."""
    import os

    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def pick_dtype(dtype: str | None, device: str) -> Any:
    """torch's number type of that name; by default bfloat16 on a GPU that has it, float32 elsewhere.

    Raises:
        ValueError: `dtype` is not "float32", "bfloat16" or "float16".
    """
    import torch

    if dtype is None:
        return torch.bfloat16 if device.startswith("cuda") and torch.cuda.is_bf16_supported() else torch.float32
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    return getattr(torch, dtype)


def logit_width(model: Any) -> int:
    """Numbers in a row of a model's logits: its vocabulary, which is often padded beyond its tokenizer's tokens."""
    return int(model.config.get_text_config().vocab_size)


def is_folder_name(source: str | Path) -> bool:
    """Whether a model's name can only be a folder's: a Hub id is NAME or OWNER/NAME."""
    text = str(source)
    return isinstance(source, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1


def digest_weights(source: str | Path) -> str | None:
    """Digest of the weight files of a model's folder; None for a Hub id."""
    files = [path for kind in ("*.safetensors", "pytorch_model*.bin") for path in sorted(Path(source).glob(kind))]
    return digest({path.name: digest_file(path) for path in files}) if files else None


def load_language_model(
    source: str | Path, *, revision: str | None = None, dtype: str | None = None, device: str | None = None
) -> LanguageModel:
    """Load a causal language model for reading and as a base for LoRA.

    Args:
        source: folder or Hub id.
        revision: of a Hub repository.
        dtype: "float32", "bfloat16" or "float16"; by default bfloat16 on a GPU that has it, float32 elsewhere.
        device: such as "cuda:1"; by default this process's GPU, else the CPU.

    Raises:
        ValueError: nothing there can be loaded as a causal language model, or `dtype` is none of the three.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    device = device or pick_device()
    number_type = pick_dtype(dtype, device)
    if is_folder_name(source) and not Path(source).is_dir():
        raise ValueError(f"model: expected the folder or Hub id of a causal language model, got {str(source)!r}: no such folder")
    try:
        model = AutoModelForCausalLM.from_pretrained(source, revision=revision, dtype=number_type)
        tokenizer = load_tokenizer(source, revision=revision)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"model: expected the folder or Hub id of a causal language model, got {str(source)!r}: {error}"
        ) from error
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.requires_grad_(False)
    return LanguageModel(model.to(device).eval(), tokenizer, str(source))
