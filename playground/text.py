"""The playground's text encoders behind the host's CLIP socket: whole words of a fixed vocabulary, three causal layers of width 128."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import torch
from comfy.clip_model import CLIPTextModel
from torch import Tensor

from .world.captions import GROUND, MOTION, Caption

WIDTH = 128
START, END, UNKNOWN = 0, 1, 2
SPECIAL = ("<start>", "<end>", "<unknown>")
CLIP_NAME = "playground"
DROP_CAPTION = 0.1  # of the captions of a training say nothing, for guidance
DROP_WORD = 0.01


@dataclass(frozen=True)
class Language:
    """The words that a model knows, and how many tokens its prompts have. It is also what the host's SDTokenizer asks of a
    tokenizer."""

    vocabulary: tuple[str, ...]
    max_tokens: int

    @cached_property
    def words(self) -> tuple[str, ...]:
        return (*SPECIAL, *self.vocabulary)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    @property
    def config(self) -> dict[str, Any]:
        """Of the host's CLIP text transformer."""
        return {
            "num_hidden_layers": 3,
            "hidden_size": WIDTH,
            "num_attention_heads": 4,
            "intermediate_size": 4 * WIDTH,
            "hidden_act": "gelu",
            "max_position_embeddings": self.max_tokens,
            "eos_token_id": END,
            "vocab_size": len(self.words),
        }

    def from_pretrained(self, path: str) -> "Language":
        return self

    def get_vocab(self) -> dict[str, int]:
        return self.ids

    def __call__(self, text: str) -> dict[str, list[int]]:
        """Other words become <unknown>."""
        words = re.findall(r"\w+|,", text.lower())
        return {"input_ids": [START, *(self.ids.get(w, UNKNOWN) for w in words), END]}

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return " ".join(self.words[i] for i in ids if not (skip_special_tokens and i in (START, END)))

    def pad(self, ids: Sequence[int]) -> Tensor:
        """Word ids, without start and end, as one row of max_tokens."""
        ids = ids[: self.max_tokens - 2]
        return torch.tensor([START, *ids] + [END] * (self.max_tokens - 1 - len(ids)))


class TextModel(CLIPTextModel):
    """The host's CLIP text transformer with our vocabulary instead of 49408 word pieces."""

    def __init__(self, config_dict, dtype, device, operations) -> None:
        super().__init__(config_dict, dtype, device, operations)
        self.set_input_embeddings(operations.Embedding(config_dict["vocab_size"], WIDTH, dtype=dtype, device=device))


def build_words(language: Language, weights: dict[str, Tensor] | None = None) -> TextModel:
    """The text transformer alone, to train or with these weights."""
    words = TextModel(language.config, torch.float32, "cpu", comfy.ops.disable_weight_init)
    if weights is not None:
        words.load_state_dict(weights)
    return words


def build_clip(language: Language, weights: dict[str, Tensor]) -> comfy.sd.CLIP:
    """A CLIP; `weights` are those of the text transformer alone."""
    target = comfy.supported_models_base.ClipTarget(partial(_tokenizer, language), partial(_clip, language))
    return comfy.sd.CLIP(target, parameters=sum(w.numel() for w in weights.values()), state_dict=[weights])


def _tokenizer(language: Language, embedding_directory=None, tokenizer_data: dict | None = None) -> comfy.sd1_clip.SD1Tokenizer:
    made: Any = partial(
        comfy.sd1_clip.SDTokenizer,
        max_length=language.max_tokens,
        embedding_size=WIDTH,
        embedding_key=f"clip_{CLIP_NAME}",
        tokenizer_class=language,  # pyright: ignore[reportArgumentType]
    )
    return comfy.sd1_clip.SD1Tokenizer(embedding_directory, tokenizer_data or {}, clip_name=CLIP_NAME, tokenizer=made)


def _clip(language: Language, device="cpu", dtype=None, model_options: dict | None = None) -> comfy.sd1_clip.SD1ClipModel:
    made: Any = partial(
        comfy.sd1_clip.SDClipModel,
        max_length=language.max_tokens,
        textmodel_json_config=language.config,
        model_class=TextModel,
        special_tokens={"start": START, "end": END, "pad": END},
        return_projected_pooled=False,
    )
    return comfy.sd1_clip.SD1ClipModel(device=device, dtype=dtype, model_options=model_options or {}, clip_name=CLIP_NAME, clip_model=made)


def tokens_and_groups(said: Caption, language: Language, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Of a caption to train on: word ids and, per token, what it speaks of: 0 the ground, 1-3 an object, 4-7 how these move, -1 none of
    these. A motion is told by its last word: a text encoder that reads from left to right knows all of it only there. Now and then a word
    is unknown, or nothing is said."""
    if rng.random() < DROP_CAPTION:
        return language.pad([]), torch.full((language.max_tokens,), -1)
    known = [language.ids[w] if rng.random() > DROP_WORD else UNKNOWN for w in said.words]
    following = [*said.groups[1:], None]
    groups = [-1 if g is None or (g >= MOTION and g == then) else g for g, then in zip(said.groups, following, strict=True)]
    if GROUND not in groups:
        groups = [*groups, *[GROUND] * (language.max_tokens - 1 - len(groups))]  # then the padding stands for it
    stands = MOTION + GROUND not in groups and any(group > MOTION for group in groups)  # then the start stands for that
    groups = [MOTION + GROUND if stands else -1, *groups][: language.max_tokens]
    return language.pad(known), torch.tensor(groups + [-1] * (language.max_tokens - len(groups)))
