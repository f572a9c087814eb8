"""Many responses of many policies to a file: in batches over ranks, each finished batch kept, a seed per prompt.

Batches are planned over all rows, whatever the number of ranks, and a row's seed comes from its prompt and its number alone. So the
file is the same however the work was cut up and whenever it was killed, if the writer gives the same for the same batch.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from palm.artifacts import ArtifactError, digest, read_json, write_bytes, write_json
from palm.data.schema import Text, text_id
from palm.lm.writers import Row, Writer
from palm.locks import locked
from palm.progress import Track, silent
from palm.ranks import barrier, rank, ranks
from palm.seeds import derive_seed

REFERENCE = "reference"


def plan_rows(prompts: Sequence[Text], policies: Sequence[str | None], *, count: int, seed: int) -> list[Row]:
    """Every row to write: prompt after prompt, policy after policy, `count` of each.

    A prompt's seeds do not depend on its place in the list, nor on the policy: policies are compared on the same draws.

    Raises:
        ValueError: there are no prompts or policies, a policy comes twice, or `count` is below 1.
    """
    for name, given in (("prompts", prompts), ("policies", policies)):
        if not given:
            raise ValueError(f"{name}: expected at least one, got none")
    if len(set(policies)) != len(policies):
        twice = next(name for name, times in Counter(policies).items() if times > 1)
        raise ValueError(f"policies: expected different ids, got {twice or REFERENCE!r} twice")
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}")
    rows, seen = [], Counter[str]()
    for prompt in prompts:
        key = text_id(prompt)
        seeds = [derive_seed(seed, "text", key, seen[key], number) for number in range(count)]
        seen[key] += 1  # the same prompt again is answered anew
        rows += [Row(prompt, policy, own) for policy in policies for own in seeds]
    return rows


def write_texts(
    writer: Writer,
    rows: Sequence[Row],
    output: Path,
    *,
    batch_size: int,
    settings: dict[str, Any],
    track: Track = silent,
) -> int:
    """Write the rows to a JSONL file: prompt, policy, text, prompt_tokens, tokens and seed, in the rows' order.

    Finished batches are kept in OUTPUT.parts until all are there; then the file appears, whole.

    Args:
        writer: of the responses.
        rows: what to write.
        output: the file.
        batch_size: rows at a time, at least 1.
        settings: JSON values that the texts depend on beside the rows, such as the model's name.
        track: for a progress bar of this rank's responses.

    Returns:
        how many rows this rank wrote now.

    Raises:
        ValueError: `batch_size` is below 1.
        ArtifactError: `output` holds something else, was made or begun with other settings, or is being written by another process.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if rank() == 0:
        with locked(output.with_name(f".{output.name}.lock"), folder=output):
            return _write(writer, rows, output, batch_size=batch_size, settings=settings, track=track)
    return _write(writer, rows, output, batch_size=batch_size, settings=settings, track=track)


def _write(writer: Writer, rows: Sequence[Row], output: Path, *, batch_size: int, settings: dict[str, Any], track: Track) -> int:
    wanted = digest({"rows": [[row.prompt, row.policy, row.seed] for row in rows], "batch": batch_size, "settings": settings})
    parts, note = output.with_name(f"{output.name}.parts"), output.with_name(f"{output.name}.made-with.json")
    if _is_there(output, note, wanted):
        return 0
    if rank() == 0:
        begun = parts / "made-with.json"
        if begun.exists() and read_json(begun)["fingerprint"] != wanted and any(parts.glob("batch-*.json")):
            raise ArtifactError(f"{parts}: begun with other settings; remove it, or give another --output")
        write_json(begun, {"fingerprint": wanted, "settings": settings})
    barrier()
    batches = _batches(rows, batch_size)
    own, written = batches[rank() :: ranks()], 0
    with track("writing", sum(len(batch) for batch in own)) as advance:
        for number, batch in zip(range(rank(), len(batches), ranks()), own, strict=True):
            if _kept(parts, number, len(batch)) is None:
                made = writer.write([rows[place] for place in batch])
                write_json(_part(parts, number), [[text.text, text.prompt_tokens, text.tokens] for text in made])
                written += len(batch)
            advance(len(batch))
    barrier()
    if rank() == 0:
        lines = [""] * len(rows)
        for number, batch in enumerate(batches):
            for place, (text, prompt_tokens, tokens) in zip(batch, _kept(parts, number, len(batch)) or [], strict=True):
                row = rows[place]
                record = {
                    "prompt": row.prompt,
                    "policy": row.policy or REFERENCE,
                    "text": text,
                    "prompt_tokens": prompt_tokens,
                    "tokens": tokens,
                    "seed": row.seed,
                }
                lines[place] = json.dumps(record, ensure_ascii=False) + "\n"
        data = "".join(lines).encode("utf-8")
        write_json(note, {"fingerprint": wanted, "sha256": sha256(data).hexdigest(), "settings": settings})
        write_bytes(output, data)
        shutil.rmtree(parts)
    barrier()
    return written


def _is_there(output: Path, note: Path, wanted: str) -> bool:
    """Whether the file is what is wanted."""
    if not output.exists():
        return False
    made = read_json(note) if note.exists() else {}
    if made.get("fingerprint") != wanted:
        raise ArtifactError(f"{output}: there already, made with other settings; remove it, or give another --output")
    if made.get("sha256") != sha256(output.read_bytes()).hexdigest():
        raise ArtifactError(
            f"{output}: not what was written there; it was cut short or changed: remove it, or give another --output"
        )
    return True


def _part(parts: Path, number: int) -> Path:
    return parts / f"batch-{number:06d}.json"


def _kept(parts: Path, number: int, size: int) -> list[list[Any]] | None:
    """What was written of a batch; None if nothing was, or if what is there is damaged."""
    try:
        record = read_json(_part(parts, number))
    except ArtifactError:
        return None
    whole = isinstance(record, list) and len(record) == size and all(map(_is_text, record))
    return record if whole else None


def _is_text(row: Any) -> bool:
    """Whether this is a text with its numbers of tokens, which a server may not tell."""
    whole = isinstance(row, list) and len(row) == 3 and isinstance(row[0], str)
    return whole and all(count is None or isinstance(count, int) for count in row[1:])


def _batches(rows: Sequence[Row], size: int) -> list[list[int]]:
    """Places of rows in batches; prompts of similar length together, a prompt's policies side by side."""

    def length(place: int) -> int:
        prompt = rows[place].prompt
        return len(prompt if isinstance(prompt, str) else json.dumps(prompt))

    order = sorted(range(len(rows)), key=lambda place: (length(place), place))
    return [order[start : start + size] for start in range(0, len(order), size)]
