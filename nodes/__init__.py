"""Every node of the pack, for the host."""
from comfy_api.latest import ComfyExtension, io

NODES: list[type[io.ComfyNode]] = []


class FreeSteerExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> FreeSteerExtension:
    return FreeSteerExtension()
