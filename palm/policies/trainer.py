"""TRL's DPOTrainer on data that is prepared already, and with soft labels on groups of responses.

What is overridden is TRL's preparation (the rows hold token ids and reference log-probabilities) and, for soft labels, the
loss. Where logits would be large, TRL's own fused head gives the log-probabilities without holding them; where they are
small they are taken plainly, since without Triton the fused head scores every position and takes a third of the time of a
step of a small model. All of it belongs to TRL ~=1.16, which pyproject.toml pins and tests/policies/test_train.py exercises.
"""

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl import DPOTrainer

_PLAIN_LOGITS = 2**24  # numbers; 64 MiB in float32


class PreparedDPOTrainer(DPOTrainer):
    """DPO on rows that hold prompt_ids, chosen_ids, rejected_ids, ref_chosen_logps and ref_rejected_logps."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


class GroupCollator:
    """Groups of responses to tensors: all responses of the batch sorted by length into buckets, each padded by itself.

    The number of buckets does not depend on the batch, so every rank runs as many forward passes. Sorting into buckets
    saves most of the padding: at 1M parameters on CPU it halves the time of a step of 32 responses.
    """

    def __init__(self, pad_token_id: int, emphasis: float, *, buckets: int) -> None:
        """Keep what padding needs; `emphasis` as in `TrainingOptions`."""
        self.pad_token_id = pad_token_id
        self.emphasis = emphasis
        self.buckets = buckets

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Tensors of a batch of groups.

        Returns:
            input_ids, attention_mask, labels: one (n_b, length_b) tensor per bucket; start: where in a bucket the first
            response begins, at least 1; place: (n,) where each response, in
            the order of the groups, lies among the buckets' rows; reference (n,); first, second, label, share (pairs,): the
            pairs of responses within groups, the probability that the first is preferred, and the pair's share of the loss.
        """
        texts = [(row["prompt_ids"], response) for row in rows for response in row["responses"]]
        lengths = [len(prompt) + len(response) for prompt, response in texts]
        order = np.argsort(lengths, kind="stable")
        batch: dict[str, Any] = {"input_ids": [], "attention_mask": [], "labels": [], "start": []}
        for bucket in np.array_split(order, min(self.buckets, len(order))):
            width = max(lengths[index] for index in bucket)
            ids = torch.full((len(bucket), width), self.pad_token_id)
            attended = torch.zeros((len(bucket), width), dtype=torch.long)
            labels = torch.full((len(bucket), width), -100)
            for position, index in enumerate(bucket):
                prompt, response = texts[index]
                ids[position, : lengths[index]] = torch.tensor(prompt + response)
                attended[position, : lengths[index]] = 1
                labels[position, len(prompt) : lengths[index]] = torch.tensor(response)
            batch["input_ids"].append(ids)
            batch["attention_mask"].append(attended)
            batch["labels"].append(labels)
            batch["start"].append(max(1, min(len(texts[index][0]) for index in bucket)))
        batch["place"] = torch.from_numpy(np.argsort(order))
        batch["reference"] = torch.tensor([value for row in rows for value in row["reference"]], dtype=torch.float32)
        pairs, start = [], 0
        for row in rows:
            target = torch.tensor(row["target"], dtype=torch.float64)
            above, below = torch.triu_indices(len(target), len(target), 1)
            likely = torch.softmax(target, dim=0)
            # Both parts sum to 1 over the group's pairs: each response is in len - 1 of them.
            share = (1 - self.emphasis) / len(above) + self.emphasis * (likely[above] + likely[below]) / (len(target) - 1)
            pairs.append((above + start, below + start, torch.sigmoid(target[above] - target[below]), share / len(rows)))
            start += len(target)
        first, second, label, share = (torch.cat(column) for column in zip(*pairs, strict=True))
        return {**batch, "first": first, "second": second, "label": label.float(), "share": share.float()}


class GroupDPOTrainer(PreparedDPOTrainer):
    """DPO with soft labels on all pairs within groups of responses; rows hold prompt_ids, responses, target, reference."""

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["prompt_ids", "responses", "target", "reference"]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Six operations per token and parameter, as transformers counts them, over all buckets."""
        tokens = sum(ids.numel() for ids in inputs["input_ids"])
        return 6 * tokens * int(self.model.num_parameters(exclude_embeddings=True))

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Cross-entropy between the labels and the sigmoid of differences of log-ratios, weighted over pairs."""
        buckets = zip(inputs["input_ids"], inputs["attention_mask"], inputs["labels"], inputs["start"], strict=True)
        logprobs = [_response_logprobs(model, *bucket, vocabulary=len(self.processing_class)) for bucket in buckets]
        ratio = torch.cat(logprobs)[inputs["place"]] - inputs["reference"]
        logit = ratio[inputs["first"]] - ratio[inputs["second"]]
        surprise = torch.nn.functional.binary_cross_entropy_with_logits(logit, inputs["label"], reduction="none")
        loss = (inputs["share"] * surprise).sum()
        return (loss, {"ratio": ratio}) if return_outputs else loss


def _response_logprobs(
    model: Any, ids: torch.Tensor, attended: torch.Tensor, labels: torch.Tensor, start: int, *, vocabulary: int
) -> torch.Tensor:
    """Log-probability of each row's response, with gradients, through a forward that TRL has given its fused head.

    Args:
        model: of the trainer, wrapped or not.
        ids, attended, labels: (n, length) right-padded; labels are -100 outside responses.
        start: no response begins before this position, at least 1.
        vocabulary: number of tokens.

    Returns:
        (n,) sums over the response's tokens.
    """
    kept = ids.shape[1] - start + 1
    if len(ids) * kept * vocabulary > _PLAIN_LOGITS:
        output = model(input_ids=ids, attention_mask=attended, labels=labels, use_cache=False, fused_lm_head=True)
        return output.log_probs.sum(dim=1)
    logits = model(input_ids=ids, attention_mask=attended, logits_to_keep=kept, use_cache=False).logits[:, :-1]
    surprise = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), labels[:, start:], reduction="none")
    return -surprise.sum(dim=1)
