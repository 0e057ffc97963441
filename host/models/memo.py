"""The last few results of what is costly to find out about a model, for as long as that model lives.

A result belongs to a model as it is: the same weights with another LoRA, schedule or patch is another one.
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from comfy.model_patcher import ModelPatcher

Result = TypeVar("Result")
Identity = tuple[list[object], tuple]
PLAIN = (str, int, float, bool, type(None))


class Memo:
    """Keeps `size` results. Owners are compared by identity and not kept alive; keys are compared by value."""

    def __init__(self, size: int = 4):
        self.size = size
        self._entries: list[tuple[list[weakref.ref], tuple, Any]] = []

    def recall(self, owners: list[object], key: tuple, make: Callable[[], Result]) -> Result:
        """What `make` gave for the same owners and key, or gives now."""
        self._entries = [entry for entry in self._entries if all(ref() is not None for ref in entry[0])]
        for entry in self._entries:
            refs, known, result = entry
            if known == key and len(refs) == len(owners) and all(ref() is owner for ref, owner in zip(refs, owners, strict=True)):
                self._entries = [*(other for other in self._entries if other is not entry), entry]  # the latest last
                return result
        result = make()
        self._entries = [*self._entries, ([weakref.ref(owner) for owner in owners], key, result)][-self.size :]
        return result


def identity(model: ModelPatcher) -> Identity:
    """Owners and key of a MODEL with all that has been patched onto it."""
    owners: list[object] = [model.model]
    key: list[object] = [model.patches_uuid]
    for path, leaf in _leaves((model.model_options, model.object_patches, model.wrappers, model.injections)):
        if isinstance(leaf, PLAIN):
            key.append((path, leaf))
        elif type(leaf).__weakrefoffset__ == 0:  # cannot be an owner: a device, a dtype and the like
            key.append((path, repr(leaf)))
        else:
            key.append(path)
            owners.append(leaf)
    return owners, tuple(key)


def _leaves(tree: object, path: tuple = ()) -> Iterator[tuple[tuple, object]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, (list, tuple)) else None
    if items is None:
        yield path, tree
        return
    for name, item in items:
        yield from _leaves(item, (*path, name))
