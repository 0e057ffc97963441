from . import guide, maps

NODES = [*guide.NODES, *maps.NODES]
