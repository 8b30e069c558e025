"""A class is graded to the end, whoever dies on the way, and the same wherever it runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import inline_grader
import psutil
import pytest
from submissions import ROOT, bundle, submission

from course_lib.grading import intake, job, results, run

pytestmark = pytest.mark.alone


def course(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "course_lib.cli", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        **options,
    )


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve submissions: right, empty, one that never ends, one that is no notebook, one a link."""
    folder = tmp_path_factory.mktemp("class") / "submitted"
    right = inline_grader.answers("fgsm")
    wrong = {**right, "bim": "def bim(model, x, y, eps, alpha, steps):\n    return x"}
    bodies = {f"s{number}": submission("fgsm", right) for number in range(6)}
    bodies |= {"t0": submission("fgsm", wrong), "t1": submission("fgsm", {})}
    bodies["t2"] = submission("fgsm", {"fgsm": "while True: pass"})
    bodies["t3"] = submission("fgsm", {"fgsm": "import os; os._exit(0)"})
    bodies["t4"] = b"not a notebook"
    for student, data in bodies.items():
        path = folder / student / "fgsm" / "fgsm.ipynb"
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    (folder / "t5" / "fgsm").mkdir(parents=True)
    (folder / "t5" / "fgsm" / "fgsm.ipynb").symlink_to(folder / "s0" / "fgsm" / "fgsm.ipynb")
    return folder


@pytest.fixture(scope="module")
def graded(submitted: Path) -> Path:
    desk = submitted.parent / "grading"
    run = course("grade", submitted, "--course", desk, "--timeout", "1.5", "--workers", "2")
    assert run.returncode == 0, run.stderr
    return desk


def stored(desk: Path) -> dict[str, bytes]:
    return {
        json.loads(path.read_bytes())["student"]: path.read_bytes()
        for path in (desk / "results").glob("*.json")
    }


def test_everybody_gets_what_is_due(graded: Path) -> None:
    found = {student: json.loads(data) for student, data in stored(graded).items()}
    assert [found[f"s{number}"]["points"] for number in range(6)] == [20] * 6
    statuses = {student: one["status"] for student, one in found.items()}
    assert statuses["t0"] == "graded" and 0 < found["t0"]["points"] < 20
    assert statuses["t2"] == "timeout" and statuses["t3"] == "crashed"
    assert statuses["t4"] == "rejected" and statuses["t5"] == "rejected"
    assert sum(one["points"] for name, one in found.items() if name in ("t1", "t4", "t5")) == 0


def test_a_second_run_does_nothing(graded: Path, submitted: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in graded.rglob("*") if path.is_file()}
    run = course("grade", submitted, "--course", graded, "--timeout", "1.5")
    assert "12 submissions, 0 of them new" in run.stdout
    after = {path: path.stat().st_mtime_ns for path in graded.rglob("*") if path.is_file()}
    ignored = {path for path in after if path.name in (".grading.lock",)}
    assert {k: v for k, v in after.items() if k not in ignored} == {
        k: v for k, v in before.items() if k not in ignored
    }


def test_a_cluster_gives_the_same_bytes(graded: Path, submitted: Path) -> None:
    desk = submitted.parent / "dask"
    run = course("grade", submitted, "--course", desk, "--timeout", "1.5", "--dask", "local")
    assert run.returncode == 0, run.stderr
    assert stored(desk) == stored(graded)


def test_killed_workers_and_a_killed_grader_lose_nothing(graded: Path, submitted: Path) -> None:
    desk = submitted.parent / "killed"
    command = [
        sys.executable,
        "-m",
        "course_lib.cli",
        "grade",
        str(submitted),
        "--course",
        str(desk),
    ]
    command += ["--timeout", "1.5", "--workers", "2"]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def until(count: int, grader: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + 120
        while len(list(desk.glob("results/*.json"))) < count and grader.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.02)

    grader = start()
    until(1, grader)
    for process in psutil.Process(grader.pid).children():
        if any("spawn_main" in part for part in process.cmdline()):
            process.kill()
    until(3, grader)
    began = {one.pid for one in psutil.Process(grader.pid).children(recursive=True)}
    os.kill(grader.pid, signal.SIGKILL)
    grader.wait()
    end = time.monotonic() + 20
    while any(psutil.pid_exists(pid) and _alive(pid) for pid in began):
        assert time.monotonic() < end, "the grader's processes outlive it"
        time.sleep(0.05)
    early = stored(desk)
    assert start().wait(240) == 0
    assert stored(desk) == stored(graded)
    assert len(list(desk.glob("results/*"))) == 12
    assert all(stored(desk)[student] == data for student, data in early.items())
    events = [fact for fact in results.Store(desk).events() if fact["event"] == "graded"]
    assert len(events) == len({fact["key"] for fact in events}) == 12


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class Busy:
    """Workers that note who was with them together; some come back without having had their time."""

    def __init__(self, starved: set[str], workers: int = 2) -> None:
        self.workers, self.starved = workers, starved
        self.together: list[list[str]] = []
        self._here: dict[Future[Any], dict[str, Any]] = {}

    def submit(
        self, _: object, assignment: job.Assignment, student: str, *more: Any
    ) -> Future[Any]:
        future: Future[Any] = Future()
        self._here[future] = {"key": job.key(assignment, student, *more), "student": student}
        here = [result["student"] for result in self._here.values()]
        self._here[future]["points"] = float(len(here) == 1)
        self.together.append(here)
        return future

    def wait(self, waiting: Iterable[Future[Any]], **_: Any) -> tuple[set[Future[Any]], set[Any]]:
        """End the one that came first."""
        future, result = next(iter(self._here.items()))
        del self._here[future]
        future.set_result((result, 0.1, result["student"] in self.starved))
        return {future}, set(waiting) - {future}

    def mend(self) -> None: ...

    def grade(self, desk: Path, students: Sequence[str]) -> dict[str, float]:
        """Return the points that each student has in the end."""
        found = iter([intake.Submission(one, "fgsm", b"", None, "") for one in students])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "wait", self.wait)
            told = list(run.grade(results.Store(desk), {"fgsm": bundle("fgsm")}, found, self))  # type: ignore[arg-type]
        assert sorted(one.student for one in told) == sorted(students)
        points = {student: json.loads(data)["points"] for student, data in stored(desk).items()}
        assert points == {one.student: one.result["points"] for one in told if one.result}
        return points


def test_who_was_kept_from_computing_counts_only_alone(tmp_path: Path) -> None:
    students = [f"s{number:02}" for number in range(20)]
    slow = set(students[1:]) - {"s04", "s11"}
    workers = Busy(slow)
    points = workers.grade(tmp_path, students)
    assert all(points[student] == 1 for student in slow) and sum(points.values()) < len(students)
    assert len(workers.together) == len(students) + len(slow)  # once more each, and not oftener


def test_one_worker_has_nothing_to_repeat(tmp_path: Path) -> None:
    workers = Busy({"ada", "bob"}, workers=1)
    workers.grade(tmp_path, ["ada", "bob", "cyd"])
    assert len(workers.together) == 3


def test_two_graders_do_not_share_a_desk(tmp_path: Path) -> None:
    from course_lib.grading import course as desk

    with (
        desk.alone(tmp_path),
        pytest.raises(ValueError, match="another grader is at work"),
        desk.alone(tmp_path),
    ):
        pass


def test_where_namespaces_are_refused_nothing_is_graded(submitted: Path, tmp_path: Path) -> None:
    """Under a filter that refuses unshare, as a locked-down machine does, ``course grade`` refuses."""
    code = (
        "import pyseccomp, errno, os, sys; f = pyseccomp.SyscallFilter(pyseccomp.ALLOW);"
        "f.add_rule(pyseccomp.ERRNO(errno.EPERM), 'unshare'); f.load();"
        "os.execv(sys.executable, [sys.executable, '-m', 'course_lib.cli', *sys.argv[1:]])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, "grade", str(submitted), "--course", str(tmp_path / "desk")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 1
    assert "no sandbox here, so nothing is graded" in run.stderr and "user namespaces" in run.stderr
    assert "Traceback" not in run.stderr
    assert not list((tmp_path / "desk").glob("results/*.json"))


def test_what_arrives_is_graded(submitted: Path, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    shutil.copytree(submitted / "s0", inbox / "s0")
    command = [
        sys.executable,
        "-m",
        "course_lib.cli",
        "grade",
        str(inbox),
        "--watch",
        "--every",
        "0.2",
    ]
    grader = subprocess.Popen(
        [*command, "--course", str(tmp_path / "desk"), "--workers", "1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert grader.stdout is not None
        assert grader.stdout.readline() == "fgsm s0: 20 of 20 (graded)\n"
        shutil.copytree(submitted / "t0", inbox / "t0")
        assert grader.stdout.readline().startswith("fgsm t0: ")
    finally:
        grader.send_signal(signal.SIGINT)
        assert grader.wait(60) in (1, 130)


def test_a_log_that_was_cut_off_still_counts(tmp_path: Path) -> None:
    store = results.Store(tmp_path)
    store.log("graded", assignment="a", student="b", key="1")
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"event": "graded", "assi')
    store.log("graded", assignment="a", student="b", key="2")
    assert [fact["key"] for fact in store.events()] == ["1", "2"]
    assert store.current()["a", "b"]["key"] == "2"


def test_a_result_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = results.Store(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            store.put("k", b"{}")
    assert not list((tmp_path / "results").iterdir())
    store.put("k", b"{}")
    assert results.Store(tmp_path).get("k") == {}
