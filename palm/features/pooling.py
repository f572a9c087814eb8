"""From token ids to one row of numbers per text: padding, and pooling of hidden states; the same for reading and for training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

POOLINGS = ("last", "mean", "mean+last")


def pooled_width(hidden_size: int, pooling: str) -> int:
    """d, for hidden states of that many numbers."""
    return hidden_size * (2 if pooling == "mean+last" else 1)


def pad_texts(batch: Sequence[tuple[list[int], list[int]]], pad_token_id: int) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Texts as tensors, padded on the right.

    Args:
        batch: b prompts and responses as token ids.
        pad_token_id: what fills a row.

    Returns:
        (b, T) token ids, (b, T) 1 where there is a token, and (b, T) true where a token is the response's.
    """
    import torch

    longest = max(len(prompt) + len(response) for prompt, response in batch)
    ids = torch.full((len(batch), longest), pad_token_id)
    attended = torch.zeros((len(batch), longest), dtype=torch.long)
    response_mask = torch.zeros((len(batch), longest), dtype=torch.bool)
    for row, (prompt, response) in enumerate(batch):
        size = len(prompt) + len(response)
        ids[row, :size] = torch.tensor(prompt + response)
        attended[row, :size] = 1
        response_mask[row, len(prompt) : size] = True
    return ids, attended, response_mask


def pool(hidden: "torch.Tensor", attended: "torch.Tensor", response_mask: "torch.Tensor", pooling: str) -> "torch.Tensor":
    """(b, d) of (b, T, hidden size) float hidden states: at the last token, the mean over the response's tokens, or both."""
    import torch

    parts = []
    if pooling != "last":
        share = response_mask.float() / response_mask.sum(dim=1, keepdim=True).clamp(min=1)
        parts.append((hidden * share[:, :, None]).sum(dim=1))
    if pooling != "mean":
        parts.append(hidden[torch.arange(len(hidden), device=hidden.device), attended.sum(dim=1) - 1])
    return torch.cat(parts, dim=1)
