"""What goes between the grader and the process that runs a student's code: JSON and plain arrays.

A frame is a length, a JSON object, and arrays in the safetensors format, which holds numbers and
nothing else: no pickle, no code. The side that trusts nobody limits a frame's size before it reads
it and checks every array after.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

_HEAD = struct.Struct("<II")  # bytes of JSON, bytes of arrays

#: The most a frame may weigh, either way.
LIMIT = 64 * 1024 * 1024
#: The most its JSON part may weigh: it holds names, numbers and source text.
JSON_LIMIT = 4 * 1024 * 1024
#: The most the names and shapes of its arrays may weigh: to read them costs far more than to write them.
NAMES_LIMIT = 16 * 1024


class WireError(ValueError):
    """A frame that is cut off, too large or not what it says it is."""


def send(
    channel: socket.socket, message: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write one frame to a connected stream socket.

    Raises ``WireError`` for a frame over the limits.
    """
    text = json.dumps(message).encode()
    blob = safetensors.numpy.save({name: _plain(array) for name, array in arrays.items()})
    if len(text) > JSON_LIMIT or len(text) + len(blob) > LIMIT:
        raise WireError(f"a frame of {len(text)} + {len(blob)} bytes: more than {LIMIT} in all")
    channel.sendall(_HEAD.pack(len(text), len(blob)) + text + blob)


def receive(
    channel: socket.socket, wait: Callable[[], None] = lambda: None, limit: int = LIMIT
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read one frame: a JSON object and arrays by name.

    ``wait`` is called before every read; what it raises ends the reading. A frame weighs ``limit``
    bytes at most. Raises ``WireError`` for anything that is not a frame of real numbers, ``EOFError``
    when the other side is gone before one ends, and ``TimeoutError`` by the socket's timeout.
    """
    size, weight = _HEAD.unpack(_exactly(channel, _HEAD.size, wait))
    if size > JSON_LIMIT or size + weight > limit:
        raise WireError(f"a frame of {size} + {weight} bytes: more than {limit} in all")
    text, blob = _exactly(channel, size, wait), bytes(_exactly(channel, weight, wait))
    if int.from_bytes(blob[:8], "little") > NAMES_LIMIT:
        raise WireError(f"the names of a frame's arrays: more than {NAMES_LIMIT} bytes")
    try:
        message = json.loads(text)
        arrays = safetensors.numpy.load(blob)
    except (ValueError, KeyError, RecursionError, safetensors.SafetensorError) as error:
        raise WireError(f"not a frame: {type(error).__name__}") from None
    if not isinstance(message, dict):
        raise WireError("not a frame: its JSON is no object")
    if any(array.dtype.kind not in "biuf" for array in arrays.values()):
        raise WireError("not a frame: its arrays are no real numbers")
    return message, arrays


def _plain(array: np.ndarray) -> np.ndarray:
    # safetensors stores the memory as it lies: a view would be stored in the wrong order.
    return np.ascontiguousarray(array).reshape(np.shape(array))


def _exactly(channel: socket.socket, count: int, wait: Callable[[], None]) -> bytearray:
    data = bytearray()
    while len(data) < count:
        wait()
        piece = channel.recv(min(count - len(data), 1 << 20))
        if not piece:
            raise EOFError("the other side is gone")
        data += piece
    return data
