"""ComfyUI entry point. Guarded, because pytest imports this file outside of the package."""

if __package__:
    from .nodes import comfy_entrypoint

    WEB_DIRECTORY = "./web"  # holds docs/<node id>.md, the help that the host shows beside a node

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
