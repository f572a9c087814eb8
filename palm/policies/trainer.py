"""TRL's DPOTrainer on data that is prepared already, and with losses on responses that are read once each.

What is overridden is TRL's preparation (the rows hold token ids and reference log-probabilities) and, but for TRL's rarer
losses, how responses are read: each distinct response of a batch once, laid out by palm.policies.groups. Where logits would be
large, TRL's own fused head gives the log-probabilities without holding them; where they are small they are taken plainly, since
without Triton the fused head scores every position and takes a third of the time of a step of a small model. All of it belongs
to TRL ~=1.16, which pyproject.toml pins and tests/policies/test_train.py exercises.
"""

import contextlib
import dataclasses
import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainingArguments
from trl import DPOConfig, DPOTrainer

from palm.lm.load import LanguageModel, logit_width
from palm.policies.groups import Buckets, Packs, Row, worth_packing
from palm.ranks import shards_models

logger = logging.getLogger(__name__)

_PLAIN_LOGITS = 2**24  # numbers; 64 MiB in float32
_PACKABLE = (
    "gemma3_text",
    "granite",
    "llama",
    "mistral",
    "olmo2",
    "qwen2",
    "qwen3",
    "smollm3",
)  # see tests/policies/test_groups.py


class PreparedDPOTrainer(DPOTrainer):
    """DPO on rows that hold prompt_ids, chosen_ids, rejected_ids, ref_chosen_logps and ref_rejected_logps."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


class _ReadingTrainer(PreparedDPOTrainer, ABC):
    """A loss on the log-probabilities of a batch's distinct responses; no TRL metrics, which cost a good part of a small step."""

    columns: tuple[str, ...] = ()

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = list(self.columns)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Six operations per token and parameter, as transformers counts them, over all buckets."""
        ids = inputs["input_ids"]
        tokens = ids.numel() if isinstance(ids, torch.Tensor) else sum(bucket.numel() for bucket in ids)
        return 6 * tokens * self._read_parameters

    @functools.cached_property
    def _read_parameters(self) -> int:
        """Counted once: going through a small model's modules takes a few hundredths of a step's time."""
        return int(self.model.num_parameters(exclude_embeddings=True))

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """The loss of a batch."""
        read = _pack_logprobs if "where" in inputs else _bucket_logprobs
        logprobs = read(model, inputs, logit_width(self.model))
        loss = self.loss_of(logprobs, inputs)
        return (loss, {"logprobs": logprobs}) if return_outputs else loss

    @abstractmethod
    def loss_of(self, logprobs: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """The loss of (n,) log-probabilities of the batch's distinct responses."""


class PairDPOTrainer(_ReadingTrainer):
    """DPO's sigmoid loss on pairs, in the columns of TRL's prepared data: the same numbers as TRL's."""

    columns = ("prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps")

    def loss_of(self, logprobs: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """Mean of -log sigmoid(beta (rho(chosen) - rho(rejected)))."""
        ratio = logprobs - inputs["reference"]
        margin = ratio[inputs["chosen"]] - ratio[inputs["rejected"]]
        return -torch.nn.functional.logsigmoid(self.beta * margin).mean()


class SoftDPOTrainer(_ReadingTrainer):
    """DPO with soft labels on all pairs within groups of responses, as `palm.policies.candidates.group_rows` gives them.

    Attributes:
        listwise: as in `palm.policies.options.TrainingOptions`.
    """

    columns = ("prompt_ids", "responses", "target", "reference", "mass")
    listwise = 0.0

    def loss_of(self, logprobs: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """Cross-entropy of the labels with what the log-ratios say: over pairs by the sigmoid, over groups by the softmax."""
        ratio = logprobs - inputs["reference"]
        logit = ratio[inputs["first"]] - ratio[inputs["second"]]
        surprise = torch.nn.functional.binary_cross_entropy_with_logits(logit, inputs["label"], reduction="none")
        loss = (1 - self.listwise) * (inputs["share"] * surprise).sum()
        if self.listwise:
            group = inputs["group"]
            groups = group.max() + 1
            top = ratio.new_full((groups,), -torch.inf).scatter_reduce(0, group, ratio.detach(), "amax")
            total = ratio.new_zeros(groups).index_add(0, group, (ratio - top[group]).exp())
            logprobs_in_group = ratio - top[group] - total.log()[group]
            loss = loss - self.listwise * (inputs["likely"] * logprobs_in_group).sum() / groups
        return loss


class GibbsTrainer(_ReadingTrainer):
    """Weighted likelihood of the candidates, on the same groups."""

    columns = SoftDPOTrainer.columns

    def loss_of(self, logprobs: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """Cross-entropy of the planned policy over a prompt's candidates with the policy; a mean over the prompts' groups."""
        return -(inputs["weight"] * logprobs).sum() / (inputs["group"].max() + 1)


def plain_sigmoid(options: Mapping[str, Any]) -> bool:
    """Whether DPO's options ask for no other loss than the sigmoid of the margin, which `PairDPOTrainer` has."""
    others = {entry.name for entry in dataclasses.fields(DPOConfig)} - {
        entry.name for entry in dataclasses.fields(TrainingArguments)
    }
    named = {name for name in options if name in others - {"beta", "max_length", "disable_dropout"}}
    return not named or (named == {"loss_type"} and options["loss_type"] in ("sigmoid", ["sigmoid"]))


def layout_for(language_model: LanguageModel, rows: Iterable[Row], responses: int) -> Buckets | Packs:
    """How a model is to read groups: in packs where that saves work and is known to be right, else in buckets.

    Known to be right: an architecture in `_PACKABLE`, with torch's own attention, in one piece, on texts within its attention's
    window; and on the longest group's first responses both layouts agree.

    Args:
        language_model: the base model, not split over processes yet, without adapters.
        rows: groups: prompt_ids and responses.
        responses: in a batch, about.
    """
    pad = language_model.tokenizer.pad_token_id
    buckets, packs = Buckets(pad, responses), Packs(pad)
    config = language_model.model.config
    known = config.model_type in _PACKABLE and config._attn_implementation == "sdpa"
    window = min(getattr(config, name, None) or 2**30 for name in ("sliding_window", "attention_chunk_size"))
    if shards_models() or not known or not worth_packing(rows, window):
        return buckets
    row = max(rows, key=lambda row: len(row["prompt_ids"]) + max(map(len, row["responses"])))
    group = [{"prompt_ids": row["prompt_ids"], "responses": row["responses"][:3]}]
    with torch.inference_mode():
        one = _bucket_logprobs(language_model.model, _to(language_model.device, buckets(group)), 0)
        other = _pack_logprobs(language_model.model, _to(language_model.device, packs(group)), 0)
    slack = 1e-3 if language_model.model.dtype == torch.float32 else 0.02
    if torch.allclose(one, other, rtol=slack, atol=slack):
        return packs
    logger.info("this model reads packed responses differently (by %.3g nats): they are not packed", (one - other).abs().max())
    return buckets


def _to(device: Any, batch: dict[str, Any]) -> dict[str, Any]:
    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(entry) for entry in value]
        return value.to(device) if isinstance(value, torch.Tensor) else value

    return {name: moved(value) for name, value in batch.items()}


def _bucket_logprobs(model: Any, inputs: dict[str, Any], vocabulary: int) -> torch.Tensor:
    """(n,) log-probabilities of the responses in `palm.policies.groups.Buckets`."""
    found = []
    for ids, attended, labels, start in zip(
        inputs["input_ids"], inputs["attention_mask"], inputs["labels"], inputs["start"], strict=True
    ):
        kept = ids.shape[1] - start + 1
        if len(ids) * kept * vocabulary > _PLAIN_LOGITS:
            output = model(input_ids=ids, attention_mask=attended, labels=labels, use_cache=False, fused_lm_head=True)
            found.append(output.log_probs.sum(dim=1))
            continue
        logits = model(input_ids=ids, attention_mask=attended, logits_to_keep=kept, use_cache=False).logits[:, :-1]
        targets = labels[:, start:]
        counted = targets != -100
        logprobs = _of_targets(logits[counted], targets[counted])
        found.append(logprobs.new_zeros(counted.shape).masked_scatter(counted, logprobs).sum(dim=1))
    return torch.cat(found)[inputs["place"]]


def _pack_logprobs(model: Any, inputs: dict[str, Any], vocabulary: int) -> torch.Tensor:
    """(n,) log-probabilities of the responses in `palm.policies.groups.Packs`."""
    given = {name: inputs[name] for name in ("input_ids", "position_ids", "attention_mask")}
    targets, counted = inputs["targets"], inputs["counted"]
    if targets.numel() * vocabulary > _PLAIN_LOGITS:
        logprobs = model(**given, shift_labels=targets, use_cache=False, fused_lm_head=True).log_probs
        return (logprobs.flatten()[inputs["where"]] * counted).sum(dim=1)
    places = inputs["where"][counted]
    with _head_at(places, model):
        logits = model(**given, use_cache=False).logits
    logprobs = _of_targets(logits, targets.flatten()[places])
    return logprobs.new_zeros(counted.shape).masked_scatter(counted, logprobs).sum(dim=1)


@contextlib.contextmanager
def _head_at(places: torch.Tensor, model: Any) -> Iterator[None]:
    """Have a model's head read some positions only, (m,) numbers of a batch's flattened ones: its logits are (m, vocabulary).

    Prompts are a good part of what is read, and nothing is asked of the logits there.
    """
    head = getattr(model, "module", model).get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda module, given: (given[0].flatten(0, 1)[places], *given[1:]))
    try:
        yield
    finally:
        hook.remove()


def _of_targets(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(m,) log-probabilities of tokens (m,) under logits (m, vocabulary)."""
    return -torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
