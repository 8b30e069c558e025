"""Marks in the platforms' own files: nothing lost, nobody's marks at another's name, no formula."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from course_lib.grading import export
from course_lib.grading.gradebook import Mark

ADA = Mark(
    student="1815",
    assignment="fgsm",
    raw=17.5,
    of=24.0,
    penalty=1.25,
    score=16.25,
    timestamp=datetime(2026, 1, 2, 3, 4, 5),
    questions={"check_fgsm": 17.5, "question": 0.0},
    comments={"question": "Why <plain> grey?"},
    pending=True,
    first_name="Ada",
    last_name="Lovelace",
)
BEA = replace(ADA, student="bea7", score=24.0, first_name="", last_name="", comments={})


def table(text: str, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text), delimiter=delimiter))


def write(
    path: Path, lines: list[list[str]], delimiter: str = ",", coding: str = "utf-8-sig"
) -> Path:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows(lines)
    path.write_bytes(file.getvalue().encode(coding))
    return path


HEADER = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "FGSM (991)", "Current Score"]


def roster(
    path: Path, points: str = "24.00", delimiter: str = ",", coding: str = "utf-8-sig"
) -> Path:
    lines = [
        HEADER,
        ["", "", "", "", "", "Manual Posting", "(read only)"],
        ["    Points Possible", "", "", "", "", points, "(read only)"],
        ["Lovelace, Ada", "1815", "s1", "ada", "A", "", "55"],
        ["Lovelace, Ada", "1815", "s1", "ada", "B", "", "55"],
        ["Backus, Bea", "7", "s7", "bea7", "A", "3", "55"],
        ["Codd, Cem", "8", "s8", "cem8", "A", "9", "55"],
        ["Doe, Jo", "9", "s9", "jo9", "A", "", ""],
        ["Doe, Jo", "10", "s10", "jo10", "A", "", ""],
        ["Student, Test", "", "", "abc", "A", "", ""],
    ]
    return write(path, lines, delimiter, coding)


@pytest.mark.parametrize(
    ("delimiter", "coding"), [(",", "utf-8-sig"), (";", "utf-8"), ("\t", "utf-16")]
)
def test_canvas_file_is_filled(tmp_path: Path, delimiter: str, coding: str) -> None:
    path = roster(tmp_path / "canvas.csv", delimiter=delimiter, coding=coding)
    stranger = replace(BEA, student="nobody", score=1.0)
    told = export.canvas([ADA, BEA, stranger], path)
    before = table(path.read_bytes().decode(coding), delimiter)
    after = table(told.text, delimiter)
    assert told.unknown == ["nobody"]
    changed = [
        (old[0], old[4], new[5]) for old, new in zip(before, after, strict=True) if old != new
    ]
    assert changed == [
        *[
            ("Lovelace, Ada", "A", "16.25"),
            ("Lovelace, Ada", "B", "16.25"),
            ("Backus, Bea", "A", "24"),
        ]
    ]
    for old, new in zip(before, after, strict=True):
        assert old[:5] + old[6:] == new[:5] + new[6:]


@pytest.mark.parametrize(
    "student", ["1815", "ada", "S1", "lovelaceada", "Ada Lovelace", "ADA LOVELACE"]
)
def test_canvas_finds_a_student_by_id_and_name(tmp_path: Path, student: str) -> None:
    mark = replace(ADA, student=student, first_name="", last_name="")
    told = export.canvas([mark], roster(tmp_path / "canvas.csv"))
    assert told.unknown == []
    assert [line[5] for line in table(told.text)[3:6]] == ["16.25", "16.25", "3"]


def test_a_name_that_two_have_and_a_line_that_is_taken_find_nobody(tmp_path: Path) -> None:
    path = roster(tmp_path / "canvas.csv")
    twins = replace(ADA, student="x", first_name="Jo", last_name="Doe")
    named = replace(
        ADA, student="Ada Lovelace", score=1.0
    )  # a file of that name; Ada has handed in
    assert export.canvas([twins, named, ADA], path).unknown == ["Ada Lovelace", "x"]
    assert table(export.canvas([named, ADA], path).text)[3][5] == "16.25"


def test_canvas_gets_a_column_for_a_new_assignment(tmp_path: Path) -> None:
    pca = replace(ADA, assignment="pca", of=20.0, score=7.0)
    after = table(export.canvas([ADA, pca], roster(tmp_path / "canvas.csv")).text)
    assert [line[7] for line in after[:6]] == ["pca", "", "20", "7", "7", ""]


def test_canvas_without_a_roster() -> None:
    pca = replace(BEA, assignment="pca", of=20.0, score=7.0)
    told = table(export.canvas([ADA, BEA, pca]).text)
    assert told == [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "fgsm", "pca"],
        ["    Points Possible", "", "", "", "", "24", "20"],
        ["Lovelace, Ada", "1815", "", "", "", "16.25", ""],
        ["bea7", "", "", "bea7", "", "24", "7"],
    ]


def test_other_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"'FGSM \(991\)' in Canvas is out of 100 points.* out of 24"
    ):
        export.canvas([ADA], roster(tmp_path / "canvas.csv", points="100.0"))
    with pytest.raises(ValueError, match="'Participant 1815' in Moodle is out of 100 points"):
        export.moodle([ADA], worksheet(tmp_path / "moodle.csv", most="100.00"))


SHEET = [
    *("Identifier", "Full name", "Email address", "Status", "Grade", "Maximum Grade"),
    *("Grade can be changed", "Last modified (submission)", "Last modified (grade)"),
    "Feedback comments",
]


def worksheet(path: Path, most: str = "24.00") -> Path:
    when = "Friday, 2 January 2026, 3:04 AM"
    rest = [most, "Yes", when, "-"]
    lines = [
        SHEET,
        ["Participant 1815", "Ada Lovelace", "ada@uni.edu", "Submitted", "", *rest, ""],
        ["Participant 7", "Bea Backus", "bea7@uni.edu", "Submitted", "", *rest, "spoken"],
        ["Participant 8", "Cem Codd", "cem@uni.edu", "No submission", "", *rest, ""],
    ]
    return write(path, lines)


def test_moodles_worksheet_is_filled(tmp_path: Path) -> None:
    path = worksheet(tmp_path / "moodle.csv")
    bea = replace(BEA, student="bea7@uni.edu", comments={"question": "good"})
    told = export.moodle([ADA, bea, replace(BEA, student="99")], path)
    before, after = table(path.read_text("utf-8-sig")), table(told.text)
    assert told.unknown == ["99"]
    assert [line[4] for line in after] == ["Grade", "16.25", "24", ""]
    assert [line[9] for line in after[1:]] == ["Why &lt;plain&gt; grey?", "spoken", ""]
    for old, new in zip(before, after, strict=True):
        assert old[:4] + old[5:9] == new[:4] + new[5:9]  # "Last modified" must come back as it was


@pytest.mark.parametrize("student", ["1815", "Participant 1815", "ada@uni.edu", "Ada Lovelace"])
def test_moodle_finds_a_student(tmp_path: Path, student: str) -> None:
    mark = replace(ADA, student=student, first_name="", last_name="")
    told = export.moodle([mark], worksheet(tmp_path / "moodle.csv"))
    assert told.unknown == [] and table(told.text)[1][4] == "16.25"


def test_moodle_without_a_worksheet() -> None:
    told = export.moodle([ADA, replace(BEA, student="bea@uni.edu", assignment="pca")])
    assert table(told.text) == [
        ["username", "First name", "Last name", "Email address", "fgsm", "pca"],
        ["1815", "Ada", "Lovelace", "", "16.25", ""],
        ["bea@uni.edu", "", "", "bea@uni.edu", "", "24"],
    ]


def test_wrong_files_are_told(tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_bytes(b"")
    for path in (empty, worksheet(tmp_path / "moodle.csv")):
        with pytest.raises(ValueError, match="has no column 'Student': export the file"):
            export.canvas([ADA], path)
    with pytest.raises(ValueError, match="has no column 'Identifier'"):
        export.moodle([ADA], roster(tmp_path / "canvas.csv"))
    empty.write_bytes(b"\xff\x00\xfa")
    with pytest.raises(ValueError, match="is not text in UTF-8"):
        export.canvas([ADA], empty)
    double = write(tmp_path / "double.csv", [[*HEADER, "fgsm (3)"]])
    with pytest.raises(ValueError, match="2 columns named 'fgsm'"):
        export.canvas([ADA], double)
    with pytest.raises(ValueError, match="for one assignment, and these are fgsm, pca"):
        export.moodle([ADA, replace(ADA, assignment="pca")], worksheet(tmp_path / "moodle.csv"))


def test_short_lines_are_filled(tmp_path: Path) -> None:
    path = write(tmp_path / "canvas.csv", [HEADER, ["Lovelace, Ada", "1815", "s1", "ada"]])
    assert table(export.canvas([ADA], path).text)[1][5] == "16.25"


def test_plain_has_all() -> None:
    told = table(export.plain([ADA, replace(BEA, timestamp=None, questions={}, pending=False)]))
    assert dict(zip(told[0], told[1], strict=True)) == {
        **{"assignment": "fgsm", "student": "1815", "first_name": "Ada", "last_name": "Lovelace"},
        **{"email": "", "timestamp": "2026-01-02 03:04:05 UTC", "raw": "17.5", "penalty": "1.25"},
        **{"score": "16.25", "of": "24", "pending": "yes", "check_fgsm": "17.5", "question": "0"},
    }
    assert told[2][-3:] == ["", "", ""] and told[2][5] == ""


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
    st.sampled_from("=+-@\t\r＝＠"),
)
def test_no_cell_is_a_formula(text: str, first: str) -> None:
    mark = replace(ADA, student=first + text, first_name=first + text, email=first + text)
    for told in (export.plain([mark]), export.canvas([mark]).text, export.moodle([mark]).text):
        for cell in (cell for line in table(told) for cell in line):
            number = cell.lstrip("+-").replace(",", ".", 1)
            assert not cell.startswith(tuple("=@\t\r＝＠")), cell
            assert cell[:1] not in "+-" or cell in ("", "-") or float(number) >= 0, cell


@given(
    st.lists(
        st.sampled_from(
            [*";,|\t\r\n\"'=+-@＝＠ a1", ";=1+1", ';"=1+1"', ",,+", '"";-2', "\n@SUM(1)"]
        ),
        max_size=12,
    ).map("".join),
    st.sampled_from(";,|\t"),
)
def test_no_cell_is_a_formula_behind_another_separator(text: str, separator: str) -> None:
    mark = replace(ADA, student=f"a{text}", last_name=f"L{text}", first_name=f"F{text}")
    for told in (export.plain([mark]), export.canvas([mark]).text, export.moodle([mark]).text):
        read = list(csv.reader(io.StringIO(told, newline=""), delimiter=separator))
        read += [line.split(separator) for line in told.splitlines()]  # one that knows no quotes
        for cell in (cell for line in read for cell in line):
            assert not cell.startswith(tuple("=+-@＝＠")), cell


@pytest.mark.parametrize(
    "text",
    [
        "good, -1 for style",
        "x=1; y = 2",
        "a-b,c-d",
        "1,5",
        "-1,5",
        "Monday, 2 February 2026, 3:58 PM",
    ],
)
def test_what_is_no_formula_stays_as_it_is(text: str) -> None:
    mark = replace(ADA, first_name=text)
    assert table(export.plain([mark]))[1][2] == text


def test_formulas_that_the_platforms_file_holds_are_text_too(tmp_path: Path) -> None:
    bad = '=HYPERLINK("https://example.org?"&A1)'
    path = write(tmp_path / "canvas.csv", [HEADER, [bad, "1815", "-5", "+1 555", "", "", "-3.5"]])
    line = table(export.canvas([ADA], path).text)[1]
    assert line == [f"'{bad}", "1815", "-5", "'+1 555", "", "16.25", "-3.5"]


def test_gradescope() -> None:
    result = tiny.result("ada", (3.0, 0.0), flags=["to the teacher alone"])
    told = export.gradescope(result)
    assert (told["score"], told["output"]) == (3.0, "")
    assert [(test["score"], test["max_score"], test["status"]) for test in told["tests"]] == [
        (3.0, 3.0, "passed"),
        (0.0, 2.0, "failed"),
    ]
    assert told["tests"][1]["output"] == "The values are not those of the formula."
    formats = [value for key, value in told.items() if key.endswith("_format")]
    assert set(formats) == {"text"} and "to the teacher" not in str(told)
