"""A camera path elsewhere: in another frame and unit, as a reconstruction may give it."""

from dataclasses import replace

from freesteer.core.geometry.cameras import CameraPath, rigid
from freesteer.core.geometry.trajectory import Similarity


def transformed(path: CameraPath, by: Similarity) -> CameraPath:
    """The path in the frame that `by` leads to."""
    rotations = path.poses[:, :3, :3].double() @ by.rotation.double().mT
    translations = by.scale * path.poses[:, :3, 3].double() - rotations @ by.translation.double()
    return replace(path, poses=rigid(rotations, translations).to(path.poses))
