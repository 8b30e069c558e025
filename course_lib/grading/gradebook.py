"""nbgrader's gradebook: one writer that puts marks in, one reader that takes them out.

The course directory is nbgrader's (``source``, ``release``, ``submitted``, ``autograded``,
``gradebook.db``), so that its form grader, exporter and late penalties work on it. What a person has
marked (manual marks, comments, extra credit, extensions) is never written here.

Chapter: book/teach/grading.md
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sqlite3
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_lib.grading import release
from course_lib.grading.intake import unusable
from course_lib.grading.rebuild import Master

if TYPE_CHECKING:
    from filelock import BaseFileLock

#: How long one writer waits for another, in seconds.
PATIENCE = 120.0
_CONFIG = """\
# nbgrader's configuration of this course. It is written once and yours to change.
from pathlib import Path

c = get_config()
c.CourseDirectory.root = str(Path(__file__).resolve().parent)

# What students wrote runs no script in the form grader: tags, links and rich outputs become text.
c.HTMLExporter.preprocessors = ["course_lib.grading.gradebook.harmless"]

# Late work: "none", or "zero" for no marks. For anything else name a plugin of your own:
# https://nbgrader.readthedocs.io/en/stable/plugins/late-plugin.html
c.LateSubmissionPlugin.penalty_method = "none"
"""


@dataclass(frozen=True)
class Mark:
    """What a student has for an assignment: ``score`` is ``raw`` less ``penalty``, never below 0.

    ``questions`` holds the marks by grade_id, ``of`` the most there is for all. ``comments`` holds
    what a person wrote, by grade_id. ``timestamp`` is in UTC. ``pending`` says that a person has still
    to mark something.
    """

    student: str
    assignment: str
    raw: float
    of: float
    penalty: float
    score: float
    timestamp: datetime | None = None
    questions: Mapping[str, float] = field(default_factory=dict)
    comments: Mapping[str, str] = field(default_factory=dict)
    pending: bool = False
    first_name: str = ""
    last_name: str = ""
    email: str = ""


def check_student(student: str) -> None:
    """Raise ``ValueError`` for a student id that can't be a folder or a line in the gradebook."""
    if why := unusable(student):
        raise ValueError(f"a student id that can't be used, {student[:120]!r}: {why}")


def lock(course: Path) -> BaseFileLock:
    """Return the lock that a writer of the gradebook holds; it opens when its process ends."""
    from filelock import FileLock

    course.mkdir(parents=True, exist_ok=True)
    return FileLock(str(course / "gradebook.lock"), timeout=PATIENCE)


def prepare(course: Path, root: Path, names: Iterable[str]) -> None:
    """Make the course directory, or bring it up to date: configuration, notebooks, gradebook.

    ``root`` is the repository. Done twice it changes nothing. Raises ``ValueError`` when an assignment
    that has submissions got other cells.
    """
    with lock(course):
        config = course / "nbgrader_config.py"
        if not config.exists():
            release.put(config, _CONFIG.encode())
        for name in names:
            released = root / "assignments" / name / f"{name}.ipynb"
            if not released.is_file():
                raise ValueError(f"{name!r} is not released yet: 'course release {name}' does it")
            data = released.read_bytes()
            source = root / "solutions" / name / f"{name}.py"
            ours = [course / part / name / f"{name}.ipynb" for part in ("source", "release")]
            # Nothing below is loaded where nothing changed.
            if (
                all(path.is_file() for path in ours)
                and ours[0].stat().st_mtime >= source.stat().st_mtime
                and ours[1].read_bytes() == data
                and (course / "gradebook.db").is_file()
            ):
                continue
            release.put(ours[0], release.teacher(root, name))
            _enter(course, name, data)
            release.put(ours[1], data)  # last: it says that the rest is done


def _enter(course: Path, name: str, data: bytes) -> None:
    """Put a released notebook's cells into the gradebook."""
    from nbformat import reads
    from nbgrader.preprocessors import SaveCells

    url = _url(course)
    with _book(course) as book:
        book.update_or_create_assignment(name)
    about = {"notebook": name, "assignment": name, "student": ".", "db_url": url}
    try:
        SaveCells().preprocess(reads(data.decode(), as_version=4), {"nbgrader": about})
    except RuntimeError as error:
        raise ValueError(
            f"{error}: keep the cells of {name!r}, or begin a new course directory"
        ) from None


def recorded(course: Path) -> set[str]:
    """Return the keys of the results that are in the gradebook, without loading nbgrader."""
    path = course / "gradebook.db"
    if not path.is_file():
        return set()
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        try:
            return {key for (key,) in database.execute("SELECT key FROM course_result")}
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return set()


def record(
    course: Path,
    results: Sequence[Mapping[str, Any]],
    *,
    timestamps: Mapping[str, datetime] | None = None,
    names: Mapping[str, tuple[str, str]] | None = None,
) -> int:
    """Put results into the gradebook, all of them in one transaction; return how many.

    ``timestamps`` says by a result's ``key`` when it was handed in (without a zone: in UTC), ``names``
    by student id the first and last name. A mark, comment or extra credit that a person gave stays; a
    cell that has one is to be looked at again where what was marked has changed. The late penalty is
    nbgrader's, by the plugin that ``nbgrader_config.py`` names.

    Raises ``ValueError`` for an assignment that ``prepare`` has not seen, a student id that is none,
    and two results of one student for one assignment, before anything is written.
    """
    pairs = [(result["assignment"], result["student"]) for result in results]
    for _, student in pairs:
        check_student(student)
    for (name, student), count in Counter(pairs).items():
        if count > 1:
            raise ValueError(f"{student!r} has {count} results for {name!r}: record one")
    if not results:
        return 0
    with lock(course), _book(course) as book:
        try:
            _record(book, course, results, timestamps or {}, names or {})
            book.db.commit()
        except BaseException:
            book.db.rollback()
            raise
    return len(results)


_WAITING = """\
SELECT assignment.name, COUNT(*) FROM grade
JOIN submitted_notebook ON submitted_notebook.id = grade.notebook_id
JOIN submitted_assignment ON submitted_assignment.id = submitted_notebook.assignment_id
JOIN assignment ON assignment.id = submitted_assignment.assignment_id
WHERE grade.needs_manual_grade GROUP BY assignment.name ORDER BY assignment.name
"""


def waiting(course: Path) -> dict[str, int]:
    """Return, by assignment, how many answers a person has still to mark, without loading nbgrader.

    An answer that was marked and changed since is one of them. Assignments with none are not in it.
    """
    if _url(course) != _default(course):
        from sqlalchemy import text

        with _book(course) as book:
            return {name: count for name, count in book.db.execute(text(_WAITING))}
    path = course / "gradebook.db"
    if not path.is_file():
        return {}
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        return dict(database.execute(_WAITING).fetchall())


def marks(course: Path) -> list[Mark]:
    """Return every submission in the gradebook, by assignment and student.

    Raises ``ValueError`` where there is no gradebook.
    """
    from nbgrader.api import (
        Assignment,
        BaseCell,
        Comment,
        Grade,
        Student,
        SubmittedAssignment,
        SubmittedNotebook,
    )
    from sqlalchemy import select

    if not (course / "nbgrader_config.py").is_file():
        raise ValueError(f"there is no gradebook in {course}: grading makes one")
    with _book(course) as book:
        session = book.db
        questions: dict[str, dict[str, float]] = {}
        pending: set[str] = set()
        for where, cell, score, waiting in session.execute(
            select(
                SubmittedNotebook.assignment_id,
                BaseCell.name,
                Grade.score,
                Grade.needs_manual_grade,
            )
            .join(Grade, Grade.notebook_id == SubmittedNotebook.id)
            .join(BaseCell, BaseCell.id == Grade.cell_id)
            .order_by(BaseCell.name)
        ):
            questions.setdefault(where, {})[cell] = score
            pending |= {where} if waiting else set()
        comments: dict[str, dict[str, str]] = {}
        for where, cell, text in session.execute(
            select(SubmittedNotebook.assignment_id, BaseCell.name, Comment.manual_comment)
            .join(Comment, Comment.notebook_id == SubmittedNotebook.id)
            .join(BaseCell, BaseCell.id == Comment.cell_id)
            .where(Comment.manual_comment.is_not(None))
            .order_by(BaseCell.name)
        ):
            comments.setdefault(where, {})[cell] = text
        rows = session.execute(
            select(
                SubmittedAssignment.id,
                SubmittedAssignment.timestamp,
                SubmittedAssignment.score,
                SubmittedAssignment.late_submission_penalty,
                Assignment.name,
                Assignment.max_score,
                Student.id,
                Student.first_name,
                Student.last_name,
                Student.email,
            )
            .join(Assignment, Assignment.id == SubmittedAssignment.assignment_id)
            .join(Student, Student.id == SubmittedAssignment.student_id)
            .order_by(Assignment.name, Student.id)
        ).all()
    return [
        Mark(
            student=student,
            assignment=name,
            raw=raw,
            of=most,
            penalty=penalty,
            score=max(0.0, raw - penalty),
            timestamp=when,
            questions=questions.get(where, {}),
            comments=comments.get(where, {}),
            pending=where in pending,
            first_name=first or "",
            last_name=last or "",
            email=email or "",
        )
        for where, when, raw, penalty, name, most, student, first, last, email in rows
    ]


def autograded(
    course: Path, result: Mapping[str, Any], master: Master, *, timestamp: datetime | None = None
) -> Path:
    """Write the notebook that the form grader shows: the master's cells with the student's answers.

    It has no outputs, and what the student wrote can run no script there. With ``timestamp``, the one
    that ``record`` got, ``submitted/<student>/<name>/timestamp.txt`` says it too where the student's
    file did not come with one: nbgrader shows a submission when the two agree.
    """
    student, name = str(result["student"]), str(result["assignment"])
    check_student(student)
    if name != master.name:
        raise ValueError(f"a result of {name!r} does not fit the notebook of {master.name!r}")
    folders = [course / part / student / name for part in ("autograded", "submitted")]
    for folder in folders:
        if any(path.is_symlink() for path in (folder, folder.parent, folder.parent.parent)):
            raise ValueError(
                f"{folder} is, or lies below, a link to somewhere else: remove the link"
            )
    released = course / "release" / name / f"{name}.ipynb"
    if not released.is_file():
        raise ValueError(f"{course} does not know {name!r} yet: prepare it first")
    notebook = json.loads(_read(released, released.stat().st_mtime_ns))
    for cell in notebook["cells"]:
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id", "")
        if grade_id in result["answers"]:
            cell["source"] = result["answers"][grade_id]
        elif grade_id in result["written"]:
            cell["source"] = _quiet(result["written"][grade_id])
    path = folders[0] / f"{name}.ipynb"
    release.put(path, release.normal(json.dumps(notebook).encode()))
    if timestamp is not None:
        told = folders[1] / "timestamp.txt"
        text = f"{_utc(timestamp):%Y-%m-%d %H:%M:%S.%f} UTC"
        ours = not told.exists() or told.read_text(encoding="utf-8").strip().endswith(" UTC")
        if ours and not told.is_symlink():
            release.put(told, text.encode())
    return path


def harmless(notebook: Any, resources: Any) -> tuple[Any, Any]:
    """Take from a notebook, before nbconvert makes HTML of it, all that could run in a browser.

    The form grader's pages put Markdown, raw cells, outputs and ids of cells into the page as they
    are. This is named in ``nbgrader_config.py`` and is the second wall: ``autograded`` is the first.
    """
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader")
        cell.metadata = type(cell.metadata)()
        if meta is not None and re.fullmatch(r"[\w.-]+", str(meta.get("grade_id", ""))):
            try:
                points = float(meta.get("points", 0))
            except (TypeError, ValueError):
                points = 0.0
            cell.metadata["nbgrader"] = type(meta)(
                grade_id=meta["grade_id"],
                points=points,
                grade=bool(meta.get("grade")),
                solution=bool(meta.get("solution")),
                task=bool(meta.get("task")),
                locked=bool(meta.get("locked")),
            )
        cell.pop("attachments", None)
        if cell.cell_type != "code":
            cell.cell_type = "markdown"
            cell.source = _quiet(cell.source)
        else:
            cell.outputs = [output for output in cell.outputs if _plain(output)]
    notebook.metadata = type(notebook.metadata)(language_info={"name": "python"})
    return notebook, resources


def _plain(output: Any) -> bool:
    """Strip an output to text and pixels; say whether anything is left."""
    if "data" not in output:
        return output.get("output_type") in ("stream", "error")
    for kind in list(output["data"]):
        value = output["data"][kind]
        text = "".join(value) if isinstance(value, list) else str(value)
        pixels = kind in ("image/png", "image/jpeg") and re.fullmatch(r"[A-Za-z0-9+/=\s]*", text)
        if kind != "text/plain" and not pixels:
            del output["data"][kind]
    output["metadata"] = type(output["metadata"])()
    return bool(output["data"])


def _quiet(text: str) -> str:
    """Return Markdown in which nothing is a tag, a link, a picture from elsewhere or MathJax's HTML.

    Spaces are put in, nothing is taken out: ``<b`` becomes ``< b``, ``](`` becomes ``] (``.
    """
    text = re.sub(r"<(?=[A-Za-z/!?])", "< ", text)
    # A picture of the course beside the notebook stays.
    text = re.sub(r"\](?=[(:\[])(?!\([\w-]+\.(?:png|svg)\))", "] ", text)
    return re.sub(r"\\(?=(?:href|url|require|style|class|cssId|data)(?![A-Za-z]))", "\\\\ ", text)


@lru_cache(maxsize=8)
def _read(path: Path, _: int) -> bytes:
    return path.read_bytes()


def _utc(when: datetime) -> datetime:
    """Return a time as nbgrader keeps it: in UTC, and without saying so."""
    return when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo else when


def _config(course: Path) -> Any:
    """Read the course's ``nbgrader_config.py``, as nbgrader does when it starts there."""
    from traitlets.config.loader import Config, PyFileConfigLoader

    path = course / "nbgrader_config.py"
    if not path.is_file():
        return Config()
    try:
        return PyFileConfigLoader(path.name, path=str(course.resolve())).load_config()
    except Exception as error:
        raise ValueError(f"{path} can't be read: {type(error).__name__}: {error}") from None


def _url(course: Path) -> str:
    """Return where the gradebook is: beside the configuration, unless that says otherwise."""
    told = _config(course).CourseDirectory.get("db_url")
    return told if isinstance(told, str) else _default(course)


def _default(course: Path) -> str:
    return f"sqlite:///{course.resolve() / 'gradebook.db'}"


@contextmanager
def _book(course: Path) -> Iterator[Any]:
    """Open the gradebook, and make it where there is none."""
    from nbgrader.api import Gradebook

    url = _url(course)
    fresh = course / "gradebook.db"
    path = os.environ.get("PATH", "")
    # nbgrader asks the program alembic for the version of a new gradebook; it lies beside Python.
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), path])
    try:
        if url == _default(course) and not fresh.exists():
            with tempfile.TemporaryDirectory(prefix=".gradebook", dir=course) as folder:
                part = Path(folder).resolve() / "gradebook.db"
                Gradebook(f"sqlite:///{part}").close()
                os.replace(part, fresh)
        book = Gradebook(url)
    finally:
        os.environ["PATH"] = path
    with book:
        yield book


def _record(
    book: Any,
    course: Path,
    results: Sequence[Mapping[str, Any]],
    timestamps: Mapping[str, datetime],
    names: Mapping[str, tuple[str, str]],
) -> None:
    """Write a batch in the session's transaction, in a number of statements that does not grow."""
    from nbgrader.api import Student
    from sqlalchemy import insert, select, text, update

    session = book.db
    if book.engine.dialect.name == "sqlite":
        session.execute(text("PRAGMA busy_timeout = 60000"))
        session.commit()
        # What is read below must still be so when it is written: the form grader writes too.
        session.execute(text("BEGIN IMMEDIATE"))
    session.execute(
        text(
            "CREATE TABLE IF NOT EXISTS course_result "
            "(notebook_id VARCHAR(32) PRIMARY KEY, key VARCHAR(64), written VARCHAR(64))"
        )
    )
    known = set(session.scalars(select(Student.id)))
    students = dict.fromkeys(result["student"] for result in results)
    new = [{"id": student} for student in students if student not in known]
    if new:
        session.execute(insert(Student), new)
    named = [
        {"id": student, "first_name": names[student][0][:100], "last_name": names[student][1][:100]}
        for student in students
        if student in names
    ]
    if named:
        session.execute(update(Student), named)
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        by_name.setdefault(result["assignment"], []).append(result)
    late = [
        row
        for name, batch in by_name.items()
        for row in _assignment(session, name, batch, timestamps)
    ]
    _penalties(session, course, late)


def _assignment(
    session: Any,
    name: str,
    results: Sequence[Mapping[str, Any]],
    timestamps: Mapping[str, datetime],
) -> list[tuple[str, str, float]]:
    """Write the results of one assignment; return notebook, student and seconds late for each."""
    from nbgrader.api import (
        Assignment,
        Comment,
        Grade,
        GradeCell,
        Notebook,
        SolutionCell,
        SubmittedAssignment,
        SubmittedNotebook,
        new_uuid,
    )
    from sqlalchemy import bindparam, insert, select, text, update

    found = session.execute(
        select(Assignment.id, Assignment.duedate, Notebook.id)
        .join(Notebook, Notebook.assignment_id == Assignment.id)
        .where(Assignment.name == name, Notebook.name == name)
    ).one_or_none()
    if found is None:
        raise ValueError(f"the gradebook does not know {name!r} yet: prepare it first")
    assignment, due, notebook = found
    cells = session.execute(
        select(GradeCell.id, GradeCell.name, GradeCell.max_score, GradeCell.cell_type).where(
            GradeCell.notebook_id == notebook
        )
    ).all()
    asked = session.execute(
        select(SolutionCell.id, SolutionCell.name).where(SolutionCell.notebook_id == notebook)
    ).all()

    handed_in = {
        student: (where, when, extension)
        for where, when, extension, student in session.execute(
            select(
                SubmittedAssignment.id,
                SubmittedAssignment.timestamp,
                SubmittedAssignment.extension,
                SubmittedAssignment.student_id,
            ).where(SubmittedAssignment.assignment_id == assignment)
        )
    }
    notebooks = dict(
        session.execute(
            select(SubmittedNotebook.assignment_id, SubmittedNotebook.id).where(
                SubmittedNotebook.notebook_id == notebook
            )
        ).all()
    )
    grades = {
        (where, cell): (row, auto, manual, waiting)
        for row, where, cell, auto, manual, waiting in session.execute(
            select(
                Grade.id,
                Grade.notebook_id,
                Grade.cell_id,
                Grade.auto_score,
                Grade.manual_score,
                Grade.needs_manual_grade,
            ).where(Grade.cell_id.in_([cell.id for cell in cells]))
        )
    }
    comments = {
        (where, cell): row
        for row, where, cell in session.execute(
            select(Comment.id, Comment.notebook_id, Comment.cell_id).where(
                Comment.cell_id.in_([cell.id for cell in asked])
            )
        )
    }
    before = {
        where: written
        for where, written in session.execute(
            text("SELECT notebook_id, written FROM course_result")
        )
    }

    added: dict[Any, list[dict[str, Any]]] = {
        kind: [] for kind in (SubmittedAssignment, SubmittedNotebook, Grade, Comment)
    }
    changed: dict[Any, list[dict[str, Any]]] = {
        kind: [] for kind in (SubmittedAssignment, Grade, Comment)
    }
    keys = []
    seconds = []
    for result in results:
        student = result["student"]
        where, when, extension = handed_in.get(student, ("", None, None))
        told = timestamps.get(result["key"])
        told = _utc(told) if told is not None else when
        if not where:
            where = new_uuid()
            added[SubmittedAssignment].append(
                {"id": where, "assignment_id": assignment, "student_id": student, "timestamp": told}
            )
        elif told != when:
            changed[SubmittedAssignment].append({"id": where, "timestamp": told})
        if where in notebooks:
            sheet = notebooks[where]
        else:
            sheet = new_uuid()
            added[SubmittedNotebook].append(
                {"id": sheet, "assignment_id": where, "notebook_id": notebook}
            )
        written = json.dumps(result["written"], sort_keys=True)
        digest = hashlib.sha256(written.encode()).hexdigest()
        rewritten = before.get(sheet) != digest
        for cell in cells:
            auto = _points(result, cell.name, cell.cell_type, cell.max_score)
            row, old, manual, waiting = grades.get((sheet, cell.id), ("", None, None, True))
            if manual is None:
                waiting = auto is None
            else:
                # A person's mark stays, and is to be looked at again when what it was for changed.
                waiting = waiting or (rewritten if cell.cell_type == "markdown" else auto != old)
            values = {"auto_score": auto, "needs_manual_grade": waiting}
            if row:
                changed[Grade].append({"id": row, **values})
            else:
                added[Grade].append(
                    {"id": new_uuid(), "notebook_id": sheet, "cell_id": cell.id, **values}
                )
        for cell in asked:
            silent = cell.name in result["empty"] or not (
                cell.name in result["answers"] or cell.name in result["written"]
            )
            values = {"auto_comment": "No response." if silent else None}
            if (sheet, cell.id) in comments:
                changed[Comment].append({"id": comments[sheet, cell.id], **values})
            else:
                added[Comment].append(
                    {"id": new_uuid(), "notebook_id": sheet, "cell_id": cell.id, **values}
                )
        keys.append({"notebook": sheet, "key": result["key"], "written": digest})
        until = due + extension if due is not None and extension is not None else due
        gone = (told - until).total_seconds() if told is not None and until is not None else 0.0
        seconds.append((sheet, student, max(0.0, gone)))
    for kind, rows in added.items():
        if rows:
            session.execute(insert(kind), rows)
    for kind, rows in changed.items():
        if rows:
            table = kind.__table__
            values = {key: bindparam(f"new_{key}") for key in rows[0] if key != "id"}
            session.connection().execute(
                update(table).where(table.c.id == bindparam("row")).values(values),
                [
                    {"row" if key == "id" else f"new_{key}": value for key, value in row.items()}
                    for row in rows
                ],
            )
    session.execute(
        text(
            "INSERT INTO course_result (notebook_id, key, written) VALUES (:notebook, :key, :written) "
            "ON CONFLICT (notebook_id) DO UPDATE SET key = excluded.key, written = excluded.written"
        ),
        keys,
    )
    return seconds


def _points(result: Mapping[str, Any], cell: str, cell_type: str, most: float) -> float | None:
    """Return what the checks gave for a grade cell; None when a person has to say."""
    if cell_type == "markdown":
        # nbgrader's rule: an answer that nobody wrote is worth nothing, and any other is read.
        return 0.0 if cell in result["empty"] or cell not in result["written"] else None
    points = [float(check["points"]) for check in result["checks"] if check["cell"] == cell]
    if not points:
        return None
    total = math.fsum(points)
    if not math.isfinite(total):
        raise ValueError(f"{result['student']!r} has {total} points for {cell!r}")
    return round(min(max(total, 0.0), float(most)), 6)


def _penalties(session: Any, course: Path, rows: Sequence[tuple[str, str, float]]) -> None:
    """Set each notebook's late penalty by nbgrader's plugin, within 0 and the score, as nbgrader does."""
    from nbgrader.api import SubmittedNotebook
    from sqlalchemy import bindparam, select, update

    late = [row for row in rows if row[2] > 0]
    scores: dict[str, float] = {}
    penalties: dict[str, float] = {}
    if late:
        from nbgrader.preprocessors import AssignLatePenalties

        step = AssignLatePenalties(config=_config(course))
        step.init_plugin()
        wanted = {sheet for sheet, _, _ in late}
        scores = {
            sheet: score
            for sheet, score in session.execute(
                select(SubmittedNotebook.id, SubmittedNotebook.score)
            )
            if sheet in wanted
        }
        for sheet, student, seconds in late:
            penalty = step.plugin_inst.late_submission_penalty(student, scores[sheet], seconds)
            if penalty is None:
                continue
            if not math.isfinite(penalty):
                raise ValueError(f"the late penalty of {student!r} is {penalty}")
            penalties[sheet] = min(max(float(penalty), 0.0), scores[sheet])
    table = SubmittedNotebook.__table__
    session.connection().execute(
        update(table)
        .where(table.c.id == bindparam("row"))
        .values(late_submission_penalty=bindparam("penalty")),
        [{"row": sheet, "penalty": penalties.get(sheet)} for sheet, _, _ in rows],
    )
