"""Consistency models, and what controls them (CCM, https://arxiv.org/abs/2312.06971)."""

from . import adapter, control, distil, strength

NODES = [*distil.NODES, *control.NODES, *adapter.NODES, *strength.NODES]
