"""The workflow for a user's own checkpoint, with a file of SD 1.5's layout and random weights: everything but beauty."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.ops
import pytest
import torch
from comfy.clip_model import CLIPTextModel
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from freesteer.tools.load_pack import ROOT
from freesteer.tools.server import Server
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from .conftest import load

UNET = {  # what tells SD 1.5 from others, with half of its blocks and the narrower half of its widths
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [1, 1, 1, 1],
    "channel_mult": [1, 1, 2, 2], "transformer_depth": [1, 1, 1, 0], "num_heads": 8,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1, "context_dim": 768,
    "use_spatial_transformer": True, "legacy": False, "adm_in_channels": None,
}  # fmt: skip
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
NAME = "random_sd15.safetensors"
BLOCK = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0)).half()


def random_weight(shape: torch.Size) -> Tensor:
    """Activations stay near 1; vectors (norms and biases) are near 1 too, which does no harm."""
    count = shape.numel()
    values = BLOCK.repeat(-(-count // len(BLOCK)))[:count].view(shape)
    return values / shape[1:].numel() ** 0.5 if len(shape) > 1 else 0.1 * values + 1


def random_weights(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: random_weight(weight.shape) for name, weight in module.state_dict().items() if weight.ndim > 0}


def write_checkpoint(path: Path) -> None:
    plain: Any = comfy.ops.disable_weight_init
    config = json.loads((Path(sys.modules["comfy"].__path__[0]) / "sd1_clip_config.json").read_text())
    with torch.device("meta"):
        parts = {
            "model.diffusion_model.": UNetModel(**UNET, dtype=torch.float16, device=torch.device("meta"), operations=plain),
            "cond_stage_model.transformer.": CLIPTextModel(config, torch.float16, "meta", plain),
            "first_stage_model.": AutoencoderKL(embed_dim=4, ddconfig=VAE),
        }
    save_file({name: weight for prefix, part in parts.items() for name, weight in random_weights(prefix, part).items()}, path)


@pytest.fixture(scope="module")
def checkpoint(server: Server) -> Iterator[None]:
    """In the server's own folder of checkpoints."""
    path = server.folder / "checkpoints" / NAME
    write_checkpoint(path)
    yield
    server.post("/free", {"unload_models": True, "free_memory": True})
    path.unlink()


def is_value(given: object) -> bool:
    """And not a link, nor missing."""
    return isinstance(given, (str, int))


def test_it_steers_a_checkpoint_of_sd15(server: Server, checkpoint: None) -> None:
    workflow = load(ROOT / "workflows" / "api" / "freecontrol_checkpoint.json")
    small = {"ckpt_name": NAME, "width": 64, "height": 64, "seed_images": 2, "steps": 2, "components": 8, "colourings": 2}
    for node in workflow.values():
        given = {**small, "image": "condition.png"}
        node["inputs"].update({name: value for name, value in given.items() if is_value(node["inputs"].get(name))})
    Image.radial_gradient("L").resize((64, 64)).convert("RGB").save(server.folder / "input" / "condition.png")
    outputs = server.run(workflow, 600)
    assert {node for node, output in outputs.items() if output.get("images")} == {"12", "13"}
