"""Which part of a model is running, for what the host calls without telling it that."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from torch import nn


class Part(Protocol):
    """module: path below the diffusion model."""

    @property
    def module(self) -> str: ...


P = TypeVar("P", bound=Part)


@contextmanager
def watching(diffusion_model: nn.Module, where: Sequence[P]) -> Iterator[Callable[[], P | None]]:
    """A function that tells which of these parts is running, while the context lasts. Hooks are torch's; the host is left as it is."""
    running: list[P] = []
    handles = []

    def enter(part: P) -> Callable[..., None]:
        return lambda *_: running.append(part)

    def leave(*_: Any) -> None:
        running.pop()

    try:
        for part in where:
            module = diffusion_model.get_submodule(part.module)
            handles += [module.register_forward_pre_hook(enter(part)), module.register_forward_hook(leave)]
        yield lambda: running[-1] if running else None
    finally:
        for handle in handles:
            handle.remove()
