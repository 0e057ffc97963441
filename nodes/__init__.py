"""Every node of the pack, for the host."""
from comfy_api.latest import ComfyExtension, io

from . import (
    camera_of_path,
    camera_paths,
    freecontrol,
    freecontrol_basis,
    freecontrol_from_image,
    freecontrol_views,
    playground,
    splat_cameras,
    splat_clip,
    splat_reconstruct,
    splat_render,
)

NODES: list[type[io.ComfyNode]] = [
    *playground.NODES,
    *freecontrol_from_image.NODES,
    *freecontrol_basis.NODES,
    *freecontrol.NODES,
    *freecontrol_views.NODES,
    *splat_reconstruct.NODES,
    *splat_cameras.NODES,
    *splat_render.NODES,
    *camera_paths.NODES,
    *camera_of_path.NODES,
    *splat_clip.NODES,
]


class FreeSteerExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> FreeSteerExtension:
    return FreeSteerExtension()
