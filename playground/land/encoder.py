"""A small encoder of land, taught without labels: what a window of 128 x 128 shows, as a vector."""

import torch
from torch import Tensor, nn

WIDTH = 96  # numbers of a vector
CHANNELS = (32, 64, 128, 192)


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Encoder(nn.Module):
    """Pictures (B, 3, H, W) in 0..1 to vectors (B, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, CHANNELS[0], 4, stride=4)]
        for before, after in zip(CHANNELS, (*CHANNELS[1:], CHANNELS[-1]), strict=True):
            layers += [Block(before), nn.Conv2d(before, after, 2, stride=2)]
        self.layers = nn.Sequential(*layers, nn.GroupNorm(8, CHANNELS[-1]), nn.SiLU())
        self.out = nn.Linear(CHANNELS[-1], WIDTH)

    def forward(self, picture: Tensor) -> Tensor:
        return self.out(self.layers(2 * picture - 1).mean((2, 3)))


def vicreg(one: Tensor, other: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Of vectors (B, D) of two views: VICReg (https://arxiv.org/abs/2105.04906), equations 1 to 6, with its weights 25, 25 and 1."""

    def spread(z: Tensor) -> Tensor:
        return torch.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean()

    def shared(z: Tensor) -> Tensor:
        covariance = torch.cov(z.T)
        return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]

    apart = (one - other).square().mean()
    variance, covariance = spread(one) + spread(other), shared(one) + shared(other)
    return 25 * apart + 25 * variance + covariance, {"apart": apart, "variance": variance, "covariance": covariance}
