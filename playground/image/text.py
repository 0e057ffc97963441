"""The playground's text encoder behind the host's CLIP socket: whole words, three causal layers of width 128."""

import re
from typing import Any

import comfy.sd1_clip
import torch
from comfy.clip_model import CLIPTextModel

from ..world.captions import VOCABULARY

WIDTH = 128
MAX_TOKENS = 24
START, END, UNKNOWN = 0, 1, 2
WORDS = ("<start>", "<end>", "<unknown>", *VOCABULARY)
CONFIG = {
    "num_hidden_layers": 3,
    "hidden_size": WIDTH,
    "num_attention_heads": 4,
    "intermediate_size": 4 * WIDTH,
    "hidden_act": "gelu",
    "max_position_embeddings": MAX_TOKENS,
    "eos_token_id": END,
}


class WordTokenizer:
    """What the host's SDTokenizer asks of a tokenizer: whole words of a fixed vocabulary, other words as <unknown>."""

    def __init__(self) -> None:
        self.ids = {word: i for i, word in enumerate(WORDS)}

    @classmethod
    def from_pretrained(cls, path: str) -> "WordTokenizer":
        return cls()

    def get_vocab(self) -> dict[str, int]:
        return self.ids

    def __call__(self, text: str) -> dict[str, list[int]]:
        words = re.findall(r"\w+|,", text.lower())
        return {"input_ids": [START, *(self.ids.get(w, UNKNOWN) for w in words), END]}

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return " ".join(WORDS[i] for i in ids if not (skip_special_tokens and i in (START, END)))


class PlaygroundTextModel(CLIPTextModel):
    """The host's CLIP text transformer with our vocabulary instead of 49408 word pieces."""

    def __init__(self, config_dict, dtype, device, operations) -> None:
        super().__init__(config_dict, dtype, device, operations)
        self.set_input_embeddings(operations.Embedding(len(WORDS), WIDTH, dtype=dtype, device=device))


class PlaygroundTokenizer(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, embedding_directory=None, tokenizer_data: dict | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data or {}, clip_name="playground", tokenizer=_Tokenizer)


class _Tokenizer(comfy.sd1_clip.SDTokenizer):
    def __init__(self, embedding_directory=None, tokenizer_data: dict | None = None) -> None:
        super().__init__(
            max_length=MAX_TOKENS,
            embedding_directory=embedding_directory,
            embedding_size=WIDTH,
            embedding_key="clip_playground",
            tokenizer_class=WordTokenizer,  # pyright: ignore[reportArgumentType]
            tokenizer_data=tokenizer_data or {},
        )


class _Clip(comfy.sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options: dict | None = None) -> None:
        super().__init__(
            device=device,
            dtype=dtype,
            max_length=MAX_TOKENS,
            textmodel_json_config=dict(CONFIG),
            model_class=PlaygroundTextModel,
            special_tokens={"start": START, "end": END, "pad": END},
            return_projected_pooled=False,
            model_options=model_options or {},
        )


_CLIP: Any = _Clip  # the host names its own class where it takes any such class


class PlaygroundClip(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options: dict | None = None) -> None:
        super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_name="playground", clip_model=_CLIP)


def pad(ids: list[int]) -> torch.Tensor:
    """Word ids, without start and end, as one row of MAX_TOKENS."""
    ids = ids[: MAX_TOKENS - 2]
    return torch.tensor([START, *ids] + [END] * (MAX_TOKENS - 1 - len(ids)))
