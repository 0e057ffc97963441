from . import guide, maps, train

NODES = [*guide.NODES, *maps.NODES, *train.NODES]
