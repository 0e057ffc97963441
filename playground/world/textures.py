"""The eight backgrounds of the drawn world: seamless 512 x 512 textures, made from seeded noise."""

import numpy as np
import torch
from torch import Tensor

BACKGROUNDS = ("grass", "sand", "water", "bricks", "night", "wood", "stone", "ice")
TEXTURE_SIZE = 512


def _noise(rng: np.random.Generator, wavelength: float | tuple[float, float]) -> np.ndarray:
    """Seamless Gaussian noise with unit variance; `wavelength` (down, across) in pixels is the finest detail."""
    down, across = wavelength if isinstance(wavelength, tuple) else (wavelength, wavelength)
    fy = np.fft.fftfreq(TEXTURE_SIZE)[:, None] * down
    fx = np.fft.rfftfreq(TEXTURE_SIZE)[None] * across
    spectrum = np.fft.rfft2(rng.standard_normal((TEXTURE_SIZE, TEXTURE_SIZE))) * np.exp(-2 * (fy**2 + fx**2))
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(TEXTURE_SIZE, TEXTURE_SIZE))
    return field / field.std()


def _tint(base: tuple[float, float, float], light: np.ndarray, hue: tuple[float, float, float] = (1, 1, 1)) -> np.ndarray:
    """(3, H, W) from a base colour and a brightness field, which moves the channels in proportion to `hue`."""
    return np.array(base)[:, None, None] + np.array(hue)[:, None, None] * light


def _grid() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE]
    return y.astype(float), x.astype(float)


def _grass(rng: np.random.Generator) -> np.ndarray:
    light = 0.05 * _noise(rng, 40) + 0.035 * _noise(rng, (14, 5))
    return _tint((0.35, 0.50, 0.17), light, (0.9, 1.1, 0.5))


def _sand(rng: np.random.Generator) -> np.ndarray:
    y, _ = _grid()
    ripple = np.sin(2 * np.pi * y / 21.333 + 2.2 * _noise(rng, 90))
    return _tint((0.84, 0.72, 0.50), 0.035 * ripple + 0.03 * _noise(rng, 50), (1, 0.95, 0.8))


def _water(rng: np.random.Generator) -> np.ndarray:
    y, _ = _grid()
    wave = np.sin(2 * np.pi * y / 16 + 2.6 * _noise(rng, 60))
    return _tint((0.13, 0.46, 0.62), 0.05 * wave + 0.04 * np.maximum(wave, 0) ** 3, (0.8, 1, 1))


def _bricks(rng: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    row = (y // 16).astype(int)
    shifted = (x + 16 * (row % 2)) % TEXTURE_SIZE
    column = (shifted // 32).astype(int)
    tone = rng.standard_normal((TEXTURE_SIZE // 16, TEXTURE_SIZE // 32))[row, column]
    mortar = (np.minimum(y % 16, shifted % 32) < 2.5)[None]
    brick = _tint((0.60, 0.29, 0.22), 0.045 * tone + 0.015 * _noise(rng, 12), (1, 0.7, 0.6))
    return np.where(mortar, _tint((0.74, 0.69, 0.63), 0.01 * _noise(rng, 12)), brick)


def _night(rng: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    sky = _tint((0.13, 0.11, 0.32), 0.035 * _noise(rng, 70), (1, 0.6, 1.2))
    for cy, cx, size in zip(rng.uniform(8, 504, 190), rng.uniform(8, 504, 190), rng.uniform(0.9, 1.7, 190), strict=True):
        sky += 0.75 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2))
    return sky


def _wood(rng: np.random.Generator) -> np.ndarray:
    y, _ = _grid()
    plank = (y // 32).astype(int)
    tone = rng.standard_normal(TEXTURE_SIZE // 32)[plank]
    grain = np.sin(2 * np.pi * y / 8 + 2.5 * _noise(rng, (60, 220)))
    light = 0.03 * tone + 0.03 * grain - 0.16 * (y % 32 < 1.8)
    return _tint((0.55, 0.37, 0.21), light, (1, 0.85, 0.6))


def _stone(rng: np.random.Generator) -> np.ndarray:
    return _tint((0.52, 0.52, 0.53), 0.05 * _noise(rng, 26) + 0.03 * _noise(rng, 80))


def _ice(rng: np.random.Generator) -> np.ndarray:
    crack = np.exp(-((_noise(rng, 70) / 0.07) ** 2))
    return _tint((0.68, 0.83, 0.90), 0.035 * _noise(rng, 60) + 0.09 * crack, (1, 0.7, 0.5))


def textures(seed: int = 0) -> Tensor:
    """(8, 3, 512, 512) in 0..1, in the order of BACKGROUNDS."""
    makers = (_grass, _sand, _water, _bricks, _night, _wood, _stone, _ice)
    stack = np.stack([make(np.random.default_rng((seed, i))) for i, make in enumerate(makers)])
    return torch.from_numpy(stack).float().clamp(0, 1)
