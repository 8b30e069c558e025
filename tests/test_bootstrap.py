"""What runs before anything is installed: refusals in one line, and the lock without CUDA."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from course_lib import bootstrap

ROOT = Path(bootstrap.ROOT)
LOCK = (ROOT / "requirements.lock").read_text()


def test_the_lock_has_hashes_and_no_host() -> None:
    pins = re.findall(r"^[a-z0-9][\w.-]*==", LOCK, re.MULTILINE)
    assert len(pins) > 100
    for block in re.split(r"\n(?=[a-z0-9])", LOCK.strip()):
        assert "--hash=sha256:" in block, block
    assert "://" not in LOCK


def test_without_cuda_keeps_everything_else() -> None:
    torch, rest = bootstrap.without_cuda(LOCK)
    assert sorted(pin.split("==")[0] for pin in torch) == ["torch", "torchvision"]
    assert all(re.fullmatch(r"[a-z]+==[\w.]+( ;.*)?", pin) for pin in torch)
    names = set(re.findall(r"^([a-z0-9][\w.-]*)==", LOCK, re.MULTILINE))
    left = set(re.findall(r"^([a-z0-9][\w.-]*)==", rest, re.MULTILINE))
    dropped = names - left
    assert {"torch", "torchvision", "triton"} <= dropped
    assert all(
        name in ("torch", "torchvision") or name.startswith(bootstrap.CUDA_PREFIXES)
        for name in dropped
    )
    assert not any(name.startswith("nvidia") for name in left)
    assert {"numpy", "lightning-fabric", "jupyter-book"} <= left
    # Nothing of a dropped block is left behind.
    assert rest.count("--hash=") == sum(
        block.count("--hash=")
        for block in re.split(r"\n(?=[a-z0-9])", LOCK)
        if block.split("==")[0] in left
    )


def test_an_old_python_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    version = namedtuple("version", "major minor micro")
    monkeypatch.setattr(sys, "version_info", version(3, 9, 2))
    with pytest.raises(
        SystemExit, match=r"^error: this needs Python 3\.11 or newer, and .* is 3\.9"
    ):
        bootstrap.check_machine("")


def test_a_full_disk_is_told_before_anything_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage(10e9, 9e9, 1e9))
    with pytest.raises(
        SystemExit, match=r"needs about 9 GB and this disk has 1\.0 GB free.*TORCH=cpu"
    ):
        bootstrap.check_machine("")


def test_an_unknown_torch_is_told() -> None:
    with pytest.raises(SystemExit, match="TORCH=gpu is not known"):
        bootstrap.check_machine("gpu")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("error: failed to lookup address: dns error", "registry cannot be reached"),
        ("client error (Connect): invalid peer certificate", "UV_SYSTEM_CERTS=1"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("Hash mismatch for `torch==2`", "its hash differs"),
        ("something else", "see the lines above"),
    ],
)
def test_a_failed_step_names_its_cause(
    written: str, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    script = f"import sys; sys.stderr.write({written!r}); sys.exit(2)"
    with pytest.raises(SystemExit, match=f"^error: a trial failed: .*{told}"):
        bootstrap.run([sys.executable, "-c", script], "a trial")
    assert written in capfd.readouterr().err


def test_no_network_is_one_clear_line(tmp_path: Path) -> None:
    """The real client, pointed at a port where nobody listens."""
    environment = {
        "PATH": os.environ["PATH"],
        "UV_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "UV_HTTP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
    }
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import bootstrap;"
        "bootstrap.run([sys.executable, '-m', 'pip', 'download', '--no-deps', '-d', sys.argv[2],"
        " '--index-url', 'http://127.0.0.1:9/simple', '--retries', '0', 'six'], 'fetching six')"
    )
    base = Path(sys.base_prefix) / "bin" / "python3"
    run = subprocess.run(
        [str(base), "-c", code, str(ROOT / "course_lib"), str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert run.returncode == 1
    assert run.stderr.strip().splitlines()[-1].startswith("error: fetching six failed: ")
    assert not list(tmp_path.iterdir())
