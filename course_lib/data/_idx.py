"""The idx format, in which MNIST is published: an array of bytes or of 16-bit integers in a file.

Two zero bytes, the type (8 for uint8, 11 for int16), the number of dimensions, each dimension as a
big-endian int32, then the values, big-endian.

Chapter: book/back/data.md
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES: dict[int, np.dtype[np.uint8] | np.dtype[np.int16]] = {
    0x08: np.dtype(np.uint8),
    0x0B: np.dtype(">i2"),
}


def read_idx(path: Path) -> NDArray[Any]:
    """Read an idx file as uint8 or int16; ``ValueError`` when it is not one, or not all of one."""
    raw = path.read_bytes()
    if len(raw) < 4 or raw[:2] != b"\x00\x00" or raw[2] not in _TYPES:
        raise ValueError(f"{path.name}: not an idx file of bytes or int16: it starts {raw[:4]!r}")
    dtype, start = _TYPES[raw[2]], 4 + 4 * raw[3]
    shape = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4)]
    if len(raw) != start + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{path.name}: {len(raw)} bytes are not what shape {shape} needs")
    values: NDArray[Any] = np.frombuffer(raw, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def to_idx(values: NDArray[np.int16]) -> bytes:
    """Return the idx file of an int16 array."""
    shape = b"".join(n.to_bytes(4, "big") for n in values.shape)
    return bytes([0, 0, 0x0B, values.ndim]) + shape + values.astype(">i2").tobytes()
