"""The gradebook: one writer, nbgrader's own reading, and nothing of a person's marking lost."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import tiny
from bs4 import BeautifulSoup

from course_lib.grading import gradebook, rebuild

DUE = datetime(2026, 1, 10, 12, 0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def prepared(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    course = tmp_path_factory.mktemp("course") / "grading"
    gradebook.prepare(course, root, ["tiny"])
    return course


@pytest.fixture
def course(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "grading")


def master(root: Path) -> rebuild.Master:
    return rebuild.load("tiny", (root / "assignments/tiny/tiny.ipynb").read_bytes())


def one(course: Path, student: str = "ada") -> gradebook.Mark:
    (mark,) = [mark for mark in gradebook.marks(course) if mark.student == student]
    return mark


def book(course: Path) -> Any:
    from nbgrader.api import Gradebook

    return Gradebook(f"sqlite:///{course}/gradebook.db")


def mark_by_hand(course: Path, cell: str, student: str = "ada", **values: Any) -> None:
    """Mark as the form grader's handler does."""
    with book(course) as opened:
        grade = opened.find_grade(cell, "tiny", "tiny", student)
        for key, value in values.items():
            setattr(grade, key, value)
        opened.db.commit()


def needs(course: Path, student: str = "ada") -> dict[str, bool]:
    with book(course) as opened:
        notebook = opened.find_submission_notebook("tiny", "tiny", student)
        return {grade.name: grade.needs_manual_grade for grade in notebook.grades}


def nbgrader_api(course: Path) -> Any:
    from nbgrader.apps import NbGraderAPI
    from nbgrader.coursedir import CourseDirectory

    config = gradebook._config(course)
    return NbGraderAPI(CourseDirectory(config=config), config=config)


def test_nbgrader_sees_the_marks(root: Path, course: Path) -> None:
    when = datetime(2026, 1, 1, 9, 30, tzinfo=timezone(timedelta(hours=2)))
    results = [
        tiny.result("ada"),
        tiny.result("bea", (0.0, 2.0)),
        tiny.result("cem", (0.0, 0.0), empty=["half", "double", "question"]),
    ]
    stamps = {result["key"]: when for result in results}
    assert gradebook.record(course, results, timestamps=stamps) == 3
    for result in results:
        gradebook.autograded(course, result, master(root), timestamp=when)
    told = {row["student"]: row for row in nbgrader_api(course).get_submissions("tiny")}
    assert {name: row["score"] for name, row in told.items()} == {"ada": 5, "bea": 2, "cem": 0}
    assert {name: row["needs_manual_grade"] for name, row in told.items()} == {
        "ada": True,
        "bea": True,
        "cem": False,  # nbgrader's rule: nobody has to read an answer that nobody wrote
    }
    ada = nbgrader_api(course).get_submission("tiny", "ada")
    assert ada["autograded"] and ada["max_score"] == 9
    assert ada["timestamp"] == "2026-01-01T07:30:00"
    with book(course) as opened:
        comments = opened.find_submission_notebook("tiny", "tiny", "cem").comments
        assert {comment.name: comment.comment for comment in comments} == dict.fromkeys(
            ("half", "double", "question"), "No response."
        )


def test_a_rejected_submission_has_no_points(course: Path) -> None:
    empty: dict[str, Any] = {"answers": {}, "written": {}}
    gradebook.record(course, [tiny.result("ada", (0.0, 0.0), status="rejected", **empty)])
    assert one(course).raw == 0 and not one(course).pending


def test_more_points_than_a_cell_has_are_cut(course: Path) -> None:
    gradebook.record(course, [tiny.result("ada", (30.0, -1.0))])
    assert one(course).questions == {"check_half": 3, "check_double": 0, "question": 0}
    with pytest.raises(ValueError, match="'bea' has nan points for 'check_half'"):
        gradebook.record(course, [tiny.result("bea", (float("nan"), 1.0))])
    assert [mark.student for mark in gradebook.marks(course)] == ["ada"]


def test_a_regrade_keeps_what_a_person_marked(course: Path) -> None:
    first = tiny.result("ada", (0.0, 2.0))
    gradebook.record(course, [first])
    mark_by_hand(course, "question", manual_score=3.5, needs_manual_grade=False)
    mark_by_hand(course, "check_half", manual_score=1.0, extra_credit=0.5, needs_manual_grade=False)
    with book(course) as opened:
        opened.find_comment("half", "tiny", "tiny", "ada").manual_comment = "nearly"
        opened.update_or_create_submission("tiny", "ada", flagged=True, extension=timedelta(days=1))
    gradebook.record(course, [first])
    assert needs(course) == {"question": False, "check_half": False, "check_double": False}
    assert one(course).questions == {"question": 3.5, "check_half": 1.5, "check_double": 2.0}
    # Now the code's marks changed: a person looks again, and her mark still stands.
    gradebook.record(course, [tiny.result("ada", (3.0, 2.0))])
    assert needs(course) == {"question": False, "check_half": True, "check_double": False}
    # And now what she wrote.
    gradebook.record(course, [tiny.result("ada", written={"question": "Something else."})])
    assert needs(course) == {"question": True, "check_half": True, "check_double": False}
    mark = one(course)
    assert mark.questions == {"question": 3.5, "check_half": 1.5, "check_double": 2.0}
    assert mark.comments == {"half": "nearly"} and mark.raw == 7.0
    with book(course) as opened:
        assert opened.find_submission("tiny", "ada").extension == timedelta(days=1)


def test_how_many_answers_wait_for_a_person(course: Path, tmp_path: Path) -> None:
    assert gradebook.waiting(tmp_path / "nowhere") == {} == gradebook.waiting(course)
    silent = tiny.result("cem", empty=["half", "double", "question"])
    gradebook.record(course, [tiny.result("ada"), tiny.result("bea"), silent])
    assert gradebook.waiting(course) == {"tiny": 2}
    mark_by_hand(course, "question", manual_score=3.5, needs_manual_grade=False)
    assert gradebook.waiting(course) == {"tiny": 1}
    with (course / "nbgrader_config.py").open("a", encoding="utf-8") as config:
        config.write(f"c.CourseDirectory.db_url = 'sqlite:///{tmp_path}/other.db'\n")
    shutil.copy(course / "gradebook.db", tmp_path / "other.db")
    (course / "gradebook.db").unlink()
    assert gradebook.waiting(course) == {"tiny": 1}


def test_a_regrade_without_a_time_keeps_the_old_one(course: Path) -> None:
    result = tiny.result("ada")
    gradebook.record(course, [result], timestamps={result["key"]: DUE})
    gradebook.record(course, [result])
    assert one(course).timestamp == DUE


def test_names_of_students(course: Path) -> None:
    results = [tiny.result("ada"), tiny.result("bea")]
    gradebook.record(course, results, names={"ada": ("Ada", "Lovelace")})
    gradebook.record(course, results)
    assert (one(course).first_name, one(course).last_name) == ("Ada", "Lovelace")
    assert one(course, "bea").last_name == ""


def test_recorded_tells_what_is_in_the_gradebook(course: Path, tmp_path: Path) -> None:
    assert gradebook.recorded(tmp_path) == set() == gradebook.recorded(course)
    old, new = tiny.result("ada"), tiny.result("ada", (1.0, 1.0))
    gradebook.record(course, [old])
    gradebook.record(course, [new])
    assert gradebook.recorded(course) == {new["key"]}


@pytest.mark.parametrize(
    "student",
    [
        *("", "  ", "a/b", "..", ".hidden", "a\\b", "a\nb", "x" * 101, "*", "a\u202eb", " ada"),
        *("<img src=x onerror=alert(1)>", 'a"b'),
    ],
)
def test_a_student_that_is_no_name_writes_nothing(course: Path, root: Path, student: str) -> None:
    result = tiny.result(student)
    with pytest.raises(ValueError, match="a student id"):
        gradebook.record(course, [tiny.result("ada"), result])
    with pytest.raises(ValueError, match="a student id"):
        gradebook.autograded(course, result, master(root))
    assert gradebook.marks(course) == [] and not (course / "autograded").exists()


@pytest.mark.parametrize(
    "student", ["ada", "ada@uni.edu", "Ada O'Brien, née Łoś", "学生", "1.2-3_4"]
)
def test_students_have_all_kinds_of_names(course: Path, root: Path, student: str) -> None:
    gradebook.record(course, [tiny.result(student)])
    gradebook.autograded(course, tiny.result(student), master(root))
    assert nbgrader_api(course).get_submission("tiny", student)["score"] == 5


def test_wrong_batches_write_nothing(course: Path) -> None:
    with pytest.raises(ValueError, match="'ada' has 2 results for 'tiny'"):
        gradebook.record(course, [tiny.result("ada"), tiny.result("ada", (0.0, 0.0))])
    with pytest.raises(ValueError, match="does not know 'other' yet"):
        gradebook.record(course, [tiny.result("ada"), tiny.result("ada", assignment="other")])
    assert gradebook.record(course, []) == 0
    assert gradebook.marks(course) == []


def test_marks_of_no_gradebook(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no gradebook"):
        gradebook.marks(tmp_path)


PLUGIN = """
from nbgrader.plugins import BasePlugin

class PerDay(BasePlugin):
    def late_submission_penalty(self, student_id, score, total_seconds_late):
        return {"cem": -4.0, "dan": 1e6, "eve": None}.get(student_id, total_seconds_late / 86400)

c.AssignLatePenalties.plugin_class = PerDay
"""


def test_late_penalties_are_the_plugins(course: Path) -> None:
    config = course / "nbgrader_config.py"
    config.write_text(config.read_text() + PLUGIN)
    with book(course) as opened:
        opened.update_or_create_assignment("tiny", duedate=DUE)
    who = ("ada", "bea", "cem", "dan", "eve", "fay")
    results = [tiny.result(student) for student in who]
    when = {result["key"]: DUE + timedelta(days=2) for result in results}
    when[results[1]["key"]] = DUE - timedelta(minutes=1)
    gradebook.record(course, results, timestamps=when)
    found = {mark.student: (mark.penalty, mark.score) for mark in gradebook.marks(course)}
    # within 0 and the score, as nbgrader does; none for who was on time
    assert found == {
        **{"ada": (2, 3), "bea": (0, 5), "cem": (0, 5), "dan": (5, 0), "eve": (0, 5), "fay": (2, 3)}
    }
    # An extension that a person gave counts.
    with book(course) as opened:
        opened.update_or_create_submission("tiny", "ada", extension=timedelta(days=3))
    gradebook.record(course, results)
    assert one(course).penalty == 0 and one(course, "fay").penalty == 2


def test_zero_for_late_work_is_one_word_in_the_configuration(course: Path) -> None:
    config = course / "nbgrader_config.py"
    config.write_text(
        config.read_text().replace('penalty_method = "none"', 'penalty_method = "zero"')
    )
    with book(course) as opened:
        opened.update_or_create_assignment("tiny", duedate=DUE)
    result = tiny.result("ada")
    gradebook.record(course, [result], timestamps={result["key"]: DUE + timedelta(seconds=1)})
    assert (one(course).raw, one(course).score) == (5, 0)


def test_nbgrader_exports_the_same(course: Path) -> None:
    with book(course) as opened:
        opened.update_or_create_assignment("tiny", duedate=DUE)
    results = [tiny.result("ada"), tiny.result("bea", (1.0, 0.0))]
    config = course / "nbgrader_config.py"
    config.write_text(config.read_text() + PLUGIN)
    gradebook.record(
        course, results, timestamps={results[0]["key"]: DUE + timedelta(days=1, hours=12)}
    )
    mark_by_hand(course, "question", manual_score=2.5)
    subprocess.run(
        [sys.executable, "-m", "nbgrader", "export", "--to", "grades.csv"],
        cwd=course,
        check=True,
        capture_output=True,
        timeout=120,
    )
    with (course / "grades.csv").open(newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    for mark in gradebook.marks(course):
        row = rows.pop(mark.student)
        told = [float(row[key]) for key in ("raw_score", "late_submission_penalty", "score")]
        assert told == [mark.raw, mark.penalty, mark.score]
        assert row["timestamp"] == str(mark.timestamp or "")
        assert float(row["max_score"]) == mark.of
    assert rows == {}


def test_prepare_twice_changes_nothing(root: Path, course: Path) -> None:
    config = course / "nbgrader_config.py"
    config.write_text(config.read_text() + "# mine\n")
    gradebook.record(course, [tiny.result("ada")])
    before = {path: path.read_bytes() for path in course.rglob("*") if path.is_file()}
    gradebook.prepare(course, root, ["tiny"])
    assert before == {path: path.read_bytes() for path in course.rglob("*") if path.is_file()}


def test_prepare_takes_new_words_and_refuses_other_cells(course: Path, tmp_path: Path) -> None:
    changed = tiny.make(tmp_path / "changed", tiny.SOURCE.replace("divide by two", "halve it"))
    other = tiny.make(tmp_path / "other", tiny.SOURCE.replace('"check_double"', '"check_twice"'))
    gradebook.record(course, [tiny.result("ada")])
    gradebook.prepare(course, changed, ["tiny"])
    assert "halve it" in (course / "release/tiny/tiny.ipynb").read_text()
    assert one(course).raw == 5
    with pytest.raises(ValueError, match="keep the cells of 'tiny', or begin a new course"):
        gradebook.prepare(course, other, ["tiny"])
    assert one(course).raw == 5
    with pytest.raises(ValueError, match="'absent' is not released yet"):
        gradebook.prepare(course, changed, ["absent"])


WRITERS = """
import os, signal, sys
from pathlib import Path
import tiny
from course_lib.grading import gradebook

course = Path(sys.argv[1])
first = [tiny.result(f"s{i}", (1.0, 1.0)) for i in range(30)]
second = [tiny.result(f"s{i}", (2.0, 2.0)) for i in range(15, 60)]
gradebook.record(course, first)
old = gradebook.marks(course)

from sqlalchemy import event
from sqlalchemy.engine import Engine

def dying(at):
    count = 0
    def step(*_):
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
    return step

def before_commit(*given):
    penalties(*given)
    event.listen(Engine, "commit", dying(1))

penalties = gradebook._penalties
died = 0
for at in range(0, 100, 2):
    child = os.fork()
    if not child:
        if at:
            event.listen(Engine, "after_cursor_execute", dying(at))
        else:
            gradebook._penalties = before_commit
        gradebook.record(course, second)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        died += 1
        assert gradebook.marks(course) == old, at
    else:
        break
assert os.WEXITSTATUS(status) == 0
assert died > 8, died
assert [mark.raw for mark in gradebook.marks(course)].count(4.0) == 45

children = []
for part in range(2):
    child = os.fork()
    if not child:
        for turn in range(4):
            gradebook.record(
                course,
                [tiny.result(f"s{i}", (float(part), float(turn % 3))) for i in range(part, 100, 2)],
            )
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
marks = {mark.student: mark.raw for mark in gradebook.marks(course)}
assert marks == {f"s{i}": float(i % 2) for i in range(100)}, marks
print("died", died)
"""


def test_a_killed_writer_leaves_the_old_marks_and_two_writers_wait(course: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", WRITERS, str(course)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("died")


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<img src=x onerror=alert(1)>]]>",
    "[x](javascript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x][a]\n\n[a]: javascript:alert(1)",
    "![x](attachment:not-there)",
    "![x](https://example.org/pixel.png)",
    "$$<svg onload=alert(1)>$$",
    "\\begin{equation}<img src=x onerror=alert(1)>\\end{equation}",
    "| a |\n|---|\n| <iframe src=x> |",
    '```" onclick="alert(1)\nx\n```',
    "# <b onclick=alert(1)>",
    "`</code><script>alert(1)</script>`",
]


def page(course: Path, path: Path) -> BeautifulSoup:
    """Render a notebook as the form grader does, with the course's configuration."""
    from nbconvert.exporters import HTMLExporter
    from nbgrader.server_extensions.formgrader import handlers

    config = gradebook._config(course)
    config.HTMLExporter.template_name = "formgrade"
    config.HTMLExporter.extra_template_basedirs = [handlers.template_path]
    keys = ("assignment_id", "notebook_id", "submission_id", "base_url", "student")
    resources: dict[str, Any] = dict.fromkeys(
        (*keys, "last_name", "first_name", "notebook_path"), ""
    )
    resources |= {"index": 0, "total": 1}
    html, _ = HTMLExporter(config=config).from_filename(str(path), resources=resources)
    found = BeautifulSoup(html, "html.parser").select_one("#notebook-container")
    assert found is not None
    return found


def dangers(found: Any) -> list[str]:
    """What in a page could run, or fetch something."""
    bad = []
    for element in found.find_all(True):
        if element.name in {"script", "iframe", "object", "embed", "style", "svg", "form", "base"}:
            bad.append(element.name)
        for key, value in element.attrs.items():
            harmless = ("#", "data:image/png") + ("https://",) * (key == "href")
            target = key in ("src", "href") and not str(value).startswith(harmless)
            if key.startswith("on") or target:
                bad.append(f"{key}={value}")
    return bad


def test_what_students_write_is_harmless_in_the_form_grader(root: Path, course: Path) -> None:
    # Without the course's configuration: the notebook alone has to be harmless.
    config = course / "nbgrader_config.py"
    config.write_text(config.read_text().replace("c.HTMLExporter.preprocessors", "_"))
    for text in HOSTILE:
        code = f"def half(x):\n    '''{text}</script><script>alert(1)'''"
        result = tiny.result("ada", written={"question": text}, answers={"half": code})
        found = page(course, gradebook.autograded(course, result, master(root)))
        assert dangers(found) == [], text
        assert "alert(1)" in found.get_text() or "alert" not in text


def test_plain_nbgraders_notebooks_are_harmless_there_too(course: Path, tmp_path: Path) -> None:
    from nbformat import v4, write

    logging.disable(logging.WARNING)
    data = {
        "text/html": "<script>alert(1)</script>",
        "image/svg+xml": "<svg onload=alert(1)>",
        "image/png": 'x" onerror="alert(1)',
        "application/javascript": "alert(1)",
        "text/plain": "<b onclick=alert(1)>",
    }
    bad_id = {
        "nbgrader": {"grade_id": '"><script>alert(1)</script>', "grade": True, "points": "<b>"}
    }
    cells = [
        *(v4.new_markdown_cell(text) for text in HOSTILE),
        *(v4.new_raw_cell(text, metadata={"format": "text/html"}) for text in HOSTILE),
        v4.new_code_cell("1", outputs=[v4.new_output("display_data", data=data)], metadata=bad_id),
        v4.new_code_cell(
            "2", outputs=[v4.new_output("stream", text="<script>alert(1)</script>\x1b[31m")]
        ),
    ]
    path = tmp_path / "hostile.ipynb"
    write(v4.new_notebook(cells=cells), path)
    assert dangers(page(course, path)) == []
    config = course / "nbgrader_config.py"
    config.write_text(config.read_text().replace("c.HTMLExporter.preprocessors", "_"))
    with pytest.raises(Exception, match="attachment"):  # without it one student stops the page
        page(course, path)
    logging.disable(logging.NOTSET)


def test_the_form_grader_shows_the_masters_cells(root: Path, course: Path) -> None:
    result = tiny.result("ada", written={"question": "**The mirror** is $x<y$."})
    path = gradebook.autograded(course, result, master(root))
    made, released = (
        json.loads(file.read_text()) for file in (path, root / "assignments/tiny/tiny.ipynb")
    )
    sources = {cell["id"]: "".join(cell["source"]) for cell in made["cells"]}
    assert sources["half"] == result["answers"]["half"]
    assert sources["check_half"] == 'assert half(8) == 4, "divide by two"'
    for cell in (*made["cells"], *released["cells"]):
        del cell["source"]
    assert made == released  # all but the answers is the master's, checksums and points too
    found = page(course, path)
    assert found.select_one("strong").get_text() == "The mirror"
    assert found.select_one("input#question.score") is not None
    assert found.select_one("textarea#half-comment") is not None


def test_a_link_in_the_course_leads_nowhere(root: Path, course: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (course / "submitted").mkdir()
    (course / "submitted" / "ada").symlink_to(outside)
    with pytest.raises(ValueError, match="link to somewhere else"):
        gradebook.autograded(course, tiny.result("ada"), master(root), timestamp=DUE)
    assert list(outside.iterdir()) == []


def test_a_time_that_came_with_the_submission_stays(root: Path, course: Path) -> None:
    told = course / "submitted/ada/tiny/timestamp.txt"
    told.parent.mkdir(parents=True)
    told.write_text("2026-01-01 08:00:00 Europe/Berlin\n")
    gradebook.autograded(course, tiny.result("ada"), master(root), timestamp=DUE)
    assert told.read_text() == "2026-01-01 08:00:00 Europe/Berlin\n"
    told.write_text("2026-01-01 08:00:00 UTC")
    late = DUE.replace(tzinfo=UTC) + timedelta(microseconds=5)
    gradebook.autograded(course, tiny.result("ada"), master(root), timestamp=late)
    assert told.read_text() == "2026-01-10 12:00:00.000005 UTC"
    assert nbgrader_api(course).get_submitted_timestamp("tiny", "ada") == late.replace(tzinfo=None)
