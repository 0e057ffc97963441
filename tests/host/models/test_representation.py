"""Checkpoints in the layout of Large-Image-Diffusion, made up here, against references written out from that layout."""

import pickle
from pathlib import Path

import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import comfy.model_detection
import comfy.ops
import comfy.sample
import pytest
import torch
import torch.nn.functional as F
from comfy.ldm.modules.diffusionmodules.model import Decoder, Encoder
from freesteer.host.models import representation
from freesteer.host.models.representation import Representation, RepresentationError
from safetensors.torch import save_file
from torch import Tensor, nn

from .ldm_reference import Layout, predict, shapes

SMALL = Layout(channels=32, mult=(1, 2), seen=(1,), blocks=1, context=24)
SEEN, REGION = 10, 14  # numbers of a vector
AUTOENCODER = {
    "double_z": False, "z_channels": 3, "resolution": 256, "in_channels": 3, "ch": 32, "ch_mult": [1, 2, 4], "out_ch": 3,
    "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


def randomly(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator) * (0.5 / max(1, shape[-1] if len(shape) == 2 else torch.Size(shape[1:]).numel()) ** 0.5)


class Autoencoder(nn.Module):
    """VQ-f4, from the host's own encoder and decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(**AUTOENCODER), Decoder(**AUTOENCODER)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(50, 3)


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(0)
        made = Autoencoder()
        for weight in made.parameters():
            weight.data = torch.randn(weight.shape) * (0.3 if weight.ndim > 1 else 0.1)
        return made.eval().requires_grad_(False)


@pytest.fixture
def state(autoencoder) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    unet = {f"model.diffusion_model.{name}": randomly(shape, generator) for name, shape in shapes(SMALL).items()}
    words = {
        "cond_stage_model.patch_fc.weight": torch.randn(24, SEEN, generator=generator),
        "cond_stage_model.patch_fc.bias": torch.randn(24, generator=generator),
        "cond_stage_model.region_fc.weight": torch.randn(24, REGION, generator=generator),
        "cond_stage_model.region_fc.bias": torch.randn(24, generator=generator),
    }
    first = {f"first_stage_model.{name}": weight.clone() for name, weight in autoencoder.state_dict().items()}
    others = {"betas": torch.zeros(1000), "first_stage_model.loss.discriminator.weight": torch.zeros(3)}
    return {**unet, **words, **first, **others}


@pytest.fixture
def loaded(state):
    return representation.build(state, "made up")


def test_the_published_model_has_these_names_and_shapes():
    wanted = shapes(Layout())
    found = comfy.model_detection.detect_unet_config({name: torch.empty(shape, device="meta") for name, shape in wanted.items()}, "")
    config = Representation(found).unet_config
    assert config["model_channels"] == 192 and config["context_dim"] == 512 and config["in_channels"] == 3
    network = openaimodel.UNetModel(**config, device="meta", operations=comfy.ops.disable_weight_init)
    assert {name: tuple(weight.shape) for name, weight in network.state_dict().items()} == wanted


def test_its_noise_is_what_the_layout_says(loaded, state):
    generator = torch.Generator().manual_seed(2)
    x, t, context = torch.randn(2, 3, 8, 12, generator=generator), torch.tensor([7.0, 800.0]), torch.randn(2, 2, 24, generator=generator)
    unet = {name.removeprefix("model.diffusion_model."): weight for name, weight in state.items()}
    with torch.inference_mode():
        found = loaded[0].model.diffusion_model(x, t, context=context)
    torch.testing.assert_close(found.float(), predict(unet, SMALL, x, t, context), rtol=1e-5, atol=1e-5)


def test_its_noise_levels_are_those_it_was_trained_with(loaded):
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
    signal = torch.cumprod(1 - betas, 0)
    sampling = loaded[0].get_model_object("model_sampling")
    torch.testing.assert_close(sampling.sigmas.double(), ((1 - signal) / signal).sqrt(), rtol=1e-4, atol=1e-6)


def test_pictures_are_encoded_as_they_are_and_decoded_from_the_nearest_words(loaded, autoencoder):
    vae = loaded[1]
    picture = torch.rand(2, 32, 48, 3, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        latent = vae.encode(picture)
        wanted = autoencoder.quant_conv(autoencoder.encoder(2 * picture.movedim(-1, 1) - 1))
        torch.testing.assert_close(latent.float(), wanted, rtol=1e-4, atol=1e-4)
        words = autoencoder.quantize.embedding.weight
        nearest = torch.stack([words[torch.cdist(one.flatten(1).T, words).argmin(1)].T.view(one.shape) for one in wanted])
        decoded = autoencoder.decoder(autoencoder.post_quant_conv(nearest))
        torch.testing.assert_close(vae.decode(latent), ((decoded + 1) / 2).clamp(0, 1).movedim(1, -1), rtol=1e-4, atol=1e-4)
    assert latent.shape == (2, 3, 8, 12)


def test_the_embedder_says_what_was_seen_at_length_one(loaded, state):
    embedder, seen = loaded[2], torch.randn(2, 1, SEEN, generator=torch.Generator().manual_seed(4))
    weight, bias = (state[f"cond_stage_model.patch_fc.{part}"] for part in ("weight", "bias"))
    wanted = torch.stack([weight @ one[0] / one[0].square().sum().sqrt() + bias for one in seen])
    torch.testing.assert_close(embedder(seen)[:, 0], wanted)
    torch.testing.assert_close(embedder(torch.zeros(1, 1, SEEN))[0], torch.stack([bias, state["cond_stage_model.region_fc.bias"]]))
    assert embedder.seen == SEEN


def test_a_model_of_patches_alone_has_one_word(state):
    alone = {name: weight for name, weight in state.items() if "region_fc" not in name}
    assert representation.build(alone, "made up")[2](torch.ones(3, 1, SEEN)).shape == (3, 1, 24)


def test_a_picture_is_drawn_by_the_stock_sampler(loaded):
    model, vae, embedder = loaded
    with torch.inference_mode():
        positive, negative = ([[embedder(seen), {}]] for seen in (torch.ones(1, 1, SEEN), torch.zeros(1, 1, SEEN)))
        latent = torch.zeros(1, 3, 8, 8)
        drawn = comfy.sample.sample(
            model, comfy.sample.prepare_noise(latent, 1), 3, 4.0, "ddim", "normal", positive, negative, latent, disable_pbar=True, seed=1
        )
        assert drawn.isfinite().all() and vae.decode(drawn).shape == (1, 32, 32, 3)


@pytest.mark.parametrize("kind", ["safetensors", "ckpt"])
def test_files_of_both_kinds_are_read(state, tmp_path, kind):
    file = tmp_path / f"last.{kind}"
    if kind == "ckpt":
        torch.save({"state_dict": state, "epoch": 3}, file)
    else:
        save_file(state, file)
    model, _, embedder = representation.load(file)
    found = model.model.diffusion_model.state_dict()["time_embed.0.weight"]
    assert torch.equal(found.float(), state["model.diffusion_model.time_embed.0.weight"]) and embedder.seen == SEEN


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("hostile_was_run"),)


@pytest.mark.parametrize("kind", ["a picture", "cut off", "hostile", "nothing"])
def test_files_that_are_none_say_so(state, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": state}, file)
    content = {
        "a picture": b"\x89PNG\r\n",
        "cut off": file.read_bytes()[:5000],
        "hostile": pickle.dumps(Hostile(), protocol=2),
        "nothing": b"",
    }[kind]
    file.write_bytes(content)
    with pytest.raises(RepresentationError, match=r"last.ckpt cannot be read as tensors alone"):
        representation.load(file)
    assert not (tmp_path / "hostile_was_run").exists()


@pytest.mark.parametrize(
    "prefix", ["model.diffusion_model.input_blocks.0.0", "first_stage_model.quantize", "cond_stage_model.patch_fc.weight"]
)
def test_other_checkpoints_are_told_where_they_belong(state, prefix):
    others = {name: weight for name, weight in state.items() if not name.startswith(prefix)}
    with pytest.raises(RepresentationError, match="other checkpoints go into Load Checkpoint"):
        representation.build(others, "sd15.ckpt")


@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.out.2.weight", "model.diffusion_model.middle_block.1.norm.bias", "first_stage_model.decoder.conv_in.weight",
        "first_stage_model.encoder.mid.block_1.norm1.bias", "first_stage_model.post_quant_conv.bias", "cond_stage_model.patch_fc.bias",
        "first_stage_model.quant_conv.weight",
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_whole_says_so(state, name):
    del state[name]
    with pytest.raises(RepresentationError, match=r"last.ckpt is not whole, or of another layout"):
        representation.build(state, "last.ckpt")


def test_nearest_words_are_sought_in_parts(monkeypatch):
    words, latent = torch.randn(30, 3), torch.randn(2, 3, 9, 7)
    whole = representation.Quantise(words)(latent)
    monkeypatch.setattr(representation, "TOGETHER", 5)
    assert torch.equal(representation.Quantise(words)(latent), whole)
    assert torch.equal(whole[0, :, 0, 0], words[F.pairwise_distance(words, latent[0, :, 0, 0]).argmin()])
