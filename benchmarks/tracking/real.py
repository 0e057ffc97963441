"""Cameras of a real clip from its pictures alone, against those of COLMAP.

    python run.py bench real FRAMES COLMAP [--every 2] [--width 192]

FRAMES is a folder of the clip's pictures, COLMAP that of its cameras.txt and images.txt, of a pinhole camera and of all the frames
(`pip install pycolmap`; colmap.github.io tells how). `ate` and `rpe_r` as in bench reconstruct; `lost`, frames that are named lost. With
the clip "cube" of Debian's package visp-images-data, 80 real frames that start and end at rest, every second one gives the figures of
the README. Lenses are left as they are, and the field of view is COLMAP's.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...core.camera_files import files as camera_files
from ...core.geometry import trajectory
from ...core.tracking.motion import nearness
from ...core.tracking.tracking import track

KINDS = (".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".webp")


def pictures_of(files: list[Path], width: int) -> torch.Tensor:
    """(F, H, W, 3)."""
    pictures = [Image.open(file).convert("RGB") for file in files]
    height = round(width * pictures[0].height / pictures[0].width)
    small = [np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS)) for picture in pictures]
    return torch.from_numpy(np.stack(small)).float() / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path)
    parser.add_argument("colmap", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--width", type=int, default=192)
    options = parser.parse_args()
    files = sorted(file for file in options.frames.iterdir() if file.suffix.lower() in KINDS)
    true = camera_files.load(options.colmap)
    if len(files) != len(true):
        parser.error(f"{options.frames} has {len(files)} pictures, {options.colmap} {len(true)} cameras: both must have all frames.")
    poses, pictures = true.poses[:: options.every], pictures_of(files[:: options.every], options.width)
    focal, started = float(true.focal[0]) / true.size[1], time.perf_counter()
    near, valid = nearness(pictures, focal)
    tracked = track(pictures, near, valid, focal, inverse=True, from_motion=True)
    seconds, path = time.perf_counter() - started, tracked.path((pictures.shape[1], pictures.shape[2]))
    figures = {
        "ate": trajectory.ate(path.positions, true.positions[:: options.every]), "rpe_r": trajectory.rpe(path.poses, poses)[1],
        "lost": len(tracked.lost), "frames": len(pictures), "seconds": seconds,
    }  # fmt: skip
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
