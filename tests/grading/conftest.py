"""A grader for one assignment, in the sandbox and in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from submissions import LIMITS, bundle

from course_lib.grading import job
from course_lib.grading.jail import Limits


def grader(limits: Limits) -> Iterator[Callable[..., dict[str, Any]]]:
    assignment = bundle("fgsm", limits)

    def grade(data: bytes, student: str = "ada") -> dict[str, Any]:
        return job.grade(assignment, student, data)

    yield grade
    job.close()


@pytest.fixture(scope="session")
def fgsm() -> Iterator[Callable[..., dict[str, Any]]]:
    """Grade a submission of the assignment ``fgsm`` in the sandbox, in this process."""
    yield from grader(LIMITS)


@pytest.fixture(scope="session")
def patient() -> Iterator[Callable[..., dict[str, Any]]]:
    """Do the same with time enough that on a slow machine, too, something else ends a submission."""
    yield from grader(replace(LIMITS, cells=60.0, call=60.0, total=180.0))
