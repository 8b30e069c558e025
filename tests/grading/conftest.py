"""A grader for one assignment, in the sandbox and in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from submissions import bundle

from course_lib.grading import job


@pytest.fixture(scope="session")
def fgsm() -> Iterator[Callable[..., dict[str, Any]]]:
    """Grade a submission of the assignment ``fgsm`` in the sandbox, in this process."""
    assignment = bundle("fgsm")

    def grade(data: bytes, student: str = "ada") -> dict[str, Any]:
        return job.grade(assignment, student, data)

    yield grade
    job.close()
