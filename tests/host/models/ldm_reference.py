"""A latent diffusion UNet written out from its layout, in plain functions: names and shapes of its weights, and what it predicts."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """mult: channels of each level, over `channels`. seen: levels with attention. blocks: residual ones of a level."""

    channels: int = 192
    mult: tuple[int, ...] = (1, 2, 3, 5)
    seen: tuple[int, ...] = (1, 2, 3)
    blocks: int = 2
    context: int = 512
    latent: int = 3

    def downward(self) -> Iterator[tuple[str, str, int, int, bool]]:
        """(name, kind, channels before, after, attention) of the blocks after the first."""
        had, number = self.channels, 1
        for level, times in enumerate(self.mult):
            for _ in range(self.blocks):
                yield f"input_blocks.{number}", "res", had, times * self.channels, level in self.seen
                had, number = times * self.channels, number + 1
            if level < len(self.mult) - 1:
                yield f"input_blocks.{number}", "down", had, had, False
                number += 1

    def upward(self) -> Iterator[tuple[str, int, int, bool, bool]]:
        """(name, channels before, after, attention, whether it ends in an upsampling)."""
        kept = [self.channels, *(after for *_, after, _ in self.downward())]
        had, number = kept[-1], 0
        for level, times in reversed(list(enumerate(self.mult))):
            for i in range(self.blocks + 1):
                ends = level > 0 and i == self.blocks
                yield f"output_blocks.{number}", had + kept.pop(), times * self.channels, level in self.seen, ends
                had, number = times * self.channels, number + 1


def linear(name: str, before: int, after: int, *kernel: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (after, before, *kernel), **({f"{name}.bias": (after,)} if bias else {})}


def norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def residual(name: str, before: int, after: int, time: int) -> Shapes:
    skip = linear(f"{name}.skip_connection", before, after, 1, 1) if before != after else {}
    return {
        **norm(f"{name}.in_layers.0", before), **linear(f"{name}.in_layers.2", before, after, 3, 3),
        **linear(f"{name}.emb_layers.1", time, after), **norm(f"{name}.out_layers.0", after),
        **linear(f"{name}.out_layers.3", after, after, 3, 3), **skip,
    }  # fmt: skip


def transformer(name: str, channels: int, context: int) -> Shapes:
    block = f"{name}.transformer_blocks.0"
    shapes = {**norm(f"{name}.norm", channels)}
    for part in ("proj_in", "proj_out"):
        shapes |= linear(f"{name}.{part}", channels, channels, 1, 1)
    for part, other in (("attn1", channels), ("attn2", context)):
        shapes |= linear(f"{block}.{part}.to_q", channels, channels, bias=False) | linear(f"{block}.{part}.to_out.0", channels, channels)
        for kind in ("to_k", "to_v"):
            shapes |= linear(f"{block}.{part}.{kind}", other, channels, bias=False)
    for i in (1, 2, 3):
        shapes |= norm(f"{block}.norm{i}", channels)
    return shapes | linear(f"{block}.ff.net.0.proj", channels, 8 * channels) | linear(f"{block}.ff.net.2", 4 * channels, channels)


def shapes(layout: Layout) -> Shapes:
    time, found = 4 * layout.channels, linear("input_blocks.0.0", layout.latent, layout.channels, 3, 3)
    found |= linear("time_embed.0", layout.channels, time) | linear("time_embed.2", time, time)
    last = layout.mult[-1] * layout.channels
    for name, kind, before, after, seen in layout.downward():
        found |= residual(f"{name}.0", before, after, time) if kind == "res" else linear(f"{name}.0.op", before, after, 3, 3)
        found |= transformer(f"{name}.1", after, layout.context) if seen else {}
    found |= residual("middle_block.0", last, last, time) | residual("middle_block.2", last, last, time)
    found |= transformer("middle_block.1", last, layout.context)
    for name, before, after, seen, ends in layout.upward():
        found |= residual(f"{name}.0", before, after, time) | (transformer(f"{name}.1", after, layout.context) if seen else {})
        found |= linear(f"{name}.{1 + seen}.conv", after, after, 3, 3) if ends else {}
    return found | norm("out.0", layout.channels) | linear("out.2", layout.channels, layout.latent, 3, 3)


def predict(state: State, layout: Layout, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
    def dense(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def conv(name: str, x: Tensor, **how: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)

    def normed(name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
        return F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def layered(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def attended(name: str, x: Tensor, to: Tensor) -> Tensor:
        q, k, v = dense(f"{name}.to_q", x), dense(f"{name}.to_k", to), dense(f"{name}.to_v", to)
        return dense(f"{name}.to_out.0", torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ v)

    def res(name: str, x: Tensor) -> Tensor:
        h = conv(f"{name}.in_layers.2", F.silu(normed(f"{name}.in_layers.0", x)), padding=1)
        h = h + dense(f"{name}.emb_layers.1", F.silu(time))[..., None, None]
        h = conv(f"{name}.out_layers.3", F.silu(normed(f"{name}.out_layers.0", h)), padding=1)
        return h + (conv(f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in state else x)

    def transformed(name: str, x: Tensor) -> Tensor:
        block, (height, width) = f"{name}.transformer_blocks.0", x.shape[-2:]
        h = conv(f"{name}.proj_in", normed(f"{name}.norm", x, 1e-6)).flatten(2).mT
        own = layered(f"{block}.norm1", h)
        h = h + attended(f"{block}.attn1", own, own)
        h = h + attended(f"{block}.attn2", layered(f"{block}.norm2", h), context)
        value, gate = dense(f"{block}.ff.net.0.proj", layered(f"{block}.norm3", h)).chunk(2, -1)
        h = h + dense(f"{block}.ff.net.2", value * F.gelu(gate))
        return x + conv(f"{name}.proj_out", h.mT.unflatten(2, (height, width)))

    half = layout.channels // 2
    angles = t[:, None] * torch.exp(-math.log(10_000) * torch.arange(half) / half).to(x)
    time = dense("time_embed.2", F.silu(dense("time_embed.0", torch.cat([angles.cos(), angles.sin()], 1))))
    h = conv("input_blocks.0.0", x, padding=1)
    kept = [h]
    for name, kind, _, _, seen in layout.downward():
        h = res(f"{name}.0", h) if kind == "res" else conv(f"{name}.0.op", h, stride=2, padding=1)
        h = transformed(f"{name}.1", h) if seen else h
        kept.append(h)
    h = res("middle_block.2", transformed("middle_block.1", res("middle_block.0", h)))
    for name, _, _, seen, ends in layout.upward():
        h = res(f"{name}.0", torch.cat([h, kept.pop()], 1))
        h = transformed(f"{name}.1", h) if seen else h
        h = conv(f"{name}.{1 + seen}.conv", F.interpolate(h, scale_factor=2), padding=1) if ends else h
    return conv("out.2", F.silu(normed("out.0", h)), padding=1)
