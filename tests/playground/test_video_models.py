"""The playground's video models before and while they are trained; what they draw is measured by `bench playground_video`."""

import random

import pytest
import torch
from comfy.ldm.modules.attention import attention_pytorch
from freesteer.host.models.taps import OVERRIDE
from freesteer.playground import text
from freesteer.playground.attention_loss import GROUPS, Looks
from freesteer.playground.frame_vae import build_frame_vae
from freesteer.playground.image import models as image
from freesteer.playground.image.train_diffusion import Diffusion
from freesteer.playground.noise_loss import OF_CLIPS, Noising, noise_loss
from freesteer.playground.places import places
from freesteer.playground.text import tokens_and_groups
from freesteer.playground.training_attention import OPTIONS, SHORT
from freesteer.playground.video_dit import models as video_dit
from freesteer.playground.video_dit.teacher import HIGHEST, Teacher
from freesteer.playground.video_dit.train import CLEAR, SHAPES, STAGES, Batch, VideoTransformer, stage_of, taught
from freesteer.playground.video_unet import models as video_unet
from freesteer.playground.video_unet.teacher import LEAST, ClipTeacher
from freesteer.playground.video_unet.train import VideoDiffusion
from freesteer.playground.video_words.models import LANGUAGE
from freesteer.playground.weights import load_compact
from freesteer.playground.world import motion, world
from freesteer.playground.world.captions import caption


def of_image(prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): w for name, w in load_compact(image.WEIGHTS).items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def both_vaes():
    return build_frame_vae(of_image("vae.")), image.build_vae(of_image("vae."))


def test_frames_are_encoded_and_decoded_one_by_one(both_vaes):
    of_frames, of_pictures = both_vaes
    pictures = torch.rand(3, 64, 48, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        latent, each = of_frames.encode(pictures), of_pictures.encode(pictures)
        assert latent.shape == (1, 4, 3, 8, 6)
        torch.testing.assert_close(latent[0].movedim(0, 1), each)
        decoded = of_frames.decode(latent)
        assert decoded.shape == (1, 3, 64, 48, 3)
        torch.testing.assert_close(decoded[0], of_pictures.decode(each))
        assert of_frames.decode_tiled(latent, tile_x=8, tile_y=8, overlap=2, tile_t=8, overlap_t=2).shape == decoded.shape
        torch.testing.assert_close(of_frames.encode(torch.stack([pictures, pictures]))[1], latent[0])
        assert of_frames.decode(each).shape == (3, 64, 48, 3)  # latents of pictures stay pictures


def test_new_temporal_layers_leave_the_image_playgrounds_frames_as_they_are():
    video, picture = VideoDiffusion(), Diffusion()
    video.begin()
    picture.unet.load_state_dict(of_image("unet."))
    picture.words.load_state_dict(of_image("words."))
    trained = {name for name, weight in video.unet.named_parameters() if weight.requires_grad}
    assert trained & {name for name, _ in picture.unet.named_parameters()} == {video_unet.FIRST}
    noisy = torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    times, words = torch.tensor([900.0, 200.0]), ("a red star on grass", "a blue circle")
    with torch.no_grad():
        found = video(noisy, times, tokens(words, LANGUAGE))
        for frame in range(3):
            alone = picture(noisy[:, frame], times, tokens(words, image.LANGUAGE))
            off = (found[:, frame] - alone).abs().mean() / alone.abs().mean()
            assert off < 0.02  # not 0: a prompt has more padding here
        shuffled = video(noisy.flip(1), times, tokens(words, LANGUAGE))
    torch.testing.assert_close(shuffled.flip(1), found, atol=1e-4, rtol=1e-4)


def test_strided_frames_are_at_their_times():
    """A layer that knows its times says of every third frame what it says of it among all."""
    network, seen = VideoDiffusion(), []
    network.begin()
    layer = next(m for name, m in network.unet.named_modules() if name.endswith("time_pos_embed"))
    layer.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    words = tokens(("a red star goes left", "a blue circle"), LANGUAGE)
    with torch.no_grad():
        for frames, stride in ((7, 1), (3, 3)):
            network(torch.randn(2, frames, 4, 16, 16), torch.tensor([900.0, 200.0]), words, stride)
    whole, strided = (numbers.unflatten(0, (2, -1)) for numbers in seen)
    torch.testing.assert_close(strided, whole[:, ::3])


def test_frames_in_the_batch_are_told_where_in_their_clip_they_are():
    model = video_unet.build_model().model
    told = model.concat_cond(noise=torch.zeros(2 * motion.FRAMES, 4, 16, 20))
    expected = video_unet.LOUD * places(motion.FRAMES, 16, 20).movedim(0, 1)
    assert told.shape == (26, 5, 16, 20) and torch.equal(told[:13], expected) and torch.equal(told[13:], expected)
    assert torch.equal(model.concat_cond(noise=torch.zeros(5, 4, 8, 8)), video_unet.LOUD * places(5, 8, 8).movedim(0, 1))  # one clip of 5


def tokens(prompts: tuple[str, ...], language: text.Language) -> torch.Tensor:
    clip = text.build_clip(language, text.build_words(language).state_dict())
    rows = [next(iter(clip.tokenize(prompt).values()))[0] for prompt in prompts]
    return torch.tensor([[int(token[0]) for token in row] for row in rows])


@pytest.mark.parametrize("frames", [(), (3,)])
def test_the_loss_of_noise_is_least_at_the_noise(frames: tuple[int, ...]):
    class NoLooks(Looks):
        def __init__(self) -> None: ...

        def loss(self, groups: torch.Tensor, masks: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            assert len(groups) == len(weight) == 2 and masks.shape == (2, frames[0] if frames else 1, GROUPS, 16, 16)
            return weight.sum() * 0

    draw = torch.Generator().manual_seed(0)
    latent, masks = (torch.randn(2, *frames, 4, 16, 16, generator=draw) for _ in range(2))
    masks = (masks > 0).float()
    words = torch.ones(2, 5, dtype=torch.long)
    batch = Noising()(latent, words, words, masks, draw)
    at = batch.sigma.view(-1, *[1] * (latent.ndim - 1))
    torch.testing.assert_close(batch.noisy * (1 + at**2).sqrt(), latent + at * batch.noise)
    assert float(noise_loss(batch.noise, batch, NoLooks())[0]) == 0
    ground = masks[..., 0, :, :]
    off = batch.noise.clone()
    off[..., 0, :, :] += ground
    loss, parts = noise_loss(off, batch, NoLooks())
    share = ground.flatten(1).mean(1) / 4 / (2 - ground).flatten(1).mean(1)  # a pixel of an object counts twice
    assert float(parts["noise"]) == pytest.approx(float(share.mean()), rel=1e-5)
    assert float(loss) == pytest.approx(float((share * (5 * batch.sigma**2).clamp(max=1)).mean()), rel=1e-5)

    velocity, predicted = (
        ((a - at * x) / (1 + at**2).sqrt()) for a, x in ((batch.noise, latent), (off, latent - at * (off - batch.noise)))
    )
    ground_counts_once = 2 - ground[..., None, :, :]
    wanted = (ground_counts_once * (predicted - velocity).square()).flatten(1).mean(1) / ground_counts_once.flatten(1).mean(1)
    assert float(noise_loss(off, batch, NoLooks(), OF_CLIPS)[0]) == pytest.approx(float(wanted.mean()), rel=1e-4)


def test_the_highest_of_several_draws_is_noisier():
    latent, words = torch.zeros(4000, 1, 1, 1), torch.ones(4000, 5, dtype=torch.long)
    once, twice = (Noising(n)(latent, words, words, latent, torch.Generator().manual_seed(0)).t.mean() for n in (1, 2))
    assert float(once) == pytest.approx(500, abs=20) and float(twice) == pytest.approx(667, abs=20)


def test_the_teacher_of_single_frames_expects_what_was_drawn():
    """Of a frame with little noise, nearly itself; with much, something nearer to it than nothing is."""
    scenes = world.sample_scenes(8, torch.Generator().manual_seed(0), counts=(1, 0, 0))
    pictures = world.render(scenes)[0]
    latent = image.build_vae(of_image("vae.")).encode(pictures.movedim(1, -1))
    said = torch.stack([tokens_and_groups(caption(scenes, i, random.Random(1)), LANGUAGE, random.Random(1))[0] for i in range(8)])
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
    for ratio, most in ((0.1, 0.02), (1.0, 0.1), (4.0, 0.5)):
        expected = Teacher().clean(latent + ratio * noise, torch.full((8,), ratio), said).detach()
        assert float((expected - latent).square().mean() / latent.square().mean()) < most


RATIO = HIGHEST / (1 - HIGHEST)


@pytest.mark.parametrize(
    ("frames", "still", "shift", "most"),
    [(1, False, 1.0, RATIO), (5, False, video_dit.SHIFT, CLEAR / (1 - CLEAR)), (5, True, SHAPES, RATIO * 5**0.5)],
    ids=["single frames", "clips", "still clips"],
)
def test_frames_are_taught_as_far_as_the_teacher_knows_noise(frames: int, still: bool, shift: float, most: float):
    """By a teacher that knows them, which changes nothing; one that does not is heard as far as that."""
    rows, draw = 40, torch.Generator().manual_seed(0)
    latent, noise = torch.randn(2, rows, 4, frames, 8, 8, generator=draw)
    if still:
        latent = latent[:, :, :1].expand(-1, -1, frames, -1, -1)
    even = (torch.arange(rows) + 0.5) / rows
    sigma = shift * even / (1 + (shift - 1) * even)
    at = sigma.view(-1, 1, 1, 1, 1)
    said = torch.arange(rows * frames).view(rows, frames, 1)
    stage = STAGES[0]._replace(frames=frames, still=still, shift=shift)
    batch = Batch((1 - at) * latent + at * noise, noise - latent, sigma, said[:, 0], said[:, 0], latent, said, stage)
    in_rows = latent.transpose(1, 2).flatten(0, 1)

    class Knows(Teacher):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def clean(self, noisy: torch.Tensor, ratio: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            assert (ratio < RATIO).all() and len(noisy) == len(ratio) == len(tokens)
            left = (noisy - in_rows[tokens[:, 0]]) / ratio.view(-1, 1, 1, 1)
            assert float(left.std()) == pytest.approx(1, abs=0.05)  # the noise is as loud as it is told
            return in_rows[tokens[:, 0]]

    class Wrong(Knows):
        def clean(self, noisy: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(noisy)

    torch.testing.assert_close(taught(Knows(), batch), batch.velocity, atol=1e-4, rtol=1e-4)
    changed = (taught(Wrong(), batch) - batch.velocity).flatten(1).abs().amax(1) > 0
    below = sigma / (1 - sigma) < most
    assert 0 < int(changed.sum()) < rows and not changed[~below].any()
    assert int(below.sum()) - int(changed.sum()) <= 1  # nearly all of these


def test_stages_go_from_single_frames_to_whole_clips():
    frames = [stage_of(step, 1000).frames for step in range(1000)]
    assert set(frames[:134]) == {1} and set(frames[134:800]) == {1, 5} and set(frames[800:]) == {1, 13}
    still = [stage_of(step, 1000).still for step in range(1000)]
    assert frames[134:400].count(1) == pytest.approx(266 / 8, abs=1) and frames[400:].count(1) == 150
    assert not any(still[:400]) and sum(still[400:]) == 150  # of the steps beside clips, half
    assert {stage_of(step, 1000).frames for step in range(400, 1000) if still[step]} == {5, 13}
    assert all((stage.frames - 1) * stage.stride in (0, motion.FRAMES - 1) for stage in STAGES)  # all of a motion, or a single frame
    assert len({frames * clips // pool**2 // 20 for _, frames, _, pool, clips, *_ in STAGES}) <= 2  # about as many frames a step


def test_the_video_transformer_takes_clips_of_any_length():
    network = VideoTransformer()
    words = tokens(("a red circle moving left",), LANGUAGE)
    for frames in (1, 5, 13):
        with torch.no_grad():
            assert network(torch.randn(1, 4, frames, 16, 16), torch.tensor([0.5]), words).shape == (1, 4, frames, 16, 16)


def test_the_transformer_is_told_where_in_the_clip_a_place_is():
    told = video_dit.build_model().model.concat_cond(noise=torch.zeros(2, 4, 13, 16, 20))
    assert told.shape == (2, 5, 13, 16, 20) and torch.equal(told[0], told[1])
    time, down, right, falls, goes_right = told[0]
    assert time[0, 3, 4] == -1 and time[12, 3, 4] == 1 and down[5, 0, 4] == -15 / 16 and float(right[5, 3, 19]) == pytest.approx(0.95)
    assert torch.equal(falls, time * down) and torch.equal(goes_right, time * right)
    assert not places(1, 4, 4)[0].any()  # a single frame is at no time


@pytest.mark.parametrize("length", [1, 64, 2 * SHORT, 2 * SHORT + 1])
def test_attention_written_out_is_that_of_torch(length: int):
    q, k, v = torch.randn(3, 2, length, 96, generator=torch.Generator().manual_seed(0))
    found = OPTIONS[OVERRIDE](attention_pytorch, q, k[:, : SHORT // 2], v[:, : SHORT // 2], 3)
    torch.testing.assert_close(found, attention_pytorch(q, k[:, : SHORT // 2], v[:, : SHORT // 2], 3))


def test_prompts_read_for_all_places_at_once_are_read_as_the_host_does():
    """The video U-Net in training, with temporal layers that do something, is the model that is sampled."""
    network = VideoDiffusion()
    network.begin()
    for name, weight in network.unet.named_parameters():
        if video_unet.is_temporal(name) and not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    host = video_unet.build_model(network.unet.state_dict()).model.diffusion_model
    noisy, t = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([900.0, 200.0])
    words = tokens(("a red star goes left on grass", "a blue ring grows"), LANGUAGE)
    with torch.no_grad():
        found = network(noisy, t, words)
        context = network.words(words)[0].repeat_interleave(3, 0)
        placed = torch.cat([noisy.flatten(0, 1), video_unet.told(3, noisy.flatten(0, 1))], 1)
        wanted = host(placed, t.repeat_interleave(3), context=context, num_video_frames=3, transformer_options={})
    torch.testing.assert_close(found.flatten(0, 1), wanted, atol=1e-4, rtol=1e-4)


def test_a_share_of_a_batch_is_noise_alone():
    """Its noise is what leads from there to the clean latent, as a sampler goes."""
    draw = torch.Generator().manual_seed(0)
    latent, words = torch.randn(200, 4, 8, 8, generator=draw), torch.ones(200, 5, dtype=torch.long)
    batch = Noising(draws=2, blind=0.3)(latent, words, words, latent, draw)
    at = batch.sigma.view(-1, 1, 1, 1)
    torch.testing.assert_close(batch.noisy * (1 + at**2).sqrt() - at * batch.noise, latent, atol=1e-4, rtol=1e-4)
    assert (batch.t[:60] == 999).all() and (batch.t[60:] < 999).any()
    seen = (batch.noisy * latent).flatten(1).mean(1)  # of the clean latent; noise alone knows nothing of it
    assert abs(float(seen[:60].mean())) < 0.02 and float(batch.noisy[:60].std()) == pytest.approx(1, abs=0.01)
    assert float(seen[60:].mean()) > 0.1


def test_a_teacher_that_knows_the_clip_teaches_what_is_true():
    """Whatever the noise; and one that does not is heard only where there is much noise."""
    draw = torch.Generator().manual_seed(0)
    latent, words = torch.randn(40, 3, 4, 8, 8, generator=draw), torch.ones(40, 5, dtype=torch.long)

    class Knows(torch.nn.Module):
        def forward(self, flow: torch.Tensor, level: torch.Tensor, tokens: torch.Tensor, stride: int) -> torch.Tensor:
            assert stride == 6 and len(tokens) == len(flow) == len(latent)
            return (flow - latent.movedim(2, 1)) / level.view(-1, 1, 1, 1, 1)

    class Wrong(Knows):
        def forward(self, flow: torch.Tensor, *_: object) -> torch.Tensor:
            return torch.zeros_like(flow)

    batch = Noising(draws=2, blind=0.2)(latent, words, words, latent, draw)
    rows, true = batch.level >= LEAST, batch.noise.clone()
    assert (batch.level[:8] == 1).all() and 8 < int(rows.sum()) < 40
    known = ClipTeacher(Knows()).taught(batch, 6)
    torch.testing.assert_close(known.noise, true, atol=1e-4, rtol=1e-4)
    misled = ClipTeacher(Wrong()).taught(batch, 6)
    changed = (misled.noise - true).flatten(1).abs().amax(1) > 0.01
    assert torch.equal(changed, rows) and torch.equal(batch.noise, true)
