from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from course_lib import cli
from course_lib.publish import copies


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


@pytest.mark.parametrize(
    ("user", "contained", "told"),
    [(1000, False, False), (1000, True, False), (0, True, True)],
)
def test_the_lab_starts_as_root_in_a_container(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    user: int,
    contained: bool,
    told: bool,
) -> None:
    commands: list[list[str]] = []

    def started(command: list[str]) -> int:
        commands.append(command)
        return 0

    _be(monkeypatch, user, tmp_path if contained else tmp_path / "nowhere")
    monkeypatch.setattr(copies, "refresh", lambda _folder: [])
    monkeypatch.setattr(subprocess, "call", started)
    with pytest.raises(typer.Exit) as end:
        cli.lab(browser=False)
    assert end.value.exit_code == 0
    assert ("--allow-root" in commands[0]) == told
    assert ("all rights" in capsys.readouterr().err) == told


def test_the_lab_does_not_start_as_root_on_a_whole_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _be(monkeypatch, 0, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="as an ordinary user"):
        cli.lab()


def _be(monkeypatch: pytest.MonkeyPatch, user: int, mark: Path) -> None:
    """Be this user, in a container if the file ``mark`` is there."""
    monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    monkeypatch.setattr(cli, "_CONTAINER_FILES", (mark,))
    for name in cli._CONTAINER_NAMES:
        monkeypatch.delenv(name, raising=False)
