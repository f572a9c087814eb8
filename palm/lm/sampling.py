"""Sample responses batch by batch onto disk, so that a killed run goes on where it was."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from palm.arrays import read_arrays, write_arrays
from palm.artifacts import ArtifactError, read_json, write_json
from palm.data.schema import Text
from palm.lm.generate import Sample, plan_batches, sample_batch
from palm.lm.load import LanguageModel
from palm.progress import Track, silent


def sample_to_folder(
    language_model: LanguageModel,
    prompts: Sequence[Text],
    folder: Path,
    *,
    count: int,
    batch_size: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    label: str = "sampling",
    track: Track = silent,
) -> list[list[Sample]]:
    """`sample_responses` that keeps every finished batch in `folder` and does not sample it again.

    Args:
        language_model: what to sample from.
        prompts: P prompts.
        folder: one JSON file per batch.
        count, batch_size, max_new_tokens, temperature, seed: as in `palm.lm.generate`.
        label, track: for a progress bar of responses.

    Returns:
        for each prompt, its samples.
    """
    results: list[list[Sample]] = [[] for _ in prompts]
    batches = plan_batches(language_model.tokenizer, prompts, count=count, batch_size=batch_size)
    with track(label, len(prompts) * count) as advance:
        for batch in batches:
            path = folder / f"batch-{batch.number:05d}.json"
            try:
                record = read_json(path)
            except ArtifactError:
                sampled = sample_batch(
                    language_model,
                    prompts,
                    batch,
                    count=count,
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    seed=seed,
                )
                record = [[[sample.text, sample.token_ids] for sample in samples] for samples in sampled]
                write_json(path, record)
            for index, samples in zip(batch.prompts, record, strict=True):
                results[index] = [Sample(text, token_ids) for text, token_ids in samples]
            advance(len(batch.prompts) * count)
    return results


def save_token_ids(samples: Sequence[Sequence[Sample]], path: Path) -> None:
    """Write what was sampled, token for token: text does not say it, nor whether a response ended or was cut."""
    rows = [sample.token_ids for row in samples for sample in row]
    flat = np.fromiter((token for row in rows for token in row), np.int32, sum(map(len, rows)))
    write_arrays(path, {"ids": flat, "lengths": np.array([len(row) for row in rows], np.int32)})


def load_token_ids(path: Path, counts: Sequence[int]) -> list[list[list[int]]]:
    """Read what `save_token_ids` wrote: for each prompt, its samples' token ids.

    Args:
        path: of the file.
        counts: each prompt's number of samples.

    Raises:
        ArtifactError: the file is missing or damaged, or holds another number of samples.
    """
    arrays = read_arrays(path)
    ids, lengths = arrays["ids"], arrays["lengths"]
    if len(lengths) != sum(counts) or lengths.sum() != len(ids):
        raise ArtifactError(f"{path}: expected token ids of {sum(counts)} samples, got those of {len(lengths)}")
    rows = iter(np.split(ids, np.cumsum(lengths)[:-1]))
    return [[next(rows).tolist() for _ in range(count)] for count in counts]
