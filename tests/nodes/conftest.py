# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false
"""What the nodes are tested with: a tiny random model and what FreeControl makes of it, a small scene of splats and cameras."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.ldm.models.autoencoder
import comfy.sd
import folder_paths
import pytest
import torch
from comfy import sd1_clip
from comfy.model_patcher import ModelPatcher
from comfy_api import latest
from freesteer.core.geometry.cameras import CameraPath
from freesteer.nodes import NODES
from freesteer.playground import text
from freesteer.playground.image import models
from torch import Tensor


def _tiny_models():
    """tests/host/tiny.py; the folder of a test file is not importable from another."""
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).parents[1] / "host" / "tiny.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny"] = module
    spec.loader.exec_module(module)
    return module


tiny = _tiny_models()
CLASSES = {node.GET_SCHEMA().node_id: node for node in NODES}


def run(node_id: str, **inputs: Any) -> tuple:
    """The outputs of a node, as the host executes it: in inference mode, with the schema's defaults."""
    node = CLASSES[node_id]
    defaults = {i.id: i.default for i in node.GET_SCHEMA().inputs if getattr(i, "default", None) is not None}
    with torch.inference_mode():
        return node.execute(**{**defaults, **inputs}).result or ()


needs_splat = pytest.mark.skipif(not hasattr(getattr(latest, "Types", None), "SPLAT"), reason="ComfyUI has splats from 0.23 on")


def noise(*shape: int) -> Tensor:
    """0..1, the same every time."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape)))


def splat(count: int = 40, **changed: object) -> SimpleNamespace:
    """A grey cloud in the form of the host's SPLAT, which older hosts lack: one unit wide, 3 before a camera at the origin."""
    parts: dict[str, object] = {
        "positions": noise(1, count, 3) + torch.tensor([-0.5, -0.5, 2.5]), "scales": torch.full((1, count, 3), 0.05),
        "rotations": torch.tensor([1.0, 0, 0, 0]).expand(1, count, 4), "opacities": torch.full((1, count, 1), 0.8),
        "sh": torch.zeros(1, count, 1, 3), "counts": None,
    }  # fmt: skip
    return SimpleNamespace(**{**parts, **changed})


def path(frames: int = 3, **changed: Any) -> CameraPath:
    """From the origin along +x, looking along +z, with pictures of 48 x 36."""
    poses = torch.eye(4).repeat(frames, 1, 1)
    poses[:, 0, 3] = -0.1 * torch.arange(frames)
    parts = {"poses": poses, "focal": torch.tensor([40.0, 40.0]), "centre": torch.tensor([24.0, 18.0]), "size": (36, 48)}
    return CameraPath(**{**parts, **changed})


def host_camera(**changed: object) -> dict[str, object]:
    """A LOAD3D_CAMERA, 3 from its target."""
    zero = {"x": 0.0, "y": 0.0, "z": 0.0}
    return {"position": {**zero, "z": 3.0}, "target": zero, "quaternion": {**zero, "w": 1.0}, "fov": 40.0, "zoom": 1.0, **changed}


@dataclass(frozen=True)
class World:
    """What a user has on the graph."""

    model: ModelPatcher
    clip: comfy.sd.CLIP
    vae: comfy.sd.VAE
    positive: list
    negative: list
    latent: dict[str, Tensor]
    basis: Any
    structure: Any
    image: Tensor
    sample: Callable[..., Tensor]
    before: Tensor


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_state(module: torch.nn.Module) -> dict[str, Tensor]:
    tiny.fill(module)
    return {name: value.clone() for name, value in module.state_dict().items()}


def build_clip() -> comfy.sd.CLIP:
    options = {"max_length": models.LANGUAGE.max_tokens, "textmodel_json_config": models.LANGUAGE.config, "model_class": text.TextModel}
    weights = sd1_clip.SDClipModel(device="cpu", **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.build_clip(random_state(weights.transformer))


def build_vae() -> comfy.sd.VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.build_vae(random_state(comfy.ldm.models.autoencoder.AutoencoderKL(**models.autoencoder.CONFIG)))


@pytest.fixture(scope="package")
def world(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder_paths.set_temp_directory(str(tmp_path_factory.mktemp("temp")))
    built = tiny.build("FreeSteer playground", inference=True)
    clip, vae = build_clip(), build_vae()
    latent = {"samples": torch.zeros(1, 4, 24, 16)}
    spots = torch.rand(1, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(spots, (96, 64), mode="bilinear").movedim(1, -1).contiguous()
    basis, _ = run(
        "FreeSteerExtractBasis", model=built.model, clip=clip, latent=latent, prompts="a star\na ball",
        seed_images=3, steps=3, components=8,
    )  # fmt: skip
    (structure,) = run("FreeSteerStructure", model=built.model, basis=basis, vae=vae, image=image, positive=built.positive, levels=3)
    return World(
        built.model, clip, vae, built.positive, built.negative, latent, basis, structure, image, built.sample, built.sample()
    )  # fmt: skip


@pytest.fixture
def steer(world: World) -> Callable[..., ModelPatcher]:
    def node(**inputs: Any) -> ModelPatcher:
        return run("FreeSteerFreeControl", **{"model": world.model, "structure": world.structure, **inputs})[0]

    return node
