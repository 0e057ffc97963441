"""Which tokens of a prompt say what, for any text encoder of the host.

A phrase is looked for as the host's own tokenizer splits it, in order. Some tokenizers split a word otherwise at the beginning of a
text, so it is looked for as it stands after another word, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

AFTER = "a "  # a word before a phrase


class PhraseError(ValueError):
    """Written for the user: which phrase cannot be found in the prompt."""


@dataclass(frozen=True)
class Prompt:
    """phrases: (phrases, tokens) bool, the tokens of each. special: (tokens,) bool, those that no word stands for: begin, end, padding,
    and what a template adds. All along the tokens of the encoded prompt."""

    phrases: Tensor
    special: Tensor


def locate(clip: Any, text: str, phrases: Sequence[str], length: int) -> Prompt:
    """Finds phrases in a prompt that was encoded into `length` tokens. A phrase that occurs several times is marked each time."""
    empty = clip.tokenize("")
    found = []
    spellings = [_spellings(clip, phrase, empty) for phrase in phrases]
    for name, ids, blank in _sequences(clip.tokenize(text), empty, length):
        content = _content(ids, blank)
        marks = []
        flat = [token for chunk in ids for token in chunk]
        for spelt in spellings:
            mark = torch.zeros(len(flat), dtype=torch.bool)
            for wanted in spelt[name]:
                for start in range(len(content) - len(wanted) + 1):
                    places = content[start : start + len(wanted)]
                    if [flat[place] for place in places] == wanted:
                        mark[places] = True
            marks.append(mark)
        special = torch.ones(sum(map(len, ids)), dtype=torch.bool)
        special[content] = False
        found.append((torch.stack(marks), special))
    if not found:
        raise PhraseError(
            "The text encoder makes another number of tokens of this prompt than its tokenizer: phrases cannot be placed in it."
        )
    spoken, special = (torch.cat(each, -1)[..., -length:] for each in zip(*found, strict=True))
    for phrase, mark in zip(phrases, spoken, strict=True):
        if not mark.any():
            raise PhraseError(f"The prompt does not say {phrase!r}: write the words of the object exactly as they stand in the prompt.")
    return Prompt(spoken, special)


Chunks = list[list[int]]


def _ids(tokens: Sequence[Sequence[tuple]]) -> Chunks:
    """Of one encoder; embeddings in place of words have no number."""
    return [[int(token[0]) if isinstance(token[0], int) else -1 for token in chunk] for chunk in tokens]


def _sequences(tokens: dict[str, Any], empty: dict[str, Any], length: int) -> list[tuple[str, Chunks, list[int]]]:
    """The encoders whose tokens, one after the other, make up the encoded prompt: name and chunks of each, and how an empty chunk looks."""
    each = {name: (_ids(chunks), _ids(empty[name])[0]) for name, chunks in tokens.items() if isinstance(chunks, list)}
    sizes = {name: sum(map(len, ids)) for name, (ids, _) in each.items()}
    pictures, texts = [n for n in each if n in ("l", "g")], [n for n in each if n not in ("l", "g")]
    templates = [  # before the prompt, which the host cuts off
        name for name in texts if sizes[name] > length and min(_content(*each[name]), default=0) >= sizes[name] - length
    ]
    if len(templates) == 1:
        return [(templates[0], *each[templates[0]])]
    for name, size in sizes.items():
        if size == length:
            return [(name, *each[name])]
    for first in pictures:  # Stable Diffusion 3: CLIP, then T5
        for second in texts:
            if sizes[first] + sizes[second] == length:
                return [(first, *each[first]), (second, *each[second])]
    return []


def _content(ids: Chunks, blank: list[int]) -> list[int]:
    """Places of the tokens that stand for words: all but what a chunk begins with as an empty one does, and what ends it there."""
    places, start = [], 0
    for chunk in ids:
        head = next((i for i, (token, other) in enumerate(zip(chunk, blank, strict=False)) if token != other), min(len(chunk), len(blank)))
        ending, stop = set(blank[head:]), len(chunk)
        while stop > head and chunk[stop - 1] in ending:
            stop -= 1
        places += range(start + head, start + stop)
        start += len(chunk)
    return places


def _spellings(clip: Any, phrase: str, empty: dict[str, Any]) -> dict[str, list[list[int]]]:
    """The tokens of a phrase by itself, and after another word: of each encoder, whose numbers mean nothing to another."""
    found: dict[str, list[list[int]]] = {}
    for lead in ("", AFTER):
        for name, chunks in clip.tokenize(lead + phrase).items():
            if not isinstance(chunks, list):
                continue
            ids, blank = _ids(chunks), _ids(empty[name])[0]
            words = [[t for chunk in ids for t in chunk][place] for place in _content(ids, blank)]
            if lead:
                before = _ids(clip.tokenize(lead.strip())[name])
                words = words[len(_content(before, blank)) :]
            found.setdefault(name, []).extend([words] if words else [])
    return found
