"""A course directory, from submissions to marks: what the commands ``course grade`` and so on do.

The directory is nbgrader's (``gradebook.db``, ``autograded/``, ``feedback/``), and holds the results, the
log and the class's pages beside it. One grader at a time works in it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from course_lib.grading import intake, job, rebuild, results, run
from course_lib.grading.jail import Limits


def root() -> Path:
    """Return the checkout that holds ``assignments/`` and ``solutions/``.

    Raises ``ValueError`` when the package runs from somewhere else, or from students' own tree.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / "assignments").is_dir() or not any(folder.glob("solutions/*/checks.py")):
        raise ValueError(
            f"no assignments with solutions in {folder}: releasing and grading need the teacher's "
            "checkout of the repository, with the package installed from it (make env)"
        )
    return folder


@contextlib.contextmanager
def alone(course: Path) -> Iterator[None]:
    """Hold the course directory for one grader. Raises ``ValueError`` when another one has it."""
    from filelock import FileLock, Timeout

    course.mkdir(parents=True, exist_ok=True)
    lock = FileLock(course / ".grading.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"another grader is at work in {course}: wait for it, or end it") from None
    try:
        yield
    finally:
        lock.release()


class Grading:
    """Grades what is found in ``paths``, as often as it is asked to; made for one course directory.

    ``root`` is the checkout with ``assignments/`` and ``solutions/``. After ``grade`` has been exhausted,
    ``warnings`` says which files were left out.
    """

    def __init__(
        self,
        course: Path,
        root: Path,
        workers: run.Pool | run.Cluster,
        *,
        limits: Limits | None = None,
    ) -> None:
        self.course = course
        self._root = root
        self._workers = workers
        self.assignments = {
            path.parent.name: job.Assignment.load(root, path.parent.name, limits)
            for path in sorted(root.glob("solutions/*/checks.py"))
        }
        self.warnings: list[str] = []

    def grade(self, paths: Sequence[Path]) -> Iterator[run.Graded]:
        """Grade what is new and yield what became of each submission; then record it all."""
        store = results.Store(self.course)
        masters = {name: assignment.master() for name, assignment in self.assignments.items()}
        found = intake.submissions(paths, masters)
        said: dict[tuple[str, str], intake.Submission] = {}

        def remembered() -> Iterator[intake.Submission]:
            for submission in found:
                who = (submission.assignment, submission.student)
                said[who] = replace(submission, data=b"")
                yield submission

        times: dict[str, datetime] = {}
        for graded in run.grade(store, self.assignments, remembered(), self._workers):
            if graded.result is not None and graded.timestamp is not None:
                times[graded.result["key"]] = graded.timestamp
            yield graded
        self.warnings = found.warnings
        people = {
            submission.student: _name(submission.name)
            for submission in said.values()
            if submission.name
        }
        notes: dict[str, dict[str, str]] = {}
        for (assignment, student), submission in said.items():
            if submission.note:
                notes.setdefault(assignment, {})[student] = submission.note
        record(store, self.course, self._root, times, people, notes)


def record(
    store: results.Store,
    course: Path,
    root: Path,
    times: Mapping[str, datetime],
    people: Mapping[str, tuple[str, str]],
    notes: Mapping[str, Mapping[str, str]],
) -> None:
    """Bring the gradebook, the notebooks for the form grader and the class's pages up to date.

    Does nothing, and loads nothing, where all current results are in the gradebook already.
    """
    from course_lib.grading import gradebook, similarity, summary

    facts = store.current()
    known = gradebook.recorded(course)
    new = {who: fact for who, fact in facts.items() if fact["key"] not in known}
    if not new:
        return
    names = sorted({name for name, _ in new})
    gradebook.prepare(course, root, names)
    fresh = [store.get(fact["key"]) for fact in new.values() if fact["key"] in store]
    masters = {name: _master(root, name) for name in names}
    for result in fresh:
        when = times.get(result["key"])
        gradebook.autograded(course, result, masters[result["assignment"]], timestamp=when)
    gradebook.record(course, fresh, timestamps=times, names=people)
    for name in names:
        everyone = store.results(name)
        stubs = {cell.id: cell.source for cell in masters[name].of("answer")}
        pairs = similarity.pairs({one["student"]: one["answers"] for one in everyone}, stubs)
        seconds = {
            student: float(fact.get("seconds", 0))
            for (assignment, student), fact in facts.items()
            if assignment == name
        }
        said = notes.get(name, {})
        told = [
            one | {"flags": [*one["flags"], said[one["student"]]]}
            if one["student"] in said
            else one
            for one in everyone
        ]
        summary.write(
            course, name, told, masters[name], seconds=seconds, pairs=pairs,
            people={student: " ".join(parts).strip() for student, parts in people.items()},
        )  # fmt: skip


def feedback(course: Path, root: Path, assignment: str | None = None) -> Iterator[Path]:
    """Write everybody's feedback page, with the marks a person gave; yield each.

    Raises ``ValueError`` for an assignment that there is not.
    """
    from course_lib.grading import feedback as pages
    from course_lib.grading import gradebook

    there = sorted(path.parent.name for path in root.glob("solutions/*/checks.py"))
    if assignment is not None and assignment not in there:
        raise ValueError(f"no assignment {assignment!r}; there are {', '.join(there)}")
    store = results.Store(course)
    marks = gradebook.marks(course) if gradebook.recorded(course) else []
    by_who = {(mark.assignment, mark.student): mark for mark in marks}
    masters: dict[str, rebuild.Master] = {}
    for result in store.results(assignment):
        name = result["assignment"]
        if name not in masters:
            masters[name] = _master(root, name)
        master = masters[name]
        manual: dict[str, tuple[float | None, str]] = {}
        mark = by_who.get((name, result["student"]))
        if mark is not None:
            for cell in master.of("question"):
                points = mark.questions.get(cell.id)
                manual[cell.id] = (None if mark.pending and not points else points, "")
            for grade_id, comment in mark.comments.items():
                manual[grade_id] = (manual.get(grade_id, (None, ""))[0], comment)
        yield pages.write(course, result, master, manual=manual)


def export(
    course: Path,
    to: str,
    *,
    assignment: str | None = None,
    roster: Path | None = None,
    out: Path | None = None,
) -> tuple[list[Path], list[str]]:
    """Write the marks for a platform; return the files, and the students that ``roster`` lacks.

    ``to`` is canvas, moodle, gradescope or csv. Raises ``ValueError`` where nothing is graded, or
    nothing of ``assignment``.
    """
    from course_lib.grading import export as exporting
    from course_lib.grading import gradebook

    if roster is not None and to not in ("canvas", "moodle"):
        raise ValueError(f"--roster is for canvas and moodle, not for {to}")
    if to == "gradescope":
        # With several students, each result is to lie in the folder of her submission.
        folder = out or course / "export" / "gradescope"
        paths = []
        store = results.Store(course)
        for result in store.results(assignment):
            name = f"{result['student']}-{result['assignment']}.json"
            data = json.dumps(exporting.gradescope(result), indent=1, ensure_ascii=False)
            results.write(folder / name, data.encode())
            paths.append(folder / name)
        if not paths:
            raise _nothing(course, assignment, {name for name, _ in store.current()})
        return paths, []
    everything = gradebook.marks(course)
    marks = [mark for mark in everything if assignment in (None, mark.assignment)]
    if not marks:
        raise _nothing(course, assignment, {mark.assignment for mark in everything})
    path = out or course / "export" / f"{to}{'-' + assignment if assignment else ''}.csv"
    if to == "csv":
        table = exporting.Table(exporting.plain(marks), [])
    else:
        table = (exporting.canvas if to == "canvas" else exporting.moodle)(marks, roster)
    results.write(path, table.text.encode())
    return [path], table.unknown


def _nothing(course: Path, assignment: str | None, graded: set[str]) -> ValueError:
    """Say that there is nothing to write, and what there would be."""
    if not graded:
        return ValueError(f"nothing is graded in {course}: 'course grade' comes first")
    return ValueError(
        f"nothing of {assignment!r} is graded in {course}; there is {', '.join(sorted(graded))}"
    )


def _master(root: Path, name: str) -> rebuild.Master:
    return rebuild.load(name, (root / "assignments" / name / f"{name}.ipynb").read_bytes())


def _name(name: str) -> tuple[str, str]:
    """Split a person's name as platforms write it into first and last name."""
    first, _, last = re.sub(r"\s+", " ", name).strip().rpartition(" ")
    return (first, last) if first else (last, "")
