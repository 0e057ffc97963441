"""Clips with an axis of time, and as a batch of frames."""

import pytest
import torch
from freesteer.host.models import frames
from freesteer.playground.video_unet import models as video_unet


def test_frames_of_a_batch_get_an_axis_of_time_and_lose_it_again():
    batch = torch.arange(6.0).view(6, 1, 1, 1)
    volume = frames.with_time(batch, 3)
    assert volume.shape == (2, 1, 3, 1, 1) and volume[1, 0, :, 0, 0].tolist() == [3, 4, 5]
    assert torch.equal(frames.without_time(volume, 4), batch)


@pytest.mark.parametrize("clip", [1, 3])
def test_a_clip_with_an_axis_of_time_is_left_as_it_is(clip):
    volume = torch.rand(2, 4, 3, 2, 2)
    assert frames.with_time(volume, clip) is volume and frames.without_time(volume, 5) is volume


def test_a_batch_of_the_playgrounds_clip_model_is_so_many_whole_clips_or_one_of_its_own_length():
    model = video_unet.build_model().model
    assert [frames.clip_length(model, batch) for batch in (26, 13, 5, 14)] == [13, 13, 5, 14]
    assert [frames.clip_length(model, 26, said) for said in ("in the batch", "single pictures")] == [26, 1]
