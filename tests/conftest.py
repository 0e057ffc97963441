"""Loads the pack under a legal name, with the real host when there is one: then relative and `freesteer.` imports work."""

import importlib.util
import signal
import sys
from pathlib import Path

import torch

spec = importlib.util.spec_from_file_location("load_pack", Path(__file__).parents[1] / "tools" / "load_pack.py")
assert spec is not None and spec.loader is not None
loader = importlib.util.module_from_spec(spec)
spec.loader.exec_module(loader)

signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the fixtures' servers are stopped then too
torch.set_num_threads(2)
sys.modules.setdefault(loader.ROOT.name, loader.load_pack())  # pytest imports the root folder as a package of its own name
