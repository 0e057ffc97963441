from . import reconstruct, render

NODES = [*reconstruct.NODES, *render.NODES]
