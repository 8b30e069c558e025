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
    channel: socket.socket, wait: Callable[[], None] = lambda: None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read one frame: a JSON object and arrays by name.

    ``wait`` is called before every read; what it raises ends the reading. Raises ``WireError`` for
    anything that is not a frame, ``EOFError`` when the other side is gone before one ends, and
    ``TimeoutError`` by the socket's timeout.
    """
    size, weight = _HEAD.unpack(_exactly(channel, _HEAD.size, wait))
    if size > JSON_LIMIT or size + weight > LIMIT:
        raise WireError(f"a frame of {size} + {weight} bytes: more than {LIMIT} in all")
    try:
        message = json.loads(_exactly(channel, size, wait))
        arrays = safetensors.numpy.load(bytes(_exactly(channel, weight, wait)))
    except (ValueError, KeyError, RecursionError, safetensors.SafetensorError) as error:
        raise WireError(f"not a frame: {type(error).__name__}") from None
    if not isinstance(message, dict):
        raise WireError("not a frame: its JSON is no object")
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
