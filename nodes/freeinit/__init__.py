from . import noise, sampling

NODES = [*sampling.NODES, *noise.NODES]
