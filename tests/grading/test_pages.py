"""What the teacher's page says a command prints is what it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import inline_grader
from submissions import ROOT, submission

WRONG_BOX = """\
def bim(model, x, y, eps, alpha, steps):
    x_adv = x
    for _ in range(steps):
        x_last = x_adv
        x_adv = fgsm(model, x_last, y, alpha)
        x_adv = torch.clamp(x_adv, x_last - eps, x_last + eps).clamp(0, 1)
    return x_adv
"""
ENDLESS = "def bim(model, x, y, eps, alpha, steps):\n    while True:\n        pass\n"


def test_the_teacher_s_page_shows_what_happens(tmp_path: Path) -> None:
    right = inline_grader.answers("fgsm")
    handed_in = {
        "Ada Lovelace_101": right,
        "Alan Turing_102": right | {"bim": WRONG_BOX},
        "Emmy Noether_103": right | {"bim": ENDLESS},
    }
    with zipfile.ZipFile(tmp_path / "moodle.zip", "w") as archive:
        for who, answers in handed_in.items():
            folder = f"{who}_assignsubmission_file_"
            archive.writestr(f"{folder}/fgsm.ipynb", submission("fgsm", answers))
    text = (ROOT / "book" / "teach" / "grading.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    steps = [
        (command, output)
        for block in blocks
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]
    assert len(steps) >= 6
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command, output in steps:
        where = ROOT if command.startswith("course release") else tmp_path
        run = subprocess.run(
            command, shell=True, cwd=where, env={**os.environ, "PATH": path}, capture_output=True,
            text=True, timeout=200,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert run.stdout.replace(f"{where}/", "") == output, command


def test_the_student_s_page_quotes_the_notebook() -> None:
    text = (ROOT / "book" / "teach" / "assignments.md").read_text(encoding="utf-8")
    (quoted,) = re.findall(r"^AssertionError: (.*)$", text, re.MULTILINE)
    released = (ROOT / "assignments" / "fgsm" / "fgsm.ipynb").read_text(encoding="utf-8")
    assert quoted in released
    for name in re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE):
        assert (ROOT / "assignments" / name / f"{name}.ipynb").is_file()
