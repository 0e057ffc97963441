"""The rasteriser of splats: exactness, gradients, time beside the host's RenderSplat, memory. `python run.py bench splat`.

Times are CPU seconds of one thread, in pairs that are run in turn, so that other work on the machine does not count.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable

import torch
from comfy_api.latest import Types
from comfy_extras.nodes_gaussian_splat import RenderSplat

from ...core.splats.gaussians import Gaussians
from ...core.splats.rasteriser import render
from . import splat_reference as reference


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def native(scene: Gaussians, side: int, camera_info: dict) -> None:
    splat = Types.SPLAT(scene.positions[None], scene.scales[None], scene.rotations[None], scene.opacities[None, :, None], scene.sh[None])
    RenderSplat.execute(splat, side, side, 1, 1.0, 2.0, 0.0, 0.0, "#000000", "color", camera_info)


def speedup(count: int, side: int, pairs: int) -> float:
    """The best of each side's times: the host's over ours."""
    scene, camera = reference.cloud(count), reference.view((side, side))
    position = camera.position
    info = {
        "position": {"x": float(position[0]), "y": -float(position[1]), "z": -float(position[2])}, "target": {"x": 0, "y": 0, "z": 0},
        "fov": 35.0, "zoom": 1.0, "cameraType": "perspective",
    }  # fmt: skip
    ours = [seconds(lambda: render(scene, camera)) for _ in range(pairs + 1)]
    theirs = [seconds(lambda: native(scene, side, info)) for _ in range(pairs)]
    sys.stderr.write(f"{count} at {side}: ours {min(ours):.2f} s, the host's {min(theirs):.2f} s\n")
    return min(theirs) / min(ours)


def backward_ratio(count: int, side: int, runs: int) -> float:
    scene, camera = reference.cloud(count), reference.view((side, side))
    leaves = {name: getattr(scene, name).clone().requires_grad_() for name in ("positions", "scales", "rotations", "opacities", "sh")}

    def both() -> None:
        found = render(Gaussians(**leaves), camera)
        torch.autograd.grad(found.colour.square().mean(), list(leaves.values()))

    forward = min(seconds(lambda: render(scene, camera)) for _ in range(runs))
    whole = min(seconds(both) for _ in range(runs))
    sys.stderr.write(f"forward {forward:.2f} s, with backward {whole:.2f} s\n")
    return whole / forward


def measure(quick: bool) -> dict[str, float]:
    torch.set_num_threads(1)
    figures = {
        "max_error": reference.max_error(100 if quick else 400, 64 if quick else 96),
        "grad_error": reference.grad_error(20 if quick else 60),
        "backward_ratio": backward_ratio(20_000 if quick else 100_000, 256, 2 if quick else 5),
        "peak_gb": 0.0,
    }
    figures["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    figures["speedup_100k"] = speedup(100_000, 512, 1 if quick else 3)
    figures["speedup_1m"] = speedup(200_000 if quick else 1_000_000, 512, 1)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    figures = measure(parser.parse_args().quick)
    print(json.dumps({name: float(f"{value:.4g}") for name, value in figures.items()}))


if __name__ == "__main__":
    main()
