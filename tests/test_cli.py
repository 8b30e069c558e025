from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from course_lib import cli


def course(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "course_lib.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("lab", "quantum"), "error: no chapter 'quantum'; there are "),
        (("train", "gold"), "error: no recipe 'gold'; there are "),
        (("bench", "gold"), "error: name: no experiment 'gold'; there are "),
        (("data", "fetch", "celebrities"), "error: "),
        (("data", "card", "celebrities"), "error: "),
    ],
)
def test_a_wrong_name_is_one_clear_line(arguments: tuple[str, ...], told: str) -> None:
    run = course(*arguments)
    assert run.returncode == 1
    assert run.stderr.strip().splitlines()[-1].startswith(told)
    assert "Traceback" not in run.stderr


def test_help_says_what_there_is_without_loading_torch() -> None:
    code = "import sys; from course_lib import cli; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
    assert "book" in course("--help").stdout


def test_data_list_and_card() -> None:
    run = course("data", "list")
    assert run.returncode == 0 and "mnist" in run.stdout and "portraits" in run.stdout
    card = course("data", "card", "mnist")
    assert "SHA-256" in card.stdout and "icen" in card.stdout


def test_a_full_disk_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit, match="the disk is full .somewhere.: free some space"):
        cli.main()
