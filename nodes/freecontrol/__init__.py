from . import basis, from_image, self_test, structure, views

NODES = [*from_image.NODES, *basis.NODES, *structure.NODES, *views.NODES, *self_test.NODES]
