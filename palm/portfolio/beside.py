"""What a run keeps beside a portfolio's folder, for the commands that explain and check it."""

from pathlib import Path
from typing import Any

from palm.artifacts import read_json
from palm.portfolio.portfolio import FILE


def rewards_beside(folder: Path) -> Path | None:
    """The reward tensor that a run's portfolio was certified on; None if the folder is not of a run.

    RUN/plan is certified on the prompts planned on, everything measured, served or below plan/held_out on the held-out ones.
    """
    record = read_json(folder / FILE)
    origin = record.get("origin") if isinstance(record, dict) else None
    part = "plan" if origin == "planned" and folder.resolve().name != "held_out" else "held_out"
    for above in folder.resolve().parents[:3]:
        found = above / "score" / f"{part}.safetensors"
        if found.is_file():
            return found
    return None


def held_out_beside(folder: Path) -> Path | None:
    """The reward tensor of the prompts that a run's portfolio states confidence from; None if the folder is not of a run."""
    tensors = [above / "score" / "held_out.safetensors" for above in folder.resolve().parents[:3]]
    return next((found for found in tensors if found.is_file()), None)


def curve_beside(folder: Path) -> list[dict[str, Any]] | None:
    """Gap against size as a run's stage plan wrote it."""
    path = folder / "plan.json"
    record = read_json(path) if path.is_file() else None
    curve = record.get("curve") if isinstance(record, dict) else None
    return curve or None


def users_beside(folder: Path) -> dict[str, int] | None:
    """How many users a run's stage route sends to each policy."""
    for path in (folder / "routes.json", folder.resolve().parent / "routes.json"):
        if path.is_file():
            counts: dict[str, int] = {}
            for route in read_json(path).values():
                counts[route["policy"]] = counts.get(route["policy"], 0) + 1
            return counts
    return None
