"""What a run leaves in its folder."""

from pathlib import Path

import torch

STATE = "state.pt"


def load_history(folder: Path) -> dict[str, list[float]]:
    """The figures of the run in `folder`, one value a step."""
    return torch.load(folder / STATE, weights_only=True, mmap=True)["history"]


def save_whole(content: object, file: Path) -> None:
    """torch.save in one move: whoever is killed on the way leaves the old file as it was."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(file)
