"""Write marks as learning platforms read them: Canvas, Moodle, Gradescope, and a plain table.

Given the file that the platform exported, its rows and columns are kept and the marks filled in;
students in it without a submission stay as they are. A student's text never becomes a formula.

Chapter: book/teach/grading.md
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from course_lib.grading.gradebook import Mark

#: The largest file that a platform would export, in bytes.
MAX_BYTES = 50 << 20
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
#: What makes a spreadsheet read a cell as a formula; the wide forms are the same to some.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
#: Where a cell would end for a spreadsheet that is set to another separator than the file has, and what
#: it would read as a formula behind it, in quotes or not.
_INNER = re.compile('[;,|\t\r\n]"*(?=[=+@＝＋－＠-])')


class Table(NamedTuple):
    """A CSV file's text, and the students with a mark whom the platform's file does not have."""

    text: str
    unknown: list[str]


def canvas(rows: Iterable[Mark], roster: Path | None = None) -> Table:
    """Return marks as a CSV that Canvas' grade book imports.

    ``roster`` is the CSV that Canvas exported. A student is found by ``ID``, ``SIS Login ID``,
    ``SIS User ID``, ``Integration ID`` or e-mail address, else by a name that one student has. An
    assignment's column is the one of its name, with or without Canvas' number; where there is none it
    is added, and Canvas makes the assignment. Raises ``ValueError`` for a file that is no such export,
    and when Canvas has other points for an assignment than there are.
    """
    marks = list(rows)
    named = sorted({mark.assignment for mark in marks})
    most = {mark.assignment: mark.of for mark in marks}
    if roster is None:
        fixed = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
        table = [
            [*fixed, *named],
            ["    Points Possible", *[""] * 4, *(_number(most[n]) for n in named)],
        ]
        for student, found in _by_student(marks).items():
            login, number = ("", student) if student.isdigit() else (student, "")
            scores = [_number(found[name].score) if name in found else "" for name in named]
            table.append([_name(next(iter(found.values()))), number, "", login, "", *scores])
        return Table(_text(table), [])
    header, body, delimiter = _read(roster, ("Student", "ID"))
    columns = {name: _column(header, name) for name in named}
    for name in named:
        if columns[name] is None:
            columns[name] = len(header)
            header.append(name)
    width = len(header)
    body = [[*line, *[""] * (width - len(line))] for line in body]
    people = []
    for line in body:
        if line[0].strip() == "Points Possible":
            for name in named:
                at = columns[name] or 0
                _same_points(line[at], most[name], f"{header[at]!r} in Canvas")
                line[at] = line[at] or _number(most[name])
        elif line[header.index("ID")].strip():  # else a line of Canvas' own, as "Manual Posting"
            people.append(line)
    ids = ("ID", "SIS Login ID", "SIS User ID", "Integration ID", "Email")
    unknown = _fill(
        marks,
        people,
        [header.index(key) for key in ids if key in header],
        header.index("Student"),
        lambda line, mark: line.__setitem__(columns[mark.assignment] or 0, _number(mark.score)),
    )
    return Table(_text([header, *body], delimiter), unknown)


def moodle(rows: Iterable[Mark], worksheet: Path | None = None) -> Table:
    """Return marks as a CSV for Moodle: its grading worksheet filled in, or one for its grade import.

    ``worksheet`` is what *Download grading worksheet* gives for one assignment. A student is found by
    the number in ``Identifier``, by ``ID number``, ``Username`` or ``Email address``, else by a full
    name that one student has. Comments that a person wrote go into ``Feedback comments`` where nothing
    stands yet. Raises ``ValueError`` for marks of several assignments, a file that is no worksheet,
    and when Moodle has another maximum grade.
    """
    marks = list(rows)
    if worksheet is None:
        named = sorted({mark.assignment for mark in marks})
        table = [["username", "First name", "Last name", "Email address", *named]]
        for student, found in _by_student(marks).items():
            one = next(iter(found.values()))
            email = one.email or (student if "@" in student else "")
            scores = [_number(found[name].score) if name in found else "" for name in named]
            table.append([student, one.first_name, one.last_name, email, *scores])
        return Table(_text(table), [])
    several = sorted({mark.assignment for mark in marks})
    if len(several) > 1:
        raise ValueError(f"a worksheet is for one assignment, and these are {', '.join(several)}")
    header, body, delimiter = _read(worksheet, ("Identifier", "Grade"))
    body = [[*line, *[""] * (len(header) - len(line))] for line in body]
    at = {key: header.index(key) for key in header}

    def fill(line: list[str], mark: Mark) -> None:
        if "Maximum Grade" in at:
            told = line[at["Maximum Grade"]]
            _same_points(told, mark.of, f"{line[at['Identifier']]!r} in Moodle")
        line[at["Grade"]] = _number(mark.score)
        comments = "<br>".join(html.escape(text) for text in mark.comments.values() if text)
        if comments and "Feedback comments" in at and not line[at["Feedback comments"]].strip():
            line[at["Feedback comments"]] = comments

    ids = ("Identifier", "ID number", "Username", "Email address")
    unknown = _fill(
        marks,
        body,
        [at[key] for key in ids if key in at],
        at.get("Full name"),
        fill,
        numbered=at["Identifier"],
    )
    return Table(_text([header, *body], delimiter), unknown)


def gradescope(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return one result as the ``results.json`` of a Gradescope autograder.

    It tells checks, points and messages, and neither flags nor what the student's code printed.
    """
    return {
        "score": result["points"],
        "output": str(result["note"])[:2000],
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": [
            {
                "name": check["title"],
                "name_format": "text",
                "number": str(number),
                "score": check["points"],
                "max_score": check["of"],
                "status": "passed" if check["points"] >= check["of"] else "failed",
                "output": str(check["message"])[:2000],
                "output_format": "text",
                "visibility": "visible",
            }
            for number, check in enumerate(result["checks"], start=1)
        ],
    }


def plain(rows: Iterable[Mark]) -> str:
    """Return marks as a CSV with a line for each submission and a column for each marked cell."""
    marks = list(rows)
    cells = list(dict.fromkeys(cell for mark in marks for cell in mark.questions))
    keys = ("assignment", "student", "first_name", "last_name", "email", "timestamp")
    table = [[*keys, "raw", "penalty", "score", "of", "pending", *cells]]
    for mark in marks:
        when = mark.timestamp.isoformat(sep=" ") + " UTC" if mark.timestamp else ""
        told = [mark.assignment, mark.student, mark.first_name, mark.last_name, mark.email, when]
        told += [_number(value) for value in (mark.raw, mark.penalty, mark.score, mark.of)]
        told.append("yes" if mark.pending else "")
        told += [_number(mark.questions[cell]) if cell in mark.questions else "" for cell in cells]
        table.append(told)
    return _text(table)


def _by_student(marks: Iterable[Mark]) -> dict[str, dict[str, Mark]]:
    found: dict[str, dict[str, Mark]] = {}
    for mark in sorted(marks, key=lambda mark: (mark.student, mark.assignment)):
        found.setdefault(mark.student, {})[mark.assignment] = mark
    return found


def _name(mark: Mark) -> str:
    """Return a name as Canvas sorts it."""
    both = [part for part in (mark.last_name, mark.first_name) if part]
    return ", ".join(both) or mark.student


def _number(value: float) -> str:
    """Return points with at most two digits after the point, as platforms keep them."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _same_points(told: str, most: float, where: str) -> None:
    """Refuse marks out of another number of points than the platform has."""
    try:
        points = float(told.replace(",", "."))
    except ValueError:
        return  # it says nothing, or "(read only)"
    if abs(points - most) > 0.005:
        raise ValueError(
            f"{where} is out of {_number(points)} points, and these marks are out of {_number(most)}: "
            "set it there, and export the file again"
        )


def _column(header: Sequence[str], name: str) -> int | None:
    """Find an assignment's column: by its name, with Canvas' number behind it or without."""
    bare = [re.sub(r"\s*\(\d+\)\s*$", "", column).strip().casefold() for column in header]
    found = [at for at, column in enumerate(bare) if column == name.casefold()]
    if len(found) > 1:
        raise ValueError(f"Canvas' file has {len(found)} columns named {name!r}: leave one of them")
    return found[0] if found else None


def _fill(
    marks: Sequence[Mark],
    lines: Sequence[list[str]],
    ids: Sequence[int],
    named: int | None,
    fill: Callable[[list[str], Mark], None],
    *,
    numbered: int | None = None,
) -> list[str]:
    """Give each mark to its student's lines; return the students who have none.

    An id beats a name, and an earlier column a later one. What several people have, and a line that
    another student has already, finds nobody. ``numbered`` is a column of which the number counts.
    """
    tables: list[dict[str, list[int]]] = []
    for column in ids:
        table: dict[str, list[int]] = {}
        for at, line in enumerate(lines):
            key = line[column].strip().casefold()
            number = re.search(r"\d+$", key) if column == numbered else None
            for spelling in {key, number[0] if number else key} - {""}:
                table.setdefault(spelling, []).append(at)
        tables.append(table)
    names: dict[str, list[int]] = {}
    for at, line in enumerate(lines if named is not None else ()):
        for key in _spellings(line[named or 0]):
            names.setdefault(key, []).append(at)

    def by_id(mark: Mark) -> list[int]:
        keys = [key.casefold() for key in (mark.student, mark.email) if key]
        return next((table[key] for table in tables for key in keys if key in table), [])

    def by_name(mark: Mark) -> list[int]:
        keys = _spellings(mark.student) | _spellings(f"{mark.first_name} {mark.last_name}")
        return sorted({at for key in keys for at in names.get(key, ())})

    owner: dict[int, str] = {}
    missing = list(marks)
    for find in (by_id, by_name):
        left = []
        for mark in missing:
            found = find(mark)
            # In Canvas a student of two sections has two lines with the same ids.
            people = {tuple(lines[at][column] for column in ids) for at in found}
            if len(people) != 1 or any(owner.get(at, mark.student) != mark.student for at in found):
                left.append(mark)
                continue
            for at in found:
                owner[at] = mark.student
                fill(lines[at], mark)
        missing = left
    return sorted({mark.student for mark in missing})


def _spellings(name: str) -> set[str]:
    """Return what is the same in "Lovelace, Ada", "Ada Lovelace" and "lovelaceada"."""
    last, comma, first = name.partition(",")
    forms = [name, f"{first} {last}"] if comma else [name]
    packed = {re.sub(r"[\W_]", "", form.casefold()) for form in forms}
    return packed - {""}


def _read(path: Path, needed: Sequence[str]) -> tuple[list[str], list[list[str]], str]:
    """Read a platform's CSV; return header, lines and delimiter."""
    data = path.read_bytes()
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path} is {len(data) >> 20} MB large: is it the platform's CSV?")
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8: save it as the platform gave it") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        lines = [
            line for line in csv.reader(io.StringIO(text), delimiter=delimiter, strict=True) if line
        ]
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV file: {error}") from None
    header = [column.strip() for column in lines[0]] if lines else []
    missing = [column for column in needed if column not in header]
    if missing:
        raise ValueError(
            f"{path} has no column {missing[0]!r}: export the file from the platform, and give it as "
            "it is"
        )
    return header, lines[1:], delimiter


def _text(table: Iterable[Sequence[str]], delimiter: str = ",") -> str:
    """Return a table as CSV in which no cell is a formula."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\r\n")
    writer.writerows([_safe(cell) for cell in line] for line in table)
    return file.getvalue()


def _safe(cell: str) -> str:
    """Put a quote before what a spreadsheet would compute, wherever it splits the cell.

    A lone dash is Moodle's "never".
    """
    dangerous = cell.startswith(_FORMULA) and cell != "-" and not _NUMBER.fullmatch(cell)
    return ("'" if dangerous else "") + _INNER.sub(r"\g<0>'", cell)
