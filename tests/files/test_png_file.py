"""Our PNG files are read by others, and what is none is recognised."""

import io

import numpy as np
import pytest

from headscope.files.png_file import png, size_of


@pytest.mark.parametrize("shape", [(5, 7), (3, 11, 3), (1, 1)])
def test_what_was_written_is_read_by_pillow(shape):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    read = np.asarray(image.open(io.BytesIO(png(pixels))))
    assert np.array_equal(read, pixels)
    assert size_of(png(pixels)) == shape[:2]


def test_what_is_no_png_has_no_size():
    assert size_of(b"GIF89a" + bytes(40)) is None
    assert size_of(png(np.zeros((2, 3), np.uint8))[:20]) is None
