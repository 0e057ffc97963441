"""Every node of the pack, for the host."""
from comfy_api.latest import ComfyExtension, io

from . import freecontrol, freecontrol_basis, freecontrol_from_image, freecontrol_views, playground

NODES: list[type[io.ComfyNode]] = [
    *playground.NODES,
    *freecontrol_from_image.NODES,
    *freecontrol_basis.NODES,
    *freecontrol.NODES,
    *freecontrol_views.NODES,
]


class FreeSteerExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> FreeSteerExtension:
    return FreeSteerExtension()
