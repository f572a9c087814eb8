"""Groups of responses as tensors: what the soft loss of a batch needs, in one of two layouts.

Buckets: every response with its prompt in a row of its own, rows of similar length in one padded tensor. For any model.

Packs: responses of a group behind one copy of their prompt, each seeing the prompt and itself only, and several packs in a line
where they are short. A prompt is read once a pack instead of once a response and hardly anything is padding. Wants a model with
position ids whose attention takes any mask (torch's SDPA) and texts so short that attention stays cheap.

`scripts/bench.py steps` measures both against one padded tensor.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

_PER_BUCKET = 8  # responses of similar length that go through the model together
_PACK = 192  # tokens of a pack, about; attention grows with its square
_LONGEST = 768  # tokens of the longest text; rows of packs are as wide as the widest

Row = dict[str, Any]
"""A group: prompt_ids, responses, target (log-ratios at the optimum, up to one constant), reference (log-probabilities), mass."""

Layout = Callable[[list[Row]], dict[str, Any]]


class GroupCollator:
    """A batch of groups as tensors: the responses in a layout, and the pairs within groups that the loss compares."""

    def __init__(self, layout: Layout) -> None:
        """Keep how responses are laid out."""
        self.layout = layout

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        """Tensors of a batch of groups.

        Returns:
            what the layout gives; of the responses in the order of the groups: reference, likely (n,), the planned policy's
            probability of each within its group, weight (n,), the same times the group's mass, and group (n,), its group's number;
            first, second, label, share (pairs,): the pairs of responses within groups, the probability that the first is
            preferred, and the pair's share of the loss.
        """
        batch = self.layout(rows)
        batch["reference"] = torch.tensor([value for row in rows for value in row["reference"]], dtype=torch.float32)
        pairs, likely, start = [], [], 0
        for row in rows:
            target = torch.tensor(row["target"], dtype=torch.float64)
            above, below = torch.triu_indices(len(target), len(target), 1)
            likely.append(torch.softmax(target, dim=0))
            share = torch.full((len(above),), 1 / (len(above) * len(rows)))
            pairs.append((above + start, below + start, torch.sigmoid(target[above] - target[below]), share))
            start += len(target)
        first, second, label, share = (torch.cat(column) for column in zip(*pairs, strict=True))
        batch["likely"] = torch.cat(likely).float()
        batch["group"] = torch.repeat_interleave(torch.tensor([len(row["target"]) for row in rows]))
        batch["weight"] = batch["likely"] * torch.tensor([row["mass"] for row in rows], dtype=torch.float32)[batch["group"]]
        return {**batch, "first": first, "second": second, "label": label.float(), "share": share}


class PairCollator:
    """A batch of pairs as tensors: each distinct response once, in a layout, and which of them each pair is of."""

    def __init__(self, layout: Layout) -> None:
        """Keep how responses are laid out."""
        self.layout = layout

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        """Tensors of a batch of pairs, in the columns of TRL's prepared data.

        Returns:
            what the layout gives; reference (n,) of the distinct responses; chosen, rejected (pairs,): their numbers among them.
        """
        groups: dict[tuple[int, ...], dict[tuple[int, ...], float]] = {}
        for row in rows:
            responses = groups.setdefault(tuple(row["prompt_ids"]), {})
            for side in ("chosen", "rejected"):
                responses[tuple(row[f"{side}_ids"])] = row[f"ref_{side}_logps"]
        numbers = {(prompt, response): 0 for prompt, responses in groups.items() for response in responses}
        numbers = {key: number for number, key in enumerate(numbers)}
        batch = self.layout([{"prompt_ids": list(prompt), "responses": list(map(list, of))} for prompt, of in groups.items()])
        batch["reference"] = torch.tensor([value for of in groups.values() for value in of.values()], dtype=torch.float32)
        for side in ("chosen", "rejected"):
            batch[side] = torch.tensor([numbers[tuple(row["prompt_ids"]), tuple(row[f"{side}_ids"])] for row in rows])
        return batch


class Buckets:
    """One row a response, sorted by length into buckets, each padded by itself.

    The number of buckets does not depend on the batch, so every rank runs as many forward passes. Sorting saves most of the
    padding.
    """

    def __init__(self, pad_token_id: int, responses: int) -> None:
        """Keep what padding needs; `responses` is how many a batch has, about."""
        self.pad_token_id = pad_token_id
        self.buckets = max(1, round(responses / _PER_BUCKET))

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        """Tensors of all responses.

        Returns:
            input_ids, attention_mask, labels: one (n_b, length_b) tensor per bucket; start: where in a bucket the first
            response begins, at least 1; place: (n,) where each response, in the order of the groups, lies among the buckets' rows.
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
        return batch


class Packs:
    """Several responses a row behind one copy of their prompt.

    A pack holds the prompt without its last token, then for every response the prompt's last token and the response without
    its last: each position predicts the token after it within its response, so labels need no shift over responses.
    """

    def __init__(self, pad_token_id: int) -> None:
        """Keep what padding needs."""
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        """Tensors of all responses.

        Returns:
            input_ids, position_ids, targets: (R, T); attention_mask: (R, 1, T, T) bool; where: (n, L) the flat positions that
            predict each response's tokens, in the order of the groups; counted: (n, L) bool, False beyond a response's end.
        """
        packs: list[tuple[list[int], list[tuple[int, list[int]]]]] = []
        number = 0
        for row in rows:
            for chosen in _balanced([len(response) for response in row["responses"]], len(row["prompt_ids"])):
                packs.append((row["prompt_ids"], [(number + index, row["responses"][index]) for index in chosen]))
            number += len(row["responses"])
        lengths = [len(prompt) - 1 + sum(len(response) for _, response in members) for prompt, members in packs]
        lines = _lines(lengths)
        width = max(sum(lengths[pack] for pack in line) for line in lines)
        longest = max(len(response) for _, members in packs for _, response in members)
        shape = (len(lines), width)
        ids = np.full(shape, self.pad_token_id)  # filled as arrays, which takes a third of the time that tensors take
        positions, targets = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        pack, segment = np.full(shape, -1), np.full(shape, -1)  # segment 0 is a prompt; padding, -1, sees padding only
        where, counted = np.zeros((number, longest), dtype=np.int64), np.zeros((number, longest), dtype=bool)
        for line, numbers in enumerate(lines):
            end = 0
            for one in numbers:
                prompt, members = packs[one]
                span = slice(end, end + len(prompt) - 1)
                ids[line, span] = prompt[:-1]
                positions[line, span] = np.arange(len(prompt) - 1)
                segment[line, span] = 0
                for place, (index, response) in enumerate(members, start=1):
                    span = slice(span.stop, span.stop + len(response))
                    ids[line, span] = [prompt[-1], *response[:-1]]
                    positions[line, span] = np.arange(len(prompt) - 1, len(prompt) - 1 + len(response))
                    targets[line, span] = response
                    segment[line, span] = place
                    where[index, : len(response)] = line * width + np.arange(span.start, span.stop)
                    counted[index, : len(response)] = True
                pack[line, end : span.stop] = one
                end = span.stop
        seen = (segment[:, :, None] == segment[:, None, :]) | (segment[:, None, :] == 0)
        seen &= pack[:, :, None] == pack[:, None, :]
        arrays = {
            "input_ids": ids,
            "position_ids": positions,
            "targets": targets,
            "attention_mask": (seen & np.tri(width, dtype=bool))[:, None],
            "where": where,
            "counted": counted,
        }
        return {name: torch.from_numpy(values) for name, values in arrays.items()}


def _balanced(lengths: Sequence[int], prompt: int) -> list[list[int]]:
    """Responses in packs of about `_PACK` tokens and of equal length as far as can be: the longest first, to the shortest pack."""
    room = max(1, _PACK - prompt)
    packs: list[list[int]] = [[] for _ in range(min(len(lengths), -(-sum(lengths) // room)))]
    filled = [0] * len(packs)
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        least = filled.index(min(filled))
        packs[least].append(index)
        filled[least] += lengths[index]
    return packs


def _lines(lengths: Sequence[int]) -> list[list[int]]:
    """Packs as lines of a batch: several to a line where that saves padding, no line longer than `_PACK` or the longest pack."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    widest = max(lengths)
    best, least = [[index] for index in order], len(lengths) * widest
    for count in range(len(lengths) - 1, 0, -1):
        lines: list[list[int]] = [[] for _ in range(count)]
        filled = [0] * count
        for index in order:
            line = filled.index(min(filled))
            lines[line].append(index)
            filled[line] += lengths[index]
        if max(filled) > max(widest, _PACK):
            break
        if count * max(filled) < least:
            best, least = lines, count * max(filled)
    return best


def worth_packing(rows: Iterable[Row], window: int) -> bool:
    """Whether two responses of usual length go into a pack, and no text is so long that packs would be a loss or a mistake.

    Args:
        rows: all groups.
        window: tokens that the model's attention looks back at least, everywhere.
    """
    total = longest = count = prompts = groups = 0
    for row in rows:
        prompt, lengths = len(row["prompt_ids"]), [len(response) for response in row["responses"]]
        if prompt == 0 or min(lengths, default=0) == 0:
            return False
        total, count, prompts, groups = total + sum(lengths), count + len(lengths), prompts + prompt, groups + 1
        longest = max(longest, prompt + max(lengths))
    return groups > 0 and 2 * total / count + prompts / groups <= _PACK and longest <= min(window, _LONGEST)
