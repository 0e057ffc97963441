from . import basis, from_image, structure, views

NODES = [*from_image.NODES, *basis.NODES, *structure.NODES, *views.NODES]
