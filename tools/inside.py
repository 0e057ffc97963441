"""python tools/inside.py benchmarks.NAME [arguments]: runs one module of the pack as a script, with the host importable."""

import runpy
import sys

from load_pack import load_pack

if __name__ == "__main__":
    name = sys.argv.pop(1)
    load_pack(gpu=name == "benchmarks.host.gpu")
    runpy.run_module(f"freesteer.{name}", run_name="__main__", alter_sys=True)
