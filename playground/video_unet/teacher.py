"""The video transformer as a teacher of the video U-Net, where there is much noise.

What it expects of a noisy clip is the mean of all clips that it may be; the clip that was drawn is one of them (knowledge distillation,
https://arxiv.org/abs/1503.02531). Where noise hides nearly all, only the mean tells what the words have to do with it.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from ..noise_loss import NoisyBatch
from ..video_dit import models as video_dit
from ..video_dit.train import VideoTransformer
from ..weights import load_compact

LEAST = 0.8  # of noise in noise and signal: below, the image playground knows better


@dataclass
class ClipTeacher:
    """network: called as VideoTransformer is."""

    network: nn.Module

    @classmethod
    def load(cls, device: torch.device) -> "ClipTeacher":
        network = VideoTransformer()
        network.dit.load_state_dict(load_compact(video_dit.WEIGHTS))
        return cls(network.to(device))

    @torch.no_grad()
    def taught(self, batch: NoisyBatch, stride: int) -> NoisyBatch:
        """The batch with the noise that the transformer expects in place of the true one, in clips of at least LEAST noise.

        The noisy clip of variance 1 is (clean + sigma noise) / sqrt(1 + sigma^2), that of the flow (1 - level) clean + level noise."""
        sigma, level = (values.view(-1, 1, 1, 1, 1) for values in (batch.sigma, batch.level))
        whole = batch.noisy * (1 + sigma**2).sqrt()
        flow = torch.where(level < 1, whole * (1 - level), batch.noisy)
        velocity = self.network(flow.movedim(2, 1), batch.level, batch.tokens, stride).float().movedim(1, 2)
        expected = (whole - (flow - level * velocity)) / sigma
        return replace(batch, noise=torch.where(level >= LEAST, expected, batch.noise))
