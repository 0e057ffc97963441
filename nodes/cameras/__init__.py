from . import of_path, paths

NODES = [*paths.NODES, *of_path.NODES]
