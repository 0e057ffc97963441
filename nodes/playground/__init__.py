from . import clip, condition, load

NODES = [*load.NODES, *condition.NODES, *clip.NODES]
