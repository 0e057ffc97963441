from . import estimate

NODES = [*estimate.NODES]
