from . import patch, track

NODES = [*track.NODES, *patch.NODES]
