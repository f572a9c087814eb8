"""What recipes/sample.py and recipes/generate.py do: check what was asked, make a writer, write."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palm.artifacts import digest_file, digest_folder, read_json
from palm.data.schema import Text, normalise_side
from palm.lm.load import digest_weights, load_language_model
from palm.lm.writers import ServerWriter, VllmWriter, Writer, check_vllm
from palm.policies.adapters import CONFIG, WEIGHTS, check_adapter, served_adapters, served_weights
from palm.policies.mixed import MixedWriter
from palm.policies.write_texts import REFERENCE, plan_rows, write_texts
from palm.portfolio import Portfolio
from palm.progress import Track, silent

logger = logging.getLogger(__name__)

BACKENDS = ("transformers", "vllm")


@dataclass(frozen=True)
class Writing:
    """What to write.

    Attributes:
        prompts: file of prompts, see `read_prompts`.
        output: the JSONL file to write.
        model: folder or Hub id of the base; with a server, what it calls the base.
        adapters: folder of each policy's adapter, by id; with a server its keys alone count.
        policies: ids to write with, "reference" for the base.
        count: responses per prompt and policy.
        max_new_tokens: longest response.
        batch_size: responses at a time.
        seed: of everything.
        backend: "transformers" or "vllm", where there is no server.
        server: address of a server with OpenAI's interface; None for none.
        key: for the server.
        base_model: id that adapters must have recorded; None for any.
        base_weights: digest of the weights that adapters were trained on, if known; a folder with others is warned of.
    """

    prompts: Path
    output: Path
    model: str
    adapters: Mapping[str, Path]
    policies: tuple[str, ...]
    count: int = 1
    max_new_tokens: int = 128
    batch_size: int = 32
    seed: int = 0
    backend: str = "transformers"
    server: str | None = None
    key: str | None = None
    base_model: str | None = None
    base_weights: str | None = None


def run_writing(wanted: Writing, *, track: Track = silent) -> int:
    """Write; returns how many responses this process wrote now.

    Raises:
        ValueError: an argument is out of range, a file is not what it should be, or a policy is not known.
        ArtifactError: an adapter or the output is not what it should be, or the server gives no answer.
        ImportError: the backend is not installed.
    """
    for name in ("max_new_tokens", "batch_size", "count"):
        if getattr(wanted, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')}: expected at least 1, got {getattr(wanted, name)}")
    if wanted.server is not None:
        _writer(wanted, {})  # its settings are checked, nothing is asked
    elif wanted.backend == "vllm":
        check_vllm()
    if wanted.backend not in BACKENDS:
        raise ValueError(f"--backend: expected one of {', '.join(BACKENDS)}, got {wanted.backend!r}")
    for name in wanted.policies:
        if name not in (*wanted.adapters, REFERENCE):
            raise ValueError(f"--policies: expected ids out of {', '.join((*wanted.adapters, REFERENCE))}, got {name!r}")
    prompts = read_prompts(wanted.prompts)
    rows = plan_rows(
        prompts, [None if name == REFERENCE else name for name in wanted.policies], count=wanted.count, seed=wanted.seed
    )
    used = {name: wanted.adapters[name] for name in wanted.policies if name != REFERENCE}
    if wanted.server is None:
        _check_base(wanted, used)
    settings = _made_with(wanted, used)
    return write_texts(_Later(wanted, used), rows, wanted.output, batch_size=wanted.batch_size, settings=settings, track=track)


def _check_base(wanted: Writing, used: Mapping[str, Path]) -> None:
    """See that adapters are whole and name the base, and warn of one that has other weights than they were trained on."""
    for folder in used.values():
        check_adapter(folder, base_model=wanted.base_model)
    found = digest_weights(wanted.model)
    if used and found is not None and wanted.base_weights not in (None, found):
        logger.warning(
            "--model: %s has other weights than the adapters were trained on; that is right for a quantised or converted copy of "
            "their base, else what they write is nonsense",
            wanted.model,
        )


def _made_with(wanted: Writing, used: Mapping[str, Path]) -> dict[str, Any]:
    """What texts depend on beside their rows."""
    settings: dict[str, Any] = {"model": wanted.model, "max_new_tokens": wanted.max_new_tokens, "seed": wanted.seed}
    if wanted.server is not None:
        return {**settings, "backend": "server"}
    if Path(wanted.model).is_dir():
        settings["files"] = digest_folder(Path(wanted.model))
    adapters = {name: digest_file(path / WEIGHTS) for name, path in used.items()}
    return {**settings, "backend": wanted.backend, "adapters": adapters}


class _Later:
    """A writer that is made when the first batch is to be written: nothing is loaded for work that is done."""

    def __init__(self, wanted: Writing, adapters: Mapping[str, Path]) -> None:
        self._wanted, self._adapters = wanted, adapters
        self._writer: Writer | None = None

    def write(self, rows: Any) -> Any:
        if self._writer is None:
            self._writer = _writer(self._wanted, self._adapters)
        return self._writer.write(rows)


def _writer(wanted: Writing, adapters: Mapping[str, Path]) -> Writer:
    longest = wanted.max_new_tokens
    if wanted.server is not None:
        return ServerWriter(wanted.server, wanted.model, max_new_tokens=longest, key=wanted.key)
    if wanted.backend == "vllm":
        largest = max((int(read_json(folder / CONFIG)["r"]) for folder in adapters.values()), default=8)
        return VllmWriter(wanted.model, adapters, max_new_tokens=longest, rank=largest)
    return MixedWriter(load_language_model(wanted.model), adapters, max_new_tokens=longest, base_model=wanted.base_model)


def read_prompts(path: Path) -> list[Text]:
    """Prompts of a file: JSON lines with the key `prompt` (text or a list of messages), or plain text with one a line.

    Raises:
        ValueError: the file is missing, empty, or a line is not a prompt.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--prompts: expected a file of text or JSON lines, got {path}: {error}") from error
    if not lines:
        raise ValueError(f"--prompts: expected at least one prompt in {path}, got none")
    if path.suffix != ".jsonl":
        return list(lines)
    prompts: list[Text] = []
    for number, line in enumerate(lines, start=1):
        try:
            prompts.append(normalise_side(json.loads(line)["prompt"], f"--prompts: {path}: line {number}"))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"--prompts: {path}: line {number}: expected an object with the key 'prompt', got {line:.60}"
            ) from error
    return prompts


def served_members(portfolio: Path, model: str | None, *, server: bool) -> dict[str, Any]:
    """The attributes of `Writing` that a portfolio that is served settles: model, adapters, base_model, base_weights.

    Raises:
        ValueError: the portfolio does not have its base, and none is given.
    """
    found = Portfolio.from_pretrained(portfolio)
    adapters = served_adapters(portfolio, found.ids)
    if model is None and not server and (portfolio / "base").is_dir():
        model = str(portfolio / "base")
    model = model or found.base_model
    if model is None:
        raise ValueError("--model: expected the folder or Hub id of the portfolio's base, which it does not name; got nothing")
    weights = served_weights(portfolio)
    return {"model": model, "adapters": adapters, "base_model": found.base_model, "base_weights": weights}
