"""Excerpts of clips whose latents are the numbers of their frames."""

import pytest
import torch
from freesteer.playground.clip_latents import OF_A_FRAME, SAYINGS, ClipLatents
from freesteer.playground.latents import Latents
from freesteer.playground.text import END
from freesteer.playground.video_words.models import LANGUAGE
from freesteer.playground.world import motion

CLIPS = 20


@pytest.fixture(scope="module")
def data() -> ClipLatents:
    clips = motion.sample_clips(CLIPS, torch.Generator().manual_seed(0))
    numbers = torch.arange(len(clips.scenes)).half().view(-1, 1, 1, 1).expand(-1, 4, 16, 16)  # exact in half precision below 2048
    return ClipLatents(clips, Latents(numbers, numbers, clips.scenes), torch.device("cpu"))


@pytest.mark.parametrize(("frames", "stride"), [(13, 1), (5, 3), (4, 2)])
def test_an_excerpt_is_of_one_clip_forwards_or_backwards_and_said_so(data: ClipLatents, frames: int, stride: int):
    part = data.excerpts(CLIPS, frames, torch.Generator().manual_seed(1), stride)
    numbers = part.latent[:, :, 0, 0, 0].long()
    assert part.latent.shape == part.masks.shape == (CLIPS, frames, 4, 16, 16) and torch.equal(part.latent, part.masks)
    clip, time = numbers // motion.FRAMES, numbers % motion.FRAMES
    assert (clip == clip[:, :1]).all() and len(clip[:, 0].unique()) == CLIPS  # all different
    steps = time.diff(dim=1)
    assert (steps == steps[:, :1]).all() and set(steps[:, 0].tolist()) == {stride, -stride}
    for i, (own, step) in enumerate(zip(clip[:, 0], steps[:, 0], strict=True)):
        sayings = data.of_clips[own, int(step < 0)].long()
        assert sayings.shape[:2] == (SAYINGS, 2) and any(torch.equal(s, torch.stack([part.tokens[i], part.groups[i]])) for s in sayings)


def test_a_single_frame_is_said_as_a_picture_and_so_is_each_frame_of_a_clip(data: ClipLatents):
    for frames in (1, 5):
        part = data.excerpts(CLIPS, frames, torch.Generator().manual_seed(2))
        numbers = part.latent[:, :, 0, 0, 0].long()
        assert numbers[:, 0].remainder(motion.FRAMES).unique().numel() > 3  # begin anywhere
        for said, number in zip(part.of_frames.flatten(0, 1), numbers.flatten(), strict=True):
            sayings = data.of_frames[number, :, 0].long()
            assert len(sayings) == OF_A_FRAME and any(torch.equal(said, s) for s in sayings)
        assert torch.equal(part.tokens, part.of_frames[:, 0]) == (frames == 1)


def test_a_still_excerpt_is_one_frame_again_and_again_and_said_so(data: ClipLatents):
    part = data.excerpts(CLIPS, 5, torch.Generator().manual_seed(1), 3, still=True)
    numbers = part.latent[:, :, 0, 0, 0].long()
    assert (numbers % motion.FRAMES == 0).all() and len(numbers[:, 0].unique()) == CLIPS  # the first of each clip
    assert (part.of_frames == part.of_frames[:, :1]).all()
    moving = {LANGUAGE.ids[word] for word in ("moves", "goes", "grows", "spins", "shrinks", "drifts", "drifting")}
    assert not torch.isin(part.tokens, torch.tensor(sorted(moving))).any()
    stands = torch.isin(part.tokens, torch.tensor([LANGUAGE.ids[word] for word in ("still", "stays")])).any(1)
    nothing_is_said = part.tokens[:, 1] == END
    assert (stands | nothing_is_said).all() and stands.sum() > CLIPS / 2


def test_excerpts_follow_the_generator(data: ClipLatents):
    one, two, other = (data.excerpts(6, 5, torch.Generator().manual_seed(seed), 3) for seed in (1, 1, 2))
    assert torch.equal(one.latent, two.latent) and torch.equal(one.tokens, two.tokens)
    assert not torch.equal(one.latent, other.latent)
