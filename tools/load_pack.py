"""Loads the pack as the host does, but under the legal name `freesteer`, whatever its folder is called."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_HOST = ROOT / ".host" / "ComfyUI-0.30.0"


def host_path() -> Path | None:
    """The folder of ComfyUI: COMFYUI_PATH, or else the one that run.py fetched; None without either."""
    path = Path(os.environ.get("COMFYUI_PATH") or DEFAULT_HOST)
    return path.resolve() if (path / "main.py").is_file() else None


def prepare_host(path: Path, gpu: bool) -> None:
    """Makes the host's modules importable, on the CPU, or on a GPU if there is one. The host reads its options from argv at its first
    import."""
    hiding = (ROOT, ROOT / "tools", path)  # our nodes/ and tools/server.py would stand before the host's nodes.py and server.py
    sys.path[:] = [str(path), *(entry for entry in sys.path if Path(entry or ".").resolve() not in hiding)]
    import comfy.options

    argv = sys.argv
    sys.argv = [argv[0], *([] if gpu and importlib.import_module("torch").cuda.is_available() else ["--cpu"])]
    try:
        comfy.options.enable_args_parsing()
        import comfy.cli_args
    finally:
        sys.argv = argv


def load_pack(gpu: bool = False) -> ModuleType:
    """The pack as `freesteer`. Its modules are imported when asked for, so `freesteer.core` works without a host too."""
    if "freesteer" in sys.modules:
        return sys.modules["freesteer"]
    spec = importlib.util.spec_from_file_location("freesteer", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None
    sys.modules["freesteer"] = importlib.util.module_from_spec(spec)  # not executed: that would import every node
    host = host_path()
    if host is not None:
        prepare_host(host, gpu)
    return sys.modules["freesteer"]
