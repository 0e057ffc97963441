from . import clip, condition, empty, load

NODES = [*load.NODES, *empty.NODES, *condition.NODES, *clip.NODES]
