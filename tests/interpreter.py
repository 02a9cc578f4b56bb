"""Triton's interpreter, switched on, and able to multiply bfloat16: import this before anything of Triton.

The interpreter (3.9 and before) keeps bfloat16 as its bits in uint16, and multiplies matrices of these as integers.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

_dot = interpreter.InterpreterBuilder.create_dot


def _wide(handle):
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    numbers = interpreter._convert_float(handle.data, tl.bfloat16, tl.float32, None).view(np.float32)
    return interpreter.TensorHandle(numbers, tl.float32)


def create_dot(self, a, b, d, *settings):
    """The product, with bfloat16 as the numbers that its bits mean."""
    return _dot(self, _wide(a), _wide(b), d, *settings)


interpreter.InterpreterBuilder.create_dot = create_dot
