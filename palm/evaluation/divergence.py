"""How far policies' distributions are from each other: pairwise KL divergence, estimated from their own samples."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from palm.lm.load import LanguageModel
from palm.lm.logprobs import Encoded, kl_to_others
from palm.progress import Track, silent

Policy = Callable[[], contextlib.AbstractContextManager[LanguageModel]]
"""Makes a context that yields a policy, such as `lambda: members.policy(name)`."""


@dataclass(frozen=True)
class Divergences:
    """Pairwise KL divergences.

    Attributes:
        ids: n policies.
        kl: (n, n) KL(row || column) of the distributions of responses, mean over prompts, in nats; 0 on the diagonal.
        error: (n, n) standard errors, from the spread of prompts' means; infinite for a single prompt.
        prompts: how many.
        samples: responses of each policy to each prompt.
    """

    ids: tuple[str, ...]
    kl: np.ndarray
    error: np.ndarray
    prompts: int
    samples: int

    def record(self) -> dict[str, object]:
        """JSON form."""
        return {
            "ids": list(self.ids),
            "kl": self.kl.tolist(),
            "error": self.error.tolist(),
            "prompts": self.prompts,
            "samples": self.samples,
        }

    def rows(self) -> list[dict[str, object]]:
        """Rows of a table: KL(row || column) with its standard error."""
        return [
            {
                "KL(row || column)": name,
                **{
                    other: "0" if row == column else f"{self.kl[row, column]:.3f} ± {self.error[row, column]:.3f}"
                    for column, other in enumerate(self.ids)
                },
            }
            for row, name in enumerate(self.ids)
        ]


def pairwise_kl(
    policies: Mapping[str, Policy], samples: Mapping[str, Sequence[Sequence[Encoded]]], *, track: Track = silent
) -> Divergences:
    """KL(i || j) for all pairs of policies.

    Along each of i's own responses the exact KL over the vocabulary is summed over its positions; its mean is the divergence of the
    distributions of responses, without bias (the chain rule), and with less variance than the mean log-ratio.

    Args:
        policies: by id, at least two, on one tokenizer.
        samples: by id, for each of P prompts S (prompt, response) token ids that the policy sampled at temperature 1.
        track: for a progress bar.

    Returns:
        estimates with standard errors. O(n^2 P S) forward passes.

    Raises:
        ValueError: a policy has no samples, or other numbers of them.
    """
    ids = tuple(policies)
    if len(ids) < 2 or set(samples) != set(ids):
        raise ValueError(f"samples: expected them of every policy, at least two of {list(ids)}, got {sorted(samples)}")
    shapes = {(len(rows), len(row)) for rows in samples.values() for row in rows}
    if len(shapes) != 1 or 0 in (shape := next(iter(shapes))):
        raise ValueError(f"samples: expected equally many of every policy and prompt, at least one, got {sorted(shapes)}")
    prompts, count = shape
    kl, error = np.zeros((len(ids), len(ids))), np.zeros((len(ids), len(ids)))
    for row, name in enumerate(ids):
        texts = [text for responses in samples[name] for text in responses]
        others = [column for column in range(len(ids)) if column != row]
        with track(f"divergence from {name}", len(texts)) as advance:
            found = kl_to_others(texts, policies[name], [policies[ids[column]] for column in others], advance=advance)
        of_prompts = found.reshape(len(others), prompts, count).mean(axis=2)
        kl[row, others] = of_prompts.mean(axis=1)
        error[row, others] = of_prompts.std(axis=1, ddof=1) / np.sqrt(prompts) if prompts > 1 else np.inf
    return Divergences(ids, kl, error, prompts, count)
