"""Every node of the pack, for the host. A folder for each system; each ends in NODES."""

from comfy_api.latest import ComfyExtension, io

from . import cameras, composition, consistency, freecontrol, freeinit, large_image, peekaboo, playground, splats, tracking

NODES: list[type[io.ComfyNode]] = [
    *playground.NODES,
    *freecontrol.NODES,
    *freeinit.NODES,
    *peekaboo.NODES,
    *composition.NODES,
    *consistency.NODES,
    *large_image.NODES,
    *splats.NODES,
    *tracking.NODES,
    *cameras.NODES,
]


class FreeSteerExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> FreeSteerExtension:
    return FreeSteerExtension()
