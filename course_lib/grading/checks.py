"""A check: what is sent to the student's function, and how what comes back is judged.

Checks live in ``solutions/<name>/checks.py`` and run in the grader's own process. The student's
process gets inputs and gives arrays; the reference is computed here, on the same inputs, and never
leaves. What a known misunderstanding would have given is computed here too, so that a student reads
what went wrong and not that something did.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: What goes to a probe: arrays, numbers, strings, booleans, None, by argument name.
Sent = Mapping[str, Any]
#: What comes back, or should: arrays by name.
Answer = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Failure:
    """A call that gave no arrays: why, in the words of ``child`` or of the sandbox.

    ``kind`` is the name of a built-in exception, or ``missing``, ``returned``, ``timeout``,
    ``memory``, ``crashed`` or ``wire``; ``detail`` a name or a type; ``cell`` and ``line`` where in the
    student's answer it happened.
    """

    kind: str
    detail: str = ""
    cell: str = ""
    line: int = 0


#: Calls a probe in the student's process.
Call = Callable[[str, Sent], Mapping[str, np.ndarray] | Failure]


@dataclass(frozen=True)
class Mistake:
    """A misunderstanding, and how it shows.

    ``message`` says to the student what to think about, not what to type. Either ``gives``, called
    with what was sent, returns what the misunderstanding would return (it is compared like the
    reference), or ``seen(sent, got, want)`` recognises it in what came back. ``want`` is empty for a
    check with a ``judge``.
    """

    message: str
    gives: Callable[..., Answer] | None = None
    seen: Callable[[Sent, Answer, Answer], bool] | None = None

    def __post_init__(self) -> None:
        if (self.gives is None) == (self.seen is None):
            raise ValueError(f"a mistake has 'gives' or 'seen', not both or none: {self.message!r}")


@dataclass(frozen=True)
class Check:
    """One thing that a student's function must do, worth ``points``; all of them, or none.

    ``draw(rng)`` makes the inputs, anew for every trial and student. ``probe`` names the function in
    ``probe.py`` that gets them in the student's process. Then one of two:

    - ``expect(**sent)`` returns what is right, in as many digits as it can; what came back must have
      its names and shapes and agree within ``rtol`` and ``atol``. Where several answers are right it
      returns a list of them.
    - ``judge(sent, got)`` returns None when what came back is right, else a message;
      ``shapes(**sent)`` says first which arrays of which shapes must come back.

    ``cell`` is the grade cell whose points these are.
    """

    cell: str
    name: str
    title: str
    points: float
    probe: str
    draw: Callable[[np.random.Generator], dict[str, Any]]
    expect: Callable[..., Answer | Sequence[Answer]] | None = None
    judge: Callable[[Sent, Answer], str | None] | None = None
    shapes: Callable[..., Mapping[str, tuple[int, ...]]] | None = None
    mistakes: Sequence[Mistake] = ()
    trials: int = 3
    rtol: float = 1e-3
    atol: float = 1e-5

    def __post_init__(self) -> None:
        if (self.expect is None) == (self.judge is None):
            raise ValueError(f"check {self.name!r} needs 'expect' or 'judge', and not both")
        if (self.judge is None) != (self.shapes is None):
            raise ValueError(f"check {self.name!r}: 'judge' and 'shapes' go together")
        if self.points <= 0 or self.trials < 1:
            raise ValueError(f"check {self.name!r} needs points and trials above 0")


@dataclass(frozen=True)
class Verdict:
    """What a check came to: points earned, and what the student reads (nothing when all is well)."""

    points: float
    message: str = ""
    failure: Failure | None = None


def seed(student: str, check: str, trial: int) -> list[int]:
    """Return the seed of one trial: another one for every student, check and trial."""
    return [zlib.crc32(student.encode()), zlib.crc32(check.encode()), trial]


def examine(check: Check, call: Call, student: str) -> Verdict:
    """Run a check's trials through ``call``; the first that fails decides."""
    for trial in range(check.trials):
        sent = check.draw(np.random.default_rng(seed(student, check.name, trial)))
        got = call(check.probe, sent)
        if isinstance(got, Failure):
            return Verdict(0.0, explain(got), got)
        with np.errstate(all="ignore"):  # numbers from outside may overflow
            message = _judge(check, sent, got)
        if message is not None:
            return Verdict(0.0, message)
    return Verdict(check.points)


#: An answer with this many times the numbers that are wanted is no misunderstanding that we know.
_LARGE = 64
_WRONG = "The values are not those of the formula."


def _judge(check: Check, sent: Sent, got: Answer) -> str | None:
    """Return None when what came back is right, else what to tell the student."""
    got = {name: array.astype(np.float64) for name, array in got.items()}
    if check.expect is not None:
        answers = check.expect(**sent)
        wanted = [answers] if isinstance(answers, Mapping) else list(answers)
        if any(_agree(got, want, check) for want in wanted):
            return None
        want: Answer = wanted[0]
        shapes = {name: np.shape(value) for name, value in want.items()}
    else:
        assert check.judge is not None and check.shapes is not None
        want, shapes = {}, dict(check.shapes(**sent))
        if _misshapen(got, shapes) is None:
            try:
                message = check.judge(sent, got)
            except Exception:  # no judge foresees all numbers
                message = _WRONG
            if message is None:
                return None
    size = max([int(np.prod(shape)) for shape in shapes.values()] or [1])
    small = all(array.size <= _LARGE * max(size, 16) for array in got.values())
    for mistake in check.mistakes if small else ():
        if _recognised(mistake, check, sent, got, want):
            return mistake.message
    if check.judge is not None and _misshapen(got, shapes) is None:
        return message
    return _misshapen(got, shapes) or _WRONG


def _recognised(mistake: Mistake, check: Check, sent: Sent, got: Answer, want: Answer) -> bool:
    try:
        if mistake.gives is not None:
            return _agree(got, mistake.gives(**sent), check)
        assert mistake.seen is not None
        return bool(mistake.seen(sent, got, want))
    except Exception:
        return False  # a shape or a name that this mistake does not make


def _misshapen(got: Answer, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    for name, shape in shapes.items():
        if name not in got:
            return f"Nothing came back for {name}."
        if got[name].shape != tuple(shape):
            return f"{name} has the shape {got[name].shape}; it should be {tuple(shape)}."
        if not np.isfinite(got[name]).all():
            return f"{name} contains NaN or infinity."
    return None


def _agree(got: Answer, want: Answer, check: Check) -> bool:
    return _misshapen(got, {name: np.shape(value) for name, value in want.items()}) is None and all(
        np.allclose(
            got[name],
            np.asarray(value, dtype=np.float64),
            rtol=check.rtol,
            atol=check.atol,
        )
        for name, value in want.items()
    )


#: What an exception in a student's function most often means. Its own text stays where it was
#: raised: it could carry what the grader sent.
HINTS = {
    "NotImplementedError": "This part has not been answered yet.",
    "AssertionError": "An assert in your code did not hold for this input.",
    "AttributeError": "Something does not have the attribute you ask for.",
    "ImportError": "A module that you import is not there when your work is graded.",
    "ModuleNotFoundError": "A module that you import is not there when your work is graded.",
    "IndexError": "An index is out of range: does your code expect a fixed batch size?",
    "KeyError": "A key is not there.",
    "MemoryError": "It ran out of memory.",
    "NameError": "A name is used that is not defined: use the function's arguments, and run your "
    "notebook from the top in a fresh kernel.",
    "RecursionError": "It calls itself without end.",
    "RuntimeError": "PyTorch refused the operation: do shapes, dtypes and gradients fit?",
    "TypeError": "A function was called with arguments that do not fit it.",
    "UnboundLocalError": "A variable is used before it gets a value.",
    "ValueError": "A function got a value that it does not accept.",
    "ZeroDivisionError": "Something is divided by zero.",
}


def explain(failure: Failure) -> str:
    """Say to the student what a failed call means."""
    where = f" (line {failure.line} of your answer)" if failure.line else ""
    if failure.kind == "missing":
        return f"{failure.detail} is not defined: the cell that defines it did not run to its end."
    if failure.kind == "returned":
        if failure.detail == "NoneType":
            return "Your function returned None: is a return missing?"
        return (
            f"Your function returned a value of type {failure.detail}, where numbers are expected."
        )
    if failure.kind == "timeout":
        return "It took too long and was stopped: is there a loop that never ends?"
    if failure.kind == "memory":
        return "It used more memory than there is for one submission."
    if failure.kind == "crashed":
        return "The process that ran your code ended in the middle of this call."
    if failure.kind == "wire":
        return "What came back could not be read as numbers."
    if failure.kind == "NotImplementedError":
        return HINTS[failure.kind]
    hint = HINTS.get(failure.kind, "")
    return f"Your code raised {failure.kind}{where}. {hint}".strip()
