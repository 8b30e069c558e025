"""One training script, unchanged, as one process and as two under ``fabric run``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tests" / "scripts" / "ddp_gan.py"
TIMEOUT = 400  # seconds; nearly all of what it takes is three imports of torch


def environment() -> dict[str, str]:
    # Nothing that another launcher may have left behind, and only this machine's own network.
    stale = ("LT_", "MASTER_", "TORCHELASTIC_", "RANK", "LOCAL_", "WORLD_", "NODE_", "GROUP_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(stale)}
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: list[str]) -> None:
    """Run ``command`` in a process group of its own, which is gone when this returns."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.terminate()  # on this the launcher ends its processes, which left its group
            output, _ = process.communicate(timeout=10)
        finally:
            with suppress(ProcessLookupError):  # all have ended by themselves
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output[-4000:]


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What each process of the plain run and of the run on two processes ended with."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    run([sys.executable, str(SCRIPT), str(one)])
    launcher = [sys.executable, "-m", "lightning_fabric.cli"]  # what `fabric run` calls
    settings = ["--accelerator", "cpu", "--devices", "2", "--strategy", "ddp"]
    settings += ["--main-address", "127.0.0.1", "--main-port", str(free_port())]
    run([*launcher, *settings, str(SCRIPT), str(two)])
    return {
        "one": [load(one / "rank0.pt")],
        "two": [load(two / "rank0.pt"), load(two / "rank1.pt")],
    }


def test_it_ran_on_as_many_processes_as_asked(runs):
    assert [run["processes"] for run in runs["one"]] == [1]
    assert [run["processes"] for run in runs["two"]] == [2, 2]


def test_both_processes_end_with_the_same_weights(runs):
    first, second = runs["two"]
    assert torch.equal(first["first"], second["first"])
    assert torch.equal(first["last"], second["last"])
    assert not torch.equal(first["first"], first["last"])


def test_two_processes_train_as_one_does_on_the_same_global_batch(runs):
    for moment, tolerance in (("first", 1e-6), ("last", 1e-5)):
        assert torch.allclose(
            runs["two"][0][moment], runs["one"][0][moment], rtol=1e-4, atol=tolerance
        )
