from . import grids, guidance

NODES = [*grids.NODES, *guidance.NODES]
