"""What the commands say of a course directory beyond the marks themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from course_lib import cli
from course_lib.grading import course as grading
from course_lib.grading import gradebook, results


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def marked(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course directory in which two students wrote an answer that nobody has read."""
    course = tmp_path_factory.mktemp("course") / "grading"
    gradebook.prepare(course, root, ["tiny"])
    store = results.Store(course)
    found = [tiny.result("ada"), tiny.result("bea")]
    for result in found:
        store.put(result["key"], json.dumps(result).encode())
        store.log("graded", **{name: result[name] for name in ("assignment", "student", "key")})
    gradebook.record(course, found)
    return course


@pytest.fixture
def course(marked: Path, tmp_path: Path) -> Path:
    return shutil.copytree(marked, tmp_path / "grading")


@pytest.mark.parametrize("platform", list(cli.Platform))
def test_an_export_says_what_a_person_has_still_to_mark(
    course: Path, capsys: pytest.CaptureFixture[str], platform: cli.Platform
) -> None:
    cli.export(platform, course=course)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("2 answers are not marked by hand yet (tiny 2): ")
    assert f"in {course}, " in last and last.endswith("Formgrader, Manual Grading")


def test_grading_says_what_a_person_has_still_to_mark(
    course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Grader:
        warnings: tuple[str, ...] = ()

        def grade(self, _paths: object) -> list[SimpleNamespace]:
            return [SimpleNamespace(result={"status": "graded"}, new=False)]

    grader: Any = Grader()
    grader.course = course
    assert not cli._grade_once(grader, [], quiet=False)
    assert "2 answers are not marked by hand yet (tiny 2): " in capsys.readouterr().out


def test_nothing_is_said_where_all_is_marked(
    course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nbgrader.api import Gradebook

    for student, left in (("ada", "1 answer is not marked"), ("bea", "")):
        with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
            grade = book.find_grade("question", "tiny", "tiny", student)
            grade.manual_score, grade.needs_manual_grade = 3.0, False
            book.db.commit()
        cli.export(cli.Platform.CSV, course=course)
        told = capsys.readouterr().out
        assert ("by hand" in told) == bool(left) and left in told


def test_an_assignment_that_there_is_not_is_named_with_those_there_are(
    root: Path, course: Path
) -> None:
    with pytest.raises(ValueError, match="no assignment 'tinny'; there are tiny"):
        list(grading.feedback(course, root, "tinny"))
    for platform in ("csv", "gradescope"):
        with pytest.raises(ValueError, match="nothing of 'tinny' is graded in .*; there is tiny"):
            grading.export(course, platform, assignment="tinny")
    assert len(list(grading.feedback(course, root, "tiny"))) == 2
