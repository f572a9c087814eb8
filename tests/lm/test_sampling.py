"""palm.lm.sampling: what was sampled before a kill is kept, and the result is that of an uninterrupted run."""

import json
from pathlib import Path
from typing import Any

import pytest

from palm.data.planted import prompt_texts
from palm.lm.generate import Sample, sample_responses
from palm.lm.load import LanguageModel
from palm.lm.sampling import sample_to_folder
from palm.progress import silent

PROMPTS = prompt_texts()[::100]
OPTIONS: dict[str, Any] = {"count": 2, "batch_size": 4, "max_new_tokens": 6, "temperature": 1.0, "seed": 5}


@pytest.fixture
def finished(language_model: LanguageModel, tmp_path: Path) -> tuple[Path, list[list[Sample]]]:
    return tmp_path / "batches", sample_to_folder(language_model, PROMPTS, tmp_path / "batches", **OPTIONS)


def test_samples_are_those_without_a_folder(language_model: LanguageModel, finished: tuple[Path, list[list[Sample]]]) -> None:
    folder, samples = finished
    assert samples == sample_responses(language_model, PROMPTS, **OPTIONS)
    assert sorted(path.name for path in folder.iterdir()) == [f"batch-{number:05d}.json" for number in range(4)]


def test_resuming_gives_what_was_lost_and_keeps_the_rest(
    language_model: LanguageModel, finished: tuple[Path, list[list[Sample]]]
) -> None:
    """One batch gone, one cut short as no atomic write would leave it, one changed on disk to show that it is read, not redone."""
    folder, samples = finished
    (folder / "batch-00000.json").unlink()
    cut = folder / "batch-00002.json"
    cut.write_text(cut.read_text()[:20])
    kept = folder / "batch-00001.json"
    record = json.loads(kept.read_text())
    original = record[0][0][0]
    record[0][0][0] = "changed on disk"
    kept.write_text(json.dumps(record))
    again = sample_to_folder(language_model, PROMPTS, folder, **OPTIONS)
    differing = [(row, n) for row, (a, b) in enumerate(zip(again, samples, strict=True)) for n in range(2) if a[n] != b[n]]
    assert len(differing) == 1
    row, number = differing[0]
    assert (again[row][number].text, samples[row][number].text) == ("changed on disk", original)
    assert again[row][number].token_ids == samples[row][number].token_ids


def test_killed_between_batches_goes_on_where_it_was(language_model: LanguageModel, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def track(label: str, total: int | None) -> Any:
        seen = []

        class Bar:
            def __enter__(self) -> Any:
                return self.advance

            def __exit__(self, *_: object) -> None:
                return None

            def advance(self, done: int) -> None:
                seen.append(done)
                if len(seen) == 2:
                    raise Killed

        return Bar()

    with pytest.raises(Killed):
        sample_to_folder(language_model, PROMPTS, tmp_path, **OPTIONS, track=track)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(before) == {"batch-00000.json", "batch-00001.json"}
    assert sample_to_folder(language_model, PROMPTS, tmp_path, **OPTIONS, track=silent) == sample_responses(
        language_model, PROMPTS, **OPTIONS
    )
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
