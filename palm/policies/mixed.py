"""Several policies in one batch: each row of it goes through the adapter of its own policy, and draws from a seed of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palm.lm.generate import own_distribution, until_end
from palm.lm.load import LanguageModel
from palm.lm.tokens import encode_prompt
from palm.lm.writers import Row, Written
from palm.policies.adapters import Members


class MixedWriter:
    """Transformers with the adapters of all policies at once, and the reference.

    A row's tokens are the inverse of the policy's own distribution function at uniform numbers drawn from the row's seed. So they
    do not depend on what else is in the batch, up to rounding of the model's numbers in batches of another width.
    """

    def __init__(
        self, model: LanguageModel, adapters: Mapping[str, Path], *, max_new_tokens: int = 128, base_model: str | None = None
    ) -> None:
        """Load adapters onto the model, if there are any.

        Args:
            model: the base.
            adapters: folder of each policy's adapter, by id.
            max_new_tokens: longest response.
            base_model: id that the adapters must have recorded; None for any.

        Raises:
            ArtifactError: an adapter is incomplete, not plain LoRA, or for another base.
            ValueError: `max_new_tokens` is below 1.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: expected at least 1, got {max_new_tokens}")
        self._model, self._longest = model, max_new_tokens
        self._members = Members(model, adapters, base_model=base_model) if adapters else None

    def write(self, rows: Sequence[Row]) -> list[Written]:
        """All rows in one batch.

        Raises:
            ValueError: a policy has no adapter here.
        """
        import torch
        from transformers import LogitsProcessorList

        known = set(self._members.ids if self._members else ())
        for row in rows:
            if row.policy is not None and row.policy not in known:
                raise ValueError(f"policy: expected one of {', '.join(sorted(known)) or 'none'}, got {row.policy!r}")
        tokenizer, ends = self._model.tokenizer, self._model.end_ids
        encoded = [encode_prompt(tokenizer, row.prompt) for row in rows]
        width = max(map(len, encoded))
        ids = torch.full((len(rows), width), tokenizer.pad_token_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for place, prompt in enumerate(encoded):
            ids[place, width - len(prompt) :] = torch.tensor(prompt)
            mask[place, width - len(prompt) :] = 1
        uniform = torch.tensor(np.array([np.random.default_rng(row.seed).random(self._longest) for row in rows]))
        device = self._model.device
        options: dict[str, Any] = {
            "input_ids": ids.to(device),
            "attention_mask": mask.to(device),
            "do_sample": False,  # the processor has drawn; what is left is one token
            "max_new_tokens": self._longest,
            "eos_token_id": ends,
            "pad_token_id": tokenizer.pad_token_id,
            "logits_processor": LogitsProcessorList([_Draw(uniform.to(device), width)]),
        }
        with own_distribution(self._model.model), torch.inference_mode():
            if self._members is None:
                output = self._model.model.generate(**options)
            else:
                output = self._members.generate([row.policy for row in rows], **options)
        responses = [until_end(row, set(ends)) for row in output[:, width:].tolist()]
        texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
        return [
            Written(text.strip() or " ", len(prompt), len(response))
            for text, prompt, response in zip(texts, encoded, responses, strict=True)
        ]

    def close(self) -> None:
        """Take the adapters off."""
        if self._members is not None:
            self._members.close()


class _Draw:
    """A logits processor that draws one token per row and leaves no other."""

    def __init__(self, uniform: Any, width: int) -> None:
        """Keep (rows, steps) uniform numbers and the prompts' width."""
        self._uniform, self._width = uniform, width

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """All but the token at which the distribution function passes the row's number are impossible."""
        import torch

        total = scores.double().softmax(dim=1).cumsum(dim=1)
        number = self._uniform[:, input_ids.shape[1] - self._width, None] * total[:, -1:]
        token = torch.searchsorted(total, number, right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)
