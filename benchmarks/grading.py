"""What grading costs, and whether a class of a thousand survives hostile submissions and dying workers.

``python -m benchmarks.grading`` grades the same submissions here and with nbgrader's batched autograde,
then a class of 1,000 with 50 hostile ones while workers and the grader itself are killed, then again
with nothing changed, then on a Dask cluster on this machine.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "grading"))
NAME = "fgsm"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def cpu() -> float:
    """Return the CPU seconds of all processes that have ended and been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def course(*arguments: str | Path) -> list[str]:
    """Return the command line of ``course``."""
    return [sys.executable, "-m", "course_lib.cli", *map(str, arguments)]


def hand_in(folder: Path, count: int, hostile: int) -> dict[str, float]:
    """Write a class's submissions; return the marks that the catalogue says they deserve."""
    import inline_grader
    from submissions import submission
    from test_hostile import BOMBS, CHEATS, answers

    checks = inline_grader.load(NAME, "checks").CHECKS
    worth = {check.name: check.points for check in checks}
    catalogue = inline_grader.load(NAME, "catalogue")
    reference = inline_grader.answers(NAME)
    honest = [(right.cells, sum(worth.values())) for right in catalogue.RIGHT]
    honest += [
        (wrong.cells, sum(worth.values()) - sum(worth[name] for name in wrong.lost))
        for wrong in catalogue.WRONG
    ]
    attacks = [answers(code) for code in CHEATS.values()]
    attacks += [
        {
            "fgsm": "def fgsm(model, x, y, eps):\n"
            + "\n".join("    " + line for line in code.split("\n"))
        }
        for code, _ in BOMBS.values()
    ]
    due: dict[str, float] = {}
    order = random.Random(0)
    places = set(order.sample(range(count), hostile))
    for number in range(count):
        student = f"s{number:04}"
        if number in places:
            data, due[student] = submission(NAME, order.choice(attacks)), 0.0
        else:
            cells, due[student] = honest[number % len(honest)]
            data = submission(NAME, {**reference, **cells})
        path = folder / student / NAME / f"{NAME}.ipynb"
        path.parent.mkdir(parents=True)
        # No two are the same file: a line of her own, as a class has.
        notebook = json.loads(data)
        notebook["cells"].append({"cell_type": "markdown", "metadata": {}, "source": student})
        path.write_text(json.dumps(notebook))
    return due


def stored(folder: Path) -> dict[str, bytes]:
    """Return the results of a course directory, as bytes, by student."""
    found = {}
    for path in (folder / "results").glob("*.json"):
        data = path.read_bytes()
        found[json.loads(data)["student"]] = data
    return found


def marks(results: dict[str, bytes]) -> dict[str, float]:
    return {student: json.loads(data)["points"] for student, data in results.items()}


def timed(command: list[str], where: Path) -> tuple[float, float, str]:
    """Run a command; return wall seconds, CPU seconds and what it printed."""
    began, before = time.perf_counter(), cpu()
    run = subprocess.run(command, cwd=where, env=ENVIRONMENT, capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stdout + run.stderr)
    return time.perf_counter() - began, cpu() - before, run.stdout


def beside_nbgrader(top: Path, ours: int = 100, theirs: int = 8) -> None:
    """Grade the same answers here and there, and print submissions per CPU second."""
    from course_lib.grading import gradebook

    folder = top / "beside"
    hand_in(folder / "submitted", ours, 0)
    wall, used, _ = timed(course("grade", folder / "submitted", "--course", folder / "ours"), ROOT)
    here = ours / used
    print(
        f"ours      {ours:5} submissions {wall:7.1f} s wall {used:7.1f} s CPU {here:7.2f} per CPU s"
    )
    desk = folder / "theirs"
    gradebook.prepare(desk, ROOT, [NAME])
    for student in sorted(os.listdir(folder / "submitted"))[:theirs]:
        shutil.copytree(folder / "submitted" / student, desk / "submitted" / student)
    command = [sys.executable, "-m", "nbgrader", "autograde", NAME, "--create"]
    wall, used, _ = timed(command, desk)
    there = theirs / used
    print(
        f"nbgrader  {theirs:5} submissions {wall:7.1f} s wall {used:7.1f} s CPU {there:7.2f} per CPU s"
        f"   ratio {here / there:.1f}"
    )


def kill_one(grader: subprocess.Popen[Any], whole: bool) -> bool:
    """Kill -9 a worker, or the grader; say whether there was one."""
    try:
        workers = [
            process
            for process in psutil.Process(grader.pid).children()
            if any("spawn_main" in part for part in process.cmdline())
        ]
        victim = psutil.Process(grader.pid) if whole else random.choice(workers)
        victim.send_signal(signal.SIGKILL)
    except (psutil.Error, IndexError):
        return False
    return True


def a_class(top: Path, count: int = 1000, hostile: int = 50, kills: int = 10) -> None:
    """Grade a class while its workers and its grader are killed; compare every mark with its due."""
    folder = top / "class"
    due = hand_in(folder / "submitted", count, hostile)
    command = course("grade", folder / "submitted", "--course", folder / "grading")
    began, killed = time.perf_counter(), Counter[str]()
    runs = 0
    while True:
        runs += 1
        grader = subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        while grader.poll() is None:
            time.sleep(0.5)
            graded = len(list((folder / "grading" / "results").glob("*.json")))
            if sum(killed.values()) < kills and graded > count * (sum(killed.values()) + 1) / (
                kills + 2
            ):
                whole = sum(killed.values()) % 3 == 2
                if kill_one(grader, whole):
                    killed["the grader" if whole else "a worker"] += 1
        if grader.returncode != -signal.SIGKILL:
            break
    wall = time.perf_counter() - began
    results = stored(folder / "grading")
    wrong = {name: (mark, due[name]) for name, mark in marks(results).items() if mark != due[name]}
    graded_twice = len(list((folder / "grading" / "results").glob("*.json"))) - len(results)
    told = ", ".join(f"{number} times {who}" for who, number in killed.items())
    print(f"a class   {count:5} submissions {wall:7.1f} s wall, {hostile} hostile; kill -9: {told}")
    print(
        f"          {len(results)} results, {len(wrong)} wrong marks {dict(list(wrong.items())[:5])}"
    )
    print(
        f"          graded twice: {graded_twice}; exit code {grader.returncode} after {runs} runs"
    )
    left = [one for one in psutil.process_iter(["cmdline"]) if _ours(one)]
    print(f"          processes left behind: {len(left)}")
    wall, used, said = timed(command, ROOT)
    print(
        f"again     {count:5} submissions {wall:7.2f} s wall {used:7.2f} s CPU: {said.splitlines()[0]}"
    )

    some = folder / "some"
    for student in sorted(due)[: count // 5]:
        shutil.copytree(folder / "submitted" / student, some / student)
    wall, used, _ = timed(
        course("grade", some, "--course", folder / "dask", "--dask", "local"), ROOT
    )
    same = stored(folder / "dask")
    differ = [name for name, data in same.items() if results[name] != data]
    print(
        f"Dask      {len(same):5} submissions {wall:7.1f} s wall: {len(differ)} results differ in a byte"
    )


def _ours(process: psutil.Process) -> bool:
    return any("course_lib.grading.zygote" in part for part in process.info["cmdline"] or [])


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as temporary:
        beside_nbgrader(Path(temporary))
        a_class(Path(temporary), int(sys.argv[1]) if len(sys.argv) > 1 else 1000)


if __name__ == "__main__":
    main()
