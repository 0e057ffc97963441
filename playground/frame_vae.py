"""The image playground's VAE for latents with a time axis: each frame by itself."""

import comfy.sd
import torch
from torch import Tensor

from .image import autoencoder


class FrameVAE(comfy.sd.VAE):
    """Takes and gives latents (B, 4, F, H/8, W/8); frames are pictures (B, F, H, W, 3), or (F, H, W, 3) of one clip."""

    def decode(self, samples_in: Tensor, *args, **options) -> Tensor:
        return _by_frame(super().decode, samples_in, *args, **options)

    def decode_tiled(self, samples: Tensor, *args, tile_t=None, overlap_t=None, **options) -> Tensor:
        return _by_frame(super().decode_tiled, samples, *args, **options)

    def encode(self, pixel_samples: Tensor) -> Tensor:
        return self._encoded(super().encode, pixel_samples)

    def encode_tiled(self, pixel_samples: Tensor, *args, tile_t=None, overlap_t=None, **options) -> Tensor:
        return self._encoded(super().encode_tiled, pixel_samples, *args, **options)

    @staticmethod
    def _encoded(encode, pixels: Tensor, *args, **options) -> Tensor:
        clips = pixels if pixels.ndim == 5 else pixels[None]
        latent = encode(clips.flatten(0, 1), *args, **options)
        return latent.unflatten(0, clips.shape[:2]).movedim(1, 2)


def _by_frame(decode, latent: Tensor, *args, **options) -> Tensor:
    if latent.ndim == 4:
        return decode(latent, *args, **options)
    pictures = decode(latent.movedim(2, 1).flatten(0, 1), *args, **options)
    return pictures.unflatten(0, (latent.shape[0], latent.shape[2]))


def build_frame_vae(weights: dict[str, Tensor]) -> FrameVAE:
    """`weights` are those of the image playground's autoencoder."""
    return FrameVAE(sd=weights, config={"params": autoencoder.CONFIG}, dtype=torch.float32)
