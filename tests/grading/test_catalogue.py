"""The checks are graded too: wrong answers lose what they should, right ones lose nothing."""

from __future__ import annotations

import inline_grader
import pytest
from submissions import ROOT, bundle

from course_lib.grading.catalogue import Right, Wrong

NAMES = sorted(path.parent.name for path in (ROOT / "solutions").glob("*/checks.py"))
WRONG = [(name, one) for name in NAMES for one in inline_grader.load(name, "catalogue").WRONG]
RIGHT = [(name, one) for name in NAMES for one in inline_grader.load(name, "catalogue").RIGHT]


def label(value: object) -> str | None:
    return value.name if isinstance(value, (Wrong, Right)) else None


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_is_large_enough(name: str) -> None:
    assert len([one for other, one in WRONG if other == name]) >= 12
    assert len([one for other, one in RIGHT if other == name]) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_points_of_checks_are_points_of_cells(name: str) -> None:
    checks = inline_grader.load(name, "checks").CHECKS
    master = bundle(name).master()
    for cell in master.of("grade"):
        assert sum(check.points for check in checks if check.cell == cell.id) == cell.points
    assert {check.cell for check in checks} == {cell.id for cell in master.of("grade")}
    assert len({check.name for check in checks}) == len(checks)
    assert len(master.of("question")) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_right_for_twenty_students(name: str) -> None:
    for student in range(20):
        lost = {
            check: verdict.message
            for check, verdict in inline_grader.grade(name, {}, f"s{student}").items()
            if not verdict.points
        }
        assert not lost, f"student s{student}"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_given_for_nothing(name: str) -> None:
    empty = {cell.id: cell.source for cell in bundle(name).master().of("answer")}
    verdicts = inline_grader.grade(name, empty)
    assert not any(verdict.points for verdict in verdicts.values())


@pytest.mark.parametrize(("name", "wrong"), WRONG, ids=label)
def test_a_wrong_answer_loses_what_it_should_and_says_why(name: str, wrong: Wrong) -> None:
    verdicts = inline_grader.grade(name, wrong.cells)
    lost = {check: verdict.message for check, verdict in verdicts.items() if not verdict.points}
    assert set(lost) == set(wrong.lost), lost
    told = [lost[wrong.on]] if wrong.on else list(lost.values())
    assert any(wrong.message in message for message in told), lost


@pytest.mark.parametrize(("name", "right"), RIGHT, ids=label)
def test_a_right_answer_written_differently_loses_nothing(name: str, right: Right) -> None:
    for student in "abcde":
        verdicts = inline_grader.grade(name, right.cells, student)
        lost = {check: verdict.message for check, verdict in verdicts.items() if not verdict.points}
        assert not lost, f"student {student}"
