from . import grids, guidance, published

NODES = [*grids.NODES, *guidance.NODES, *published.NODES]
