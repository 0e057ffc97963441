"""The text encoder of both video models: the image playground's, which has learnt what moves how.

It is trained by itself, and stays as it is while the video models are trained, as those of big models do.
"""

from pathlib import Path

import comfy.sd
from torch import Tensor, nn

from .. import text
from ..image import models as image_models
from ..weights import load_compact
from ..world.motion_captions import CLIP_VOCABULARY

LANGUAGE = text.Language(CLIP_VOCABULARY, max_tokens=40)
WEIGHTS = Path(__file__).parent / "video_words.safetensors"
PICTURE = image_models.LANGUAGE.ids["picture"]


def load_words(path: Path = WEIGHTS) -> text.TextModel:
    """As the video models are trained with it: nothing of it changes."""
    return text.build_words(LANGUAGE, load_compact(path)).requires_grad_(False)


def load_clip(path: Path = WEIGHTS) -> comfy.sd.CLIP:
    return text.build_clip(LANGUAGE, load_compact(path))


def image_words() -> dict[str, Tensor]:
    """The weights of the image playground's text encoder."""
    return {k.removeprefix("words."): w for k, w in load_compact(image_models.WEIGHTS).items() if k.startswith("words.")}


def begun_from(image: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the image playground's text encoder with new words, and with further places in a prompt, which begin as its last."""
    own = text.build_words(LANGUAGE).state_dict()
    for name, weight in image.items():
        own[name][: len(weight)] = weight
    tokens, places = (f"text_model.embeddings.{kind}_embedding.weight" for kind in ("token", "position"))
    nn.init.normal_(own[tokens][len(image[tokens]) :], std=0.5)
    own[places][len(image[places]) :] = image[places][-1]
    return own
