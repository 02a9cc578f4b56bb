"""Our two colour maps, one for light and one for dark surroundings: no weight is paper, or night.

They are paths through OKLab, walked in equal steps: equal differences of weight look equally large, in print without
colour too, since the lightness only ever falls (light) or only ever rises (dark).

Source: Ottosson 2020, "A perceptual color space for image processing" (OKLab).
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

Theme = Literal["light", "dark"]

STEPS = 256

# Corners of the paths: lightness, chroma, hue in degrees.
CORNERS: dict[Theme, tuple[tuple[float, float, float], ...]] = {
    "light": (
        (0.985, 0.006, 215),
        (0.87, 0.070, 205),
        (0.70, 0.110, 222),
        (0.52, 0.135, 252),
        (0.38, 0.135, 274),
        (0.22, 0.085, 288),
    ),
    "dark": (
        (0.235, 0.018, 274),
        (0.36, 0.110, 278),
        (0.51, 0.140, 256),
        (0.67, 0.125, 225),
        (0.83, 0.110, 190),
        (0.97, 0.055, 125),
    ),
}

# OKLab to the cube roots of the cone responses, and their cubes to linear sRGB.
LAB_TO_ROOTS = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
CONES_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@cache
def table(theme: Theme) -> UInt8[np.ndarray, "256 3"]:
    """The colour map as 256 sRGB colours, from weight 0 to the largest.

    Example:
        >>> table("light")[0].min() > 240
        np.True_
    """
    return np.round(255 * srgb(path(theme))).astype(np.uint8)


def path(theme: Theme) -> Float[np.ndarray, "256 3"]:
    """The colours in OKLab, at equal distances along a smooth curve through the corners."""
    corners = np.array([(L, c * np.cos(np.radians(h)), c * np.sin(np.radians(h))) for L, c, h in CORNERS[theme]])
    fine = smooth(corners, 4096)
    walked = np.concatenate([[0.0], np.linalg.norm(np.diff(fine, axis=0), axis=1).cumsum()])
    at = np.linspace(0.0, walked[-1], STEPS)
    return np.stack([np.interp(at, walked, fine[:, axis]) for axis in range(3)], axis=1)


def smooth(corners: Float[np.ndarray, "n 3"], count: int) -> Float[np.ndarray, "count 3"]:
    """A Catmull-Rom curve through the corners."""
    ends = np.concatenate([[2 * corners[0] - corners[1]], corners, [2 * corners[-1] - corners[-2]]])
    at = np.linspace(0, len(corners) - 1, count)
    first = np.minimum(at.astype(int), len(corners) - 2)
    t = (at - first)[:, None]
    a, b, c, d = (ends[first + shift] for shift in range(4))
    curve: np.ndarray = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    return curve


def srgb(lab: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """OKLab to sRGB between 0 and 1; colours that a screen cannot show are cut off."""
    linear = np.clip((lab @ LAB_TO_ROOTS.T) ** 3 @ CONES_TO_RGB.T, 0.0, 1.0)
    bent: np.ndarray = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return bent
