"""Consistency models, and what controls them (CCM, https://arxiv.org/abs/2312.06971)."""

from . import distil

NODES = [*distil.NODES]
