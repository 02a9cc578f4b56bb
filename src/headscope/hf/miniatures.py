"""What a model saw or heard, small: a picture of its pixels, a spectrogram of its sound, and where the sound ends."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from headscope.files.png_file import png
from headscope.look.axis import Axis

# Batch items of which a miniature is kept; pixels along the longer side; bands, and columns for one frame.
MOST_ITEMS, SIDE = 8, 256
BANDS, MOST_COLUMNS = 64, 2048
# Samples of the longest sound that is copied: two minutes at 16 kHz.
MOST_SAMPLES = 120 * 16_000
# Means and deviations that image processors take off: from -1 to 1, ImageNet, CLIP.
NORMALS = (
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
)
# Samples of one window of a spectrogram of raw sound, and decibels under its loudest that are black.
WINDOW, DEPTH = 400, 80.0


def few(what: str, x: Tensor) -> Tensor | None:
    """A copy of the first items of an input, pixels no finer than a miniature needs: all that is kept while it runs.

    None for pixels that are no planes (films, patches in a row) and for sound that is too long.
    """
    some = x.detach()[:MOST_ITEMS]
    if what == "pixels":
        if x.ndim != 4 or not x.numel():
            return None
        step = max(1, math.ceil(max(some.shape[2:]) / SIDE))
        some = some[:, :3].float()
        return avg_pool2d(some, step) if step > 1 else some.clone()
    return some.to(torch.float32, copy=True) if x.shape[-1] <= MOST_SAMPLES else None


def of_axis(axis: Axis, content: Tensor) -> Axis:
    """An axis with the spectrogram that it was cut from; silence that fills a sound up is no content."""
    bands = spectrogram(content, axis.length)
    if bands is None:
        return axis
    end = sounding(bands, axis.length)
    special = tuple(mark or i >= end for i, mark in enumerate(axis.special))
    return replace(axis, special=special, thumbnail=as_png(bands))


def picture(pixels: Float[Tensor, "channels rows columns"], extent: tuple[float, float] = (1.0, 1.0)) -> bytes | None:
    """The pixels that a model was given as a PNG, with the usual normalisations undone; None where there are none.

    Args:
        extent: how much of the height and of the width the grid of patches covers: below 1 where the model leaves out
            the pixels at the lower and right edge; above 1, with grey, where its last patches reach beyond these.

    Example:
        >>> picture(torch.zeros(3, 4, 6))[:4]
        b'\\x89PNG'
    """
    if not pixels.numel() or pixels.shape[0] not in (1, 3) or not bool(pixels.isfinite().all()):
        return None
    shown = fitted(as_colours(pixels.cpu().double().numpy()), extent)
    bytes_ = np.round(255 * shown).clip(0, 255).astype(np.uint8)
    return png(bytes_[0] if len(bytes_) == 1 else np.ascontiguousarray(bytes_.transpose(1, 2, 0)))


def fitted(
    pixels: Float[np.ndarray, "channels rows columns"], extent: tuple[float, float]
) -> Float[np.ndarray, "channels down along"]:
    """The part of a picture that a grid covers, with grey where the grid reaches beyond it.

    Example:
        >>> fitted(np.zeros((1, 10, 10)), (0.8, 1.2)).shape
        (1, 8, 12)
    """
    down, along = (max(1, round(share * length)) for share, length in zip(extent, pixels.shape[1:], strict=True))
    kept = pixels[:, :down, :along]
    beyond = ((0, 0), (0, down - kept.shape[1]), (0, along - kept.shape[2]))
    return np.pad(kept, beyond, constant_values=0.5)


def as_colours(pixels: Float[np.ndarray, "channels rows columns"]) -> Float[np.ndarray, "channels rows columns"]:
    """Numbers from 0 to 1: as they are, by the normalisation that they may come from, or least to most."""
    if pixels.min() >= 0 and pixels.max() <= 1:
        return pixels
    undone = [
        pixels * np.array(deviation)[: len(pixels), None, None] + np.array(mean)[: len(pixels), None, None]
        for mean, deviation in NORMALS
    ]
    # Several may fit; the one that takes a photo to its ends is right.
    fitting = [each for each in undone if each.min() > -0.01 and each.max() < 1.01]
    if fitting:
        return max(fitting, key=np.ptp)
    least, most = pixels.min(), pixels.max()
    found: np.ndarray = (pixels - least) / max(most - least, 1e-12)
    return found


def spectrogram(sound: Tensor, frames: int) -> Float[np.ndarray, "bands columns"] | None:
    """The loudness of bands of pitch, low ones first, in `frames` columns or a multiple: from 0, the softest, to 1.

    Args:
        sound: `(samples,)`, or a spectrogram `(filters, columns)` or `(columns, filters)` as models are given it.

    Example:
        >>> spectrogram(torch.sin(torch.arange(3200.0)), 10).shape
        (64, 10)
    """
    sound = sound.cpu().float()
    if not frames or not sound.numel() or not bool(sound.isfinite().all()):
        return None
    if sound.ndim == 1:
        bands = of_samples(sound, frames)
    else:
        bands = sound if sound.shape[1] >= sound.shape[0] else sound.T
        times = min(bands.shape[1] // frames, MOST_COLUMNS // frames) or 1
        bands = adaptive_avg_pool2d(bands[None], (min(BANDS, bands.shape[0]), frames * times))[0]
    least, most = float(bands.min()), float(bands.max())
    return np.asarray(((bands - least) / max(most - least, 1e-12)).numpy())


def of_samples(sound: Float[Tensor, " samples"], frames: int) -> Float[Tensor, "bands frames"]:
    """Decibels of mel bands, one column for each frame.

    Source: O'Shaughnessy 1987, the mel scale `2595 log10(1 + f / 700)`.
    """
    hop = max(1, len(sound) // frames)
    padded = torch.nn.functional.pad(sound, (WINDOW // 2, WINDOW // 2 + hop))
    pieces = padded.unfold(0, WINDOW, hop)[:frames] * torch.hann_window(WINDOW)
    power = torch.fft.rfft(pieces).abs().square()
    nyquist = 8000.0
    mels = torch.linspace(0.0, 2595 * math.log10(1 + nyquist / 700), BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    pitch = torch.linspace(0.0, nyquist, power.shape[1])[:, None]
    rising = (pitch - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - pitch) / (edges[2:] - edges[1:-1])
    level = 10 * torch.log10(power @ torch.minimum(rising, falling).clamp_min(0.0) + 1e-10)
    level = torch.maximum(level, level.max() - DEPTH).T
    return torch.nn.functional.pad(level, (0, frames - level.shape[1]), value=float(level.min()))


def as_png(bands: Float[np.ndarray, "bands columns"]) -> bytes:
    """A spectrogram as a grey PNG, high pitches above."""
    grey: UInt8[np.ndarray, "bands columns"] = np.round(255 * bands[::-1]).astype(np.uint8)
    return png(np.ascontiguousarray(grey))


def sounding(bands: Float[np.ndarray, "bands columns"], frames: int) -> int:
    """How many frames there are until only the silence follows that fills a sound up to a fixed length.

    All frames, unless more than a twentieth of them at the end are one and the same column of least loudness.

    Example:
        >>> bands = np.zeros((4, 100)); bands[:, :30] = np.random.default_rng(0).random((4, 30))
        >>> sounding(bands, 100)
        30
    """
    silent = (bands <= bands.min() + 1e-6).all(0)
    loud = np.flatnonzero(~silent)
    if not len(loud):
        return frames
    last = math.ceil((int(loud[-1]) + 1) * frames / bands.shape[1])
    return last if frames - last > frames / 20 else frames
