"""The playground's video U-Net: the image playground with the host's temporal layers between its own, which stay as they are.

Predicts noise on the schedule of Stable Diffusion. The frames of a clip lie in the batch, as with SVD and AnimateDiff. Only the first
convolution is another one: it has further channels, which tell where in the clip a place is.
"""

from functools import partial
from pathlib import Path

import comfy.conds
import comfy.model_base
import comfy.model_patcher
import comfy.sd
from torch import Tensor

from ...host.models.frames import clip_length
from ..image import models as image_models
from ..places import CHANNELS, places
from ..video_words.models import load_clip
from ..weights import load_compact
from ..world.motion import FRAMES

WEIGHTS = Path(__file__).parent / "video_unet.safetensors"
UNET = {
    **image_models.UNET,
    "in_channels": 4 + CHANNELS,
    "use_temporal_attention": True,
    "use_temporal_resblock": True,
    "use_spatial_context": True,  # temporal layers read the prompt, too
    "extra_ff_mix_layer": True,
    "merge_strategy": "fixed",
    "merge_factor": 0.0,  # temporal layers add to what comes in, so nothing is to be blended
    "video_kernel_size": [3, 1, 1],
}
TEMPORAL = ("time_stack", "time_pos_embed", "time_mixer")  # in the names of what the image playground does not have
LOUD = 8.0
FIRST = "input_blocks.0.0.weight"


def is_temporal(name: str) -> bool:
    return any(part in TEMPORAL for part in name.split("."))


def is_own(name: str) -> bool:
    """Whether a weight of the U-Net is not the image playground's."""
    return is_temporal(name) or name == FIRST


def told(frames: int, like: Tensor) -> Tensor:
    """Where in their clips frames in a batch are, as `like` (B * F, ..., H, W): loudly, since weights for it begin at 0."""
    return LOUD * places(frames, *like.shape[-2:], device=like.device).movedim(1, 0).repeat(len(like) // frames, 1, 1, 1).to(like)


class VideoUNet(comfy.model_base.BaseModel):
    """A batch of a multiple of 13 frames is so many clips; any other is one clip."""

    clip_frames = FRAMES

    def concat_cond(self, **kwargs) -> Tensor:
        """Of each frame in the batch."""
        return told(clip_length(self, len(kwargs["noise"])), kwargs["noise"])

    def extra_conds(self, **kwargs):
        frames = clip_length(self, kwargs["noise"].shape[0])
        return {**super().extra_conds(**kwargs), "num_video_frames": comfy.conds.CONDConstant(frames)}


def build_model(weights: dict[str, Tensor] | None = None) -> comfy.model_patcher.ModelPatcher:
    """A MODEL; `weights` are those of the whole U-Net."""
    eps = partial(VideoUNet, model_type=comfy.model_base.ModelType.EPS)
    return image_models.build_patcher(image_models.Playground(dict(UNET)), eps, weights)


def load(path: Path = WEIGHTS) -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """MODEL from the file of what is its own and that of the image playground, with the CLIP of both video models and its VAE."""
    own, image = load_compact(path), load_compact(image_models.WEIGHTS)
    spatial, vae = ({k[len(p) :]: w for k, w in image.items() if k.startswith(p)} for p in ("unet.", "vae."))
    return build_model({**spatial, **own}), load_clip(), image_models.build_vae(vae)
