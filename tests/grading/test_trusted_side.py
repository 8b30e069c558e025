"""A second round of attacks: on the grader's own side, on its limits, and on its checks.

``test_hostile.py`` attacks from a student's cell; here frames, numbers, notebooks and memory are made
to hurt the process that trusts nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import inline_grader
import numpy as np
import pytest
from submissions import Notebook, bundle, find, submission

from course_lib.grading import checks, job, rebuild, sandbox, wire
from course_lib.grading.jail import Limits
from course_lib.grading.job import to_bytes
from course_lib.grading.sandbox import Child, Sandbox

pytestmark = pytest.mark.alone

Grade = Callable[..., dict[str, Any]]


def _extra(source: str) -> Callable[[Notebook], object]:
    """Put a cell of the student's own before all others."""
    cell = {"cell_type": "code", "metadata": {}, "source": source, "outputs": []}
    return lambda notebook: notebook["cells"].insert(0, cell)


# ------------------------------------------------------------------------------------------- frames


def _tensors(head: Any, data: bytes = b"") -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


def _one(dtype: str, shape: Any, size: int) -> bytes:
    return _tensors({"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}, bytes(size))


def _received(text: bytes, blob: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    ours, theirs = socket.socketpair()
    frame = struct.pack("<II", len(text), len(blob)) + text + blob
    writer = threading.Thread(target=theirs.sendall, args=(frame,), daemon=True)
    with ours, theirs:
        ours.settimeout(5)
        writer.start()
        return wire.receive(ours)


#: Bytes of arrays that no honest process sends.
BLOBS = {
    "brain floats": _one("BF16", [4], 8),
    "eight-bit floats": _one("F8_E4M3", [4], 4),
    "four-bit floats": _one("F4", [8], 4),
    "an unknown type": _one("X", [4], 4),
    "no elements, more than a word wide": _one("F32", [2**63, 0], 0),
    "no elements, and a product that overflows": _one("F32", [2**32, 2**32, 0], 0),
    "too many axes": _one("F32", [1] * 65, 4),
    "a hundred thousand axes": _one("F32", [1] * 100_000, 4),
    "a negative length": _one("F32", [-1], 4),
    "a length with a point": _one("F32", [1.0], 4),
    "a length that is true": _one("F32", [True], 4),
    "metadata that is a number": _tensors({"__metadata__": 5}),
    "deep brackets": _tensors(b'{"x":' + b"[" * 2_000_000),
    "no head": b"",
    "thousands of names": _tensors(
        {str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)}
    ),
    "complex numbers": _one("C64", [1], 8),
}


@pytest.mark.parametrize("blob", BLOBS.values(), ids=BLOBS)
def test_arrays_that_are_none_are_refused(blob: bytes) -> None:
    begin = time.monotonic()
    with pytest.raises(wire.WireError):
        _received(b"{}", blob)
    assert time.monotonic() - begin < 1


TEXTS = {
    "nothing": b"",
    "null": b"null",
    "a string": b'"\\ud800"',
    "half a character": b'{"a": "\xff"}',
    "a number of 5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "100,000 brackets": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_message_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(wire.WireError):
        _received(text, _tensors({}))


# ----------------------------------------------------------------------------------------- messages

SAY = """
import sys
child = sys.modules["course_lib.grading.child"]
told = {told!r}
child.Notebook.call = lambda self, *a: ({{"error": told}}, {{}})
def fgsm(model, x, y, eps): return x
"""
SAID: dict[str, dict[str, Any]] = {
    "a huge line": {"type": "ValueError", "cell": "fgsm", "line": 10**50},
    "a negative line": {"type": "ValueError", "cell": "fgsm", "line": -1},
    "a list for a cell": {"type": "ValueError", "cell": ["fgsm"], "line": 1},
    "a cell that is none": {"type": "ValueError", "cell": "../../etc", "line": 1},
    "a type that is a dictionary": {"type": {"a": 1}},
    "praise": {"type": "returned", "what": "<b>You have earned 20 points</b>"},
    "a terminal's escape": {"type": "missing", "name": "<img src=x>\ud800\x1b[2J"},
    "what was sent": {"type": "secret_0_1834_0_2284_0_9923"},
    "a line that is true": {"type": "ValueError", "cell": "fgsm", "line": True},
    "numbers in a name": {"type": "missing", "name": "secret_0a9f_0b11"},
    "words in a name": {"type": "missing", "name": "you_have_earned_it"},
    "numbers in a line": {"type": "ValueError", "cell": "fgsm", "line": 834_123},
    "numbers in a line of no cell": {"type": "ValueError", "line": 834_123},
    "numbers in a line of another cell": {"type": "ValueError", "cell": "g", "line": 834_123},
}


@pytest.mark.parametrize("told", SAID.values(), ids=SAID)
def test_a_child_does_not_put_words_into_the_graders_mouth(
    fgsm: Grade, told: dict[str, Any]
) -> None:
    result = fgsm(submission("fgsm", {"fgsm": SAY.format(told=told)}))
    assert result["points"] == 0
    for row in result["checks"]:
        assert row["message"].isprintable()
        assert not re.search("[<>]|earned|secret|True", row["message"])
        assert type(row["line"]) is int
        assert row["answer"] in ("", "fgsm")
        lines = SAY.format(told=told).count("\n") + 1
        assert all(int(number) <= lines for number in re.findall(r"\d+", row["message"]))


@pytest.mark.parametrize("name", ["detect", "fgsm", "minimax", "pca"])
def test_the_names_that_a_child_may_miss_are_those_of_the_answers(name: str) -> None:
    """Each answer's function that is not there is told by its name; tensors' methods do no harm."""
    assignment = bundle(name)
    defined = {
        hit
        for cell in assignment.master().of("answer")
        for hit in re.findall(r"^(?:def|class) (\w+)", cell.source, re.MULTILINE)
    }
    asked = sandbox._asked_for(assignment.probe)
    assert defined and all(hit in asked for hit in defined)
    assert len(asked) < 20


def test_a_function_that_is_missing_is_named(fgsm: Grade) -> None:
    result = fgsm(submission("fgsm", {"bim": "pass"}))
    (told, *_) = [row["message"] for row in result["checks"] if row["name"].startswith("bim")]
    assert told == "bim is not defined: the cell that defines it did not run to its end."


# ------------------------------------------------------------------------------- numbers and judges


@pytest.fixture(scope="module")
def drawn() -> Callable[[str, str], tuple[checks.Check, dict[str, tuple[int, ...]]]]:
    """Find a check by name, and the arrays that it wants back."""

    def find_check(name: str, wanted: str) -> tuple[checks.Check, dict[str, tuple[int, ...]]]:
        check = next(c for c in inline_grader.load(name, "checks").CHECKS if c.name == wanted)
        sent = check.draw(np.random.default_rng(checks.seed("ada", wanted, 0)))
        if check.expect is None:
            assert check.shapes is not None
            return check, dict(check.shapes(**sent))
        answers = check.expect(**sent)
        listed = answers if isinstance(answers, (list, tuple)) else [answers]
        return check, {key: np.shape(v) for answer in listed for key, v in answer.items()}

    return find_check


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("fgsm", "fgsm_step"),
        ("fgsm", "targeted_step"),
        ("fgsm", "bim_iterates"),
        ("fgsm", "bim_each"),
        ("detect", "attack"),
        ("detect", "attack_leaves_x"),
        ("detect", "spectrum"),
        ("detect", "split_share"),
        ("detect", "null_measured"),
        ("detect", "alarms"),
        ("minimax", "d_step"),
        ("minimax", "d_again"),
        ("minimax", "g_again"),
        ("pca", "fit_components"),
        ("pca", "angle"),
    ],
)
def test_a_long_answer_is_not_multiplied(drawn: Any, name: str, wanted: str) -> None:
    check, shapes = drawn(name, wanted)
    got = {key: np.ones((100_000, *[1] * len(s)), np.uint8) for key, s in shapes.items()}
    tracemalloc.start()
    try:
        verdict = checks.examine(check, lambda *_: got, "ada")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert verdict.points == 0
    assert peak < 10 << 20


#: Arrays of the right shape and the wrong kind.
KINDS: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
    "true": lambda shape: np.ones(shape, np.bool_),
    "false": lambda shape: np.zeros(shape, np.bool_),
    "unsigned": lambda shape: np.full(shape, 2**64 - 1, np.uint64),
    "the smallest integer": lambda shape: np.full(shape, -(2**63), np.int64),
    "huge": lambda shape: np.full(shape, 1e300),
    "denormal": lambda shape: np.full(shape, 1e-310),
    "half": lambda shape: np.full(shape, 65504, np.float16),
    "complex": lambda shape: np.full(shape, 1 + 1j, np.complex64),
    "infinity": lambda shape: np.full(shape, -np.inf),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("pca", "ae_codes"),
        ("pca", "ae_bias"),
        ("pca", "ae_learns"),
        ("pca", "angle_same"),
        ("pca", "fit_components"),
        ("detect", "spectrum_level"),
        ("detect", "detector_alone"),
        ("detect", "attack_range"),
        ("detect", "split_apart"),
        ("detect", "split_chance"),
        ("detect", "threshold"),
        ("detect", "alarms_at"),
        ("detect", "null_shuffled"),
        ("detect", "null_new"),
        ("detect", "null_measured"),
        ("minimax", "d_leaves"),
        ("minimax", "g_leaves"),
        ("fgsm", "fgsm_alone"),
    ],
)
@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
def test_a_judge_takes_any_numbers(
    drawn: Any, name: str, wanted: str, kind: Callable[[tuple[int, ...]], np.ndarray]
) -> None:
    check, shapes = drawn(name, wanted)
    if wanted.endswith("_leaves"):
        shapes |= dict.fromkeys(("next", "alone", "alone_again"), (5,))
    verdict = checks.examine(check, lambda *_: {k: kind(s) for k, s in shapes.items()}, "ada")
    assert verdict.points == 0
    assert verdict.message


AUTOENCODER = """
class LinearAutoencoder(nn.Module):
    def __init__(self, n, k): super().__init__(); self.k = k
    def encode(self, x): return {encode}
    def decode(self, c): return {decode}
    def forward(self, x): return {forward}
"""
#: Answers that do not do what is asked: by assignment, cell and points that they may earn at most.
LAZY = {
    "a detector that counts": (
        "detect",
        "fit_detector",
        "def fit_detector(features, labels): return lambda t: torch.arange(len(t)).float()",
        0,
    ),
    "a detector that says nothing": (
        "detect",
        "fit_detector",
        "def fit_detector(features, labels): return lambda t: torch.zeros(len(t))",
        0,
    ),
    "a detector that adds up": (
        "detect",
        "fit_detector",
        "def fit_detector(features, labels): return lambda t: t.abs().sum(1)",
        0,
    ),
    "an autoencoder that learns nothing": (
        "pca",
        "LinearAutoencoder",
        AUTOENCODER.format(
            encode="x[:, : self.k]",
            decode="c",
            forward="(m := x.mean(0)) + (x - m) @ (v := torch.linalg.svd(x - m)[2][: self.k]).T @ v",
        ),
        1,  # it is linear
    ),
    "an autoencoder of noise": (
        "pca",
        "LinearAutoencoder",
        AUTOENCODER.format(
            encode="torch.randn(len(x), self.k)", decode="torch.randn(len(c), 7)", forward="x"
        ),
        0,
    ),
    "an autoencoder that gives x back": (
        "pca",
        "LinearAutoencoder",
        AUTOENCODER.format(encode="x[:, : self.k]", decode="c", forward="x"),
        0,
    ),
    "an angle for lines alone": (
        "pca",
        "subspace_angle",
        "def subspace_angle(a, b):\n"
        "    if len(a) > 1: return torch.tensor(0.0)\n"
        "    return torch.acos((a[0] @ b[0] / a.norm() / b.norm()).abs().clamp(0, 1))",
        0,
    ),
    "one error rate": (
        "detect",
        "equal_error_rate",
        "def equal_error_rate(scores, labels): return 0.5",
        0,
    ),
    "a split of nobody": (
        "detect",
        "split_people",
        "def split_people(person, share, generator): return person != person",
        0,
    ),
    "a split by number": (
        "detect",
        "split_people",
        "def split_people(person, share, generator): return person % 3 == 0",
        2,  # nobody is on both sides
    ),
    "one threshold": (
        "detect",
        "threshold_at",
        "def threshold_at(real_scores, rate): return 2.0",
        0,
    ),
    "a tenth accused": (
        "detect",
        "false_alarms",
        "def false_alarms(score, threshold, images, changes): return dict.fromkeys(changes, 0.1)",
        0,
    ),
    "nulls from a coin": (
        "detect",
        "null_experiment",
        "def null_experiment(*a): return torch.rand(a[6], generator=a[7])",
        0,
    ),
    "an attack by brightness": (
        "detect",
        "attack_detector",
        "def attack_detector(detector, x, eps): return (x - eps).clamp(0, 1)",
        0,
    ),
    "the rows themselves": (
        "pca",
        "pca_fit",
        "def pca_fit(x, k): return x[0], x[:k], torch.ones(k) / k",
        0,
    ),
    "a constant angle": ("pca", "subspace_angle", "def subspace_angle(a, b): return 0.0", 0),
    "a step that does nothing": (
        "minimax",
        "generator_step",
        "def generator_step(*a): return 0.0",
        0,
    ),
    "a training that does nothing": (
        "minimax",
        "train",
        "def train(*a, **k): return [(0.0, 0.0)] * 2",
        0,
    ),
    "a coin for an attack": (
        "fgsm",
        "fgsm",
        "def fgsm(model, x, y, eps): return (x + eps * torch.randn_like(x).sign()).clamp(0, 1)",
        0,
    ),
}


@pytest.mark.parametrize(("name", "cell", "code", "most"), LAZY.values(), ids=LAZY)
def test_nothing_is_earned_by_nothing(name: str, cell: str, code: str, most: float) -> None:
    stub = f"def {cell}(*a, **k): raise NotImplementedError"
    without = sum(v.points for v in inline_grader.grade(name, {cell: stub}).values())
    for student in ("ada", "bob"):
        verdicts = inline_grader.grade(name, {cell: code}, student)
        earned = {key: v.points for key, v in verdicts.items() if v.points}
        assert sum(earned.values()) <= without + most, earned


# --------------------------------------------------------------------------------- notebooks that weigh


def _ids(count: int) -> Callable[[Notebook], object]:
    return lambda notebook: notebook["cells"].extend(
        {"cell_type": "code", "metadata": {"nbgrader": {"grade_id": f"{i:050}"}}, "source": ""}
        for i in range(count)
    )


USES = "def fgsm(model, x, y, eps): return x * a0"
#: A notebook that takes the grader's own process long, much, or down. Name -> answer, edit.
HEAVY: dict[str, tuple[str, Callable[[Notebook], object]]] = {
    "a long chain of attributes": ("x" + ".a" * 60_000, lambda nb: None),
    "many minus signs": ("x = " + "-" * 90_000 + "1", lambda nb: None),
    "nested lambdas": ("x = " + "lambda: " * 2000 + "1", lambda nb: None),
    "nested f-strings": ("x = " + "f'{" * 100 + "1" + "}'" * 100, lambda nb: None),
    "a zero byte": ("x = 1\0\n" + USES, lambda nb: None),
    "a format of brackets": (
        USES,
        lambda nb: nb.update(nbformat=json.loads("[" * 900 + "]" * 900)),
    ),
    "a thousand elifs": (
        "if 0: pass\n" + "".join(f"elif {i}: pass\n" for i in range(1500)),
        lambda nb: None,
    ),
    "a thousand elifs beside the answers": (
        "",
        _extra("if 0: pass\n" + "".join(f"elif {i}: pass\n" for i in range(1500))),
    ),
    "a helper that is a long sum": (USES, _extra("a0 = " + "+".join("1" * 500))),
    "a helper that is a long number": (USES, _extra("a0 = 0x" + "f" * 10_000)),
    "a chain of helpers": (USES, _extra("".join(f"a{i}=a{i + 1}\n" for i in range(3000)))),
    "a long cell beside the answers": ("", _extra("a\n" * 60_000)),
    "thousands of foreign ids": ("", _ids(4000)),
}


@pytest.mark.parametrize(("answer", "edit"), HEAVY.values(), ids=HEAVY)
def test_no_notebook_is_heavy(answer: str, edit: Callable[[Notebook], object]) -> None:
    master = bundle("fgsm").master()
    data = submission("fgsm", {"fgsm": answer} if answer else {}, edit)
    begin = time.process_time()
    built = rebuild.rebuild(master, rebuild.parse(data))
    assert time.process_time() - begin < 5  # without its bounds: minutes, or no end
    assert sum(map(len, built.flags)) < 20_000


#: Cells with magics that take IPython's reading a time that grows faster than they do.
MAGICS = {
    "many in a long cell": "x = !ls\n" * 50 + "a = [1, 2, 3]\n" * 200,
    "each before an open bracket": "!(\n" * 300,
    "a question after many spaces": "!" + " " * 400 + "?\n!ls",
}


@pytest.mark.parametrize("source", MAGICS.values(), ids=MAGICS)
def test_reading_magics_takes_a_few_steps_for_every_line(source: str) -> None:
    master = bundle("fgsm").master()
    notebook = rebuild.parse(submission("fgsm", {"fgsm": source}))
    rebuild.rebuild(master, notebook)  # what is imported once is not counted
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(count)
    try:
        rebuild.rebuild(master, notebook)
    finally:
        sys.setprofile(None)
    assert steps < 10_000 + 300 * source.count("\n")


# --------------------------------------------------------------------------------------- the sandbox

#: Little memory; and time enough that a slow machine is never taken for a loop without end.
TIGHT = Limits(cells=60.0, call=60.0, total=180.0, memory=200 << 20)


@pytest.fixture(scope="module")
def tight() -> Iterator[Sandbox]:
    """A sandbox with little memory."""
    with Sandbox(preload=["torch"], limits=TIGHT) as sandbox:
        yield sandbox


def _in_each(count: int, code: str, before: str = "") -> str:
    return (
        f"import mmap, os, socket, struct, sys, time\n{textwrap.dedent(before)}\n"
        f"for _ in range({count}):\n    if os.fork() == 0:\n"
        f"{textwrap.indent(textwrap.dedent(code).strip(), ' ' * 8)}\n        time.sleep(60)\n"
    )


TOUCH = "\nfor i in range(0, len(a), 4096): a[i] = 1"
#: More than 200 MB in ways that a sum of private pages does not see.
HOARDS = {
    "shared pages": _in_each(3, f"a = mmap.mmap(-1, 100 << 20){TOUCH}") + "time.sleep(60)",
    "programs of their own": _in_each(
        3,
        "os.execv(sys.executable, ['p', '-I', '-S', '-c', "
        "'import time; a = bytearray(100 << 20); a[::4096] = bytes(len(a[::4096])); time.sleep(60)'])",
    )
    + "time.sleep(60)",
}


def test_what_waits_in_sockets_stays_small(tight: Sandbox) -> None:
    """It is the kernel's memory and counted for nobody: few descriptors, and none of them widened."""
    code = """
        import resource, socket
        a, b = socket.socketpair()
        try: a.setsockopt(1, 7, 1 << 20)
        except PermissionError: raise RuntimeError(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    """
    with tight.child() as child:
        told = child.cells([("x", textwrap.dedent(code))])
    assert isinstance(told, dict) and told["x"].detail == "64"


@pytest.mark.parametrize("code", HOARDS.values(), ids=HOARDS)
def test_memory_is_counted_wherever_it_lies(tight: Sandbox, code: str) -> None:
    with tight.child() as child:
        told = child.cells([("x", code)])
    assert told == checks.Failure("memory")


def test_memory_is_counted_while_bytes_drip(tight: Sandbox) -> None:
    """A frame that comes in byte by byte keeps the grader from ever looking at the memory."""
    drip = """
        os.write(3, struct.pack('<II', 100_000, 0) + b'{')
        if os.fork() == 0:
            while True: time.sleep(0.02); os.write(3, b' ')
        time.sleep(0.2)
    """
    code = _in_each(3, f"a = bytearray(100 << 20){TOUCH}", drip) + "time.sleep(60)"
    with tight.child() as child:
        told = child.cells([("x", code)])
    assert told == checks.Failure("memory")  # and not "timeout", much later


def test_a_stream_that_never_pauses_ends_in_time() -> None:
    """While bytes are always there, the clock is looked at all the same."""
    ours, theirs = socket.socketpair()
    limits = Limits(cells=0.3, call=0.3, total=0.3)
    child = Child(ours, os.getpid(), limits, 1 << 40, time.monotonic() + 0.3)

    def flood() -> None:
        with contextlib.suppress(OSError):
            theirs.recv(1 << 16)
            theirs.sendall(struct.pack("<II", 2, 2_000_000) + b"{}")
            while True:
                theirs.send(bytes(1))

    with ours, theirs:
        threading.Thread(target=flood, daemon=True).start()
        begin = time.monotonic()
        assert child.cells([("x", "")]) == checks.Failure("timeout")
        assert time.monotonic() - begin < 1


@pytest.mark.parametrize(
    ("part", "total", "starved"),
    [
        (1.0, 9.0, False),
        (3.0, 9.0, False),
        (0.5, 9.0, True),
        (0.0, 9.0, True),
        (1.0, 1.0, True),  # the time for all questions: what went before is not known
    ],
)
def test_who_is_late_and_has_hardly_computed_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, part: float, total: float, starved: bool
) -> None:
    clock = [100.0]

    def wait(_: object, milliseconds: float) -> list[int]:
        clock[0] += milliseconds / 1000
        return []

    poll = type("poll", (), {"register": lambda *_: None, "poll": wait})
    monkeypatch.setattr(sandbox, "select", SimpleNamespace(poll=poll, POLLIN=1))
    monkeypatch.setattr(sandbox, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(sandbox, "_used", lambda pid: (0, 5.0 + part * clock[0]))
    ours, theirs = socket.socketpair()
    child = Child(ours, 0, Limits(cells=2.0), 0, clock[0] + total)
    with ours, theirs:
        assert child.cells([("x", "")]) == checks.Failure("timeout")
    assert child.starved is starved


def test_what_ended_processes_computed_is_counted() -> None:
    code = "import time\nwhile time.process_time() < {}: pass"
    _, before = sandbox._used(os.getpid())
    for seconds in (0.2, 0.3):
        subprocess.run([sys.executable, "-I", "-S", "-c", code.format(seconds)], check=True)
    held, after = sandbox._used(os.getpid())
    assert after - before >= 0.45 and held > 1 << 20  # the kernel counts in hundredths


def test_a_sleeper_is_to_be_tried_alone() -> None:
    limits = Limits(cells=0.5, call=0.5, total=1.5)
    assignment = bundle("fgsm", limits)
    data = submission("fgsm", {"fgsm": "import time; time.sleep(60)"})
    try:
        result, starved = job.attempt(assignment, "ada", data)
    finally:
        job.close()
    assert result["status"] == "timeout" and starved
    assert not job.attempt(assignment, "ada", b"")[1]


#: Doors that are not in test_hostile. Each raises what it found; "[]" or a lost process is nothing.
DOORS = {
    "a call by the 32-bit gate": (
        "import ctypes, mmap\n"
        "m = mmap.mmap(-1, 4096, prot=7, flags=34)\n"
        "m.write(bytes.fromhex('b814000000cd80c3'))\n"
        "f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
        "raise RuntimeError([f()])"
    ),
    "a call by x32": (
        "import ctypes\n"
        "value = ctypes.CDLL(None).syscall(0x40000000 + 39)\n"
        "raise RuntimeError([value] if value > 0 else [])"
    ),
    "clone with each namespace's flag": (
        "import ctypes, os\n"
        "libc, found = ctypes.CDLL(None), []\n"
        "for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):\n"
        "    pid = libc.syscall(56, flag | 17, 0, 0, 0, 0)\n"
        "    if pid == 0: os._exit(0)\n"
        "    if pid > 0: found.append(hex(flag))\n"
        "raise RuntimeError(found)"
    ),
    "the kernel's settings": (
        "import os\nfound = []\n"
        "for folder, _, names in os.walk('/proc/sys'):\n"
        "    for name in names:\n"
        "        try: open(f'{folder}/{name}', 'w'); found.append(name)\n"
        "        except OSError: pass\n"
        "raise RuntimeError(found)"
    ),
    "files of its own process": (
        "found = []\n"
        "for name in ('oom_score_adj', 'mem', 'uid_map', 'gid_map', 'setgroups', 'attr/current',\n"
        "             'coredump_filter', 'clear_refs', 'timerslack_ns', 'loginuid'):\n"
        "    try: open(f'/proc/self/{name}', 'r+b', 0); found.append(name)\n"
        "    except OSError: pass\n"
        "raise RuntimeError(found)"
    ),
    "pages shared with the zygote": (
        "raise RuntimeError([l for l in open('/proc/self/maps') if l.split()[1] == 'rw-s'])"
    ),
    "devices and sockets by name": (
        "import os, socket, stat\nfound = []\n"
        "for i, name in enumerate(('/tmp/d', '/dev/shm/d')):\n"
        "    try: os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(1, 1)); found.append(name)\n"
        "    except OSError: pass\n"
        "raise RuntimeError(found)"
    ),
    "users": (
        "import os\nfound = []\n"
        "for f, a in ((os.setuid, (0,)), (os.setgid, (0,)), (os.setgroups, ([0],)),\n"
        "             (os.setresuid, (0, 0, 0)), (os.seteuid, (0,)), (os.nice, (-1,))):\n"
        "    try: f(*a); found.append(f.__name__)\n"
        "    except OSError: pass\n"
        "raise RuntimeError(found)"
    ),
    "the zygote's frames": (
        "import sys\nframe, found = sys._getframe(), []\n"
        "while frame:\n"
        "    found += [k for k, v in frame.f_locals.items() if isinstance(v, dict) and 'hidden' in v]\n"
        "    frame = frame.f_back\n"
        "raise RuntimeError(found)"
    ),
    "the last to be killed": (
        "raise RuntimeError([v for v in [int(open('/proc/self/oom_score_adj').read())] if v < 500])"
    ),
}


@pytest.mark.parametrize("code", DOORS.values(), ids=DOORS)
def test_a_door_is_shut(tight: Sandbox, code: str) -> None:
    with tight.child() as child:
        told = child.cells([("x", code)])
    if isinstance(told, checks.Failure):
        assert told.kind == "crashed"
    else:
        assert told["x"].detail == "[]"


def test_no_socket_waits_for_the_next_student(tight: Sandbox) -> None:
    leave = (
        "import os, socket, time\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0left'); s.listen()\n"
        "if os.fork() == 0:\n    os.setsid(); time.sleep(60)\n"
    )
    look = (
        "import socket\ns = socket.socket(socket.AF_UNIX)\n"
        "try: s.connect('\\0left')\nexcept OSError as e: raise RuntimeError([])\n"
        "raise RuntimeError(['there'])"
    )
    with tight.child() as child:
        assert child.cells([("x", leave)]) == {}
    with tight.child() as child:
        told = child.cells([("x", look)])
    assert isinstance(told, dict) and told["x"].detail == "[]"


def test_a_queue_of_answers_and_descriptors_earns_nothing(fgsm: Grade) -> None:
    code = """
        import array, os, socket, struct
        line = socket.socket(fileno=os.dup(3))
        for _ in range(50):
            line.sendmsg([struct.pack("<II", 2, 10) + b"{}" + struct.pack("<Q", 2) + b"{}"],
                         [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 3]))])
        def fgsm(model, x, y, eps): return x
    """
    result = fgsm(submission("fgsm", {"fgsm": textwrap.dedent(code).strip()}))
    assert result["points"] == 0
    assert len(to_bytes(result)) < 100_000


# --------------------------------------------------------------------------------- honest and unusual

STEP = """
def fgsm(model, x, y, eps):
    z = x.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(model(z), y), z)
    return (x + eps * direction(g)).clamp(0, 1).detach()
""".strip()
HELPER = "def direction(g):\n    return g.sign()\n"
LS = "files = !ls\n"


def _copy(start: str) -> Callable[[Notebook], object]:
    def edit(notebook: Notebook) -> None:
        cell = json.loads(json.dumps(find(notebook, "fgsm")))
        cell["source"] = start + inline_grader.answers("fgsm")["fgsm"] + "\n# once more"
        notebook["cells"].append(cell)

    return edit


#: A right notebook. Name -> the answer ("{}" is the reference's), and a change of the notebook.
ODD: dict[str, tuple[str, Callable[[Notebook], object] | None]] = {
    "display imported": (
        "from IPython.display import HTML, clear_output, display\ndisplay(HTML('<b>'))\n{}",
        None,
    ),
    "extensions": ("%load_ext autoreload\n%autoreload 2\n{}", None),
    "captured": ("%%capture out\n{}", None),
    "help after it": ("{}\n?fgsm\nfgsm?\nfgsm??", None),
    "files listed after it": ("{}\nfiles = !ls", None),
    "a coding line, an emoji, a form feed": ("# -*- coding: latin-1 -*-\n\x0c\né = '🎉'\n{}", None),
    "a long text": ('"""' + "x " * 40_000 + '"""\n{}', None),
    "match and walrus": ("match 1:\n    case int(n):\n        (m := n)\n{}", None),
    "enable_grad": ("@torch.enable_grad()\n{}", None),
    "stars": ("{}\n_f = fgsm\ndef fgsm(*a, **k):\n    return _f(*a, **k)", None),
    "numbers of numpy": ("{}\n_f = fgsm\ndef fgsm(*a): return _f(*a).numpy().astype('f8')", None),
    "a pool": ("import multiprocessing as mp\nmp.Value('i'); mp.Queue().put(1)\n{}", None),
    "asyncio.run": ("import asyncio\nasync def f(): pass\nasyncio.run(f())\n{}", None),
    "warnings are errors": ("import warnings\nwarnings.simplefilter('error')\n{}", None),
    "a long sum": ("S = " + "+".join("1" * 500) + "\n{}", None),
    "a helper in a timed cell": (STEP, _extra("%%time\n" + HELPER)),
    "a helper by a walrus": (STEP, _extra("print(direction := torch.sign)")),
    "a helper in a cell that awaits": (
        STEP,
        _extra(f"import asyncio\nawait asyncio.sleep(0)\n{HELPER}"),
    ),
    "display": ("display(torch.ones(1))\n{}", None),
    "In and Out": ("print(len(In), Out)\n{}", None),
    "await": ("import asyncio\nawait asyncio.sleep(0)\n{}", None),
    "magic in a timed cell": ("%%time\n%matplotlib inline\n!ls\n{}", None),
    "files listed before it": ("files = !ls\nprint(files[:1], len(files))\n{}", None),
    "a timed line with an option": ("t = %timeit -o 1 + 1\n{}", None),
    "a helper beside a question": (STEP, _extra(HELPER + "\ndirection?")),
    "a helper beside a listing": (STEP, _extra(LS + HELPER)),
    "a question beside the use of a helper": (STEP + "\nfgsm?", _extra(HELPER)),
    "a listing beside the use of a helper": (LS + STEP, _extra(HELPER)),
    "a long sum beside the use of a helper": (
        "S = " + "+".join("1" * 500) + "\n" + STEP,
        _extra(HELPER),
    ),
    "a helper beside lines that are and are not magic": (
        STEP,
        _extra(
            "%matplotlib inline\n!ls \\\n  -l\nfiles = !ls\nt = %timeit -o 1\n"
            "print('%d' # why?\n      % 1, 1\n      != 2)\n?print\nprint??\n" + HELPER
        ),
    ),
    "a star": (STEP.replace("direction(g)", "g.sign() * exp(0)"), _extra("from math import *")),
    "a helper in a match": (
        STEP,
        _extra(f"match 1:\n  case 1:\n{textwrap.indent(HELPER, '    ')}"),
    ),
    "a helper in a handler": (
        STEP,
        _extra(f"try:\n  import nowhere\nexcept ImportError:\n{textwrap.indent(HELPER, '    ')}"),
    ),
    "a table filled later": (
        STEP.replace("direction(g)", "g.sign() * T['a']"),
        _extra("T = {}\nT['a'] = 1.0"),
    ),
    "a list filled later": (
        STEP.replace("direction(g)", "g.sign() * T[0]"),
        _extra("T = []\nT.append(1.0)"),
    ),
    "two copies with magics": ("%%time\n{}", _copy("%%time\n")),
    "two copies with __future__": ("{}", _copy("from __future__ import annotations\n")),
}


@pytest.mark.parametrize(("template", "edit"), ODD.values(), ids=ODD)
def test_an_unusual_notebook_loses_nothing(
    fgsm: Grade, template: str, edit: Callable[[Notebook], object] | None
) -> None:
    written = inline_grader.answers("fgsm")
    written["fgsm"] = template.replace("{}", written["fgsm"])
    result = fgsm(submission("fgsm", written, edit))
    lost = [row["message"] for row in result["checks"] if not row["points"]]
    assert result["points"] == 20, (lost[:1], result["errors"])


#: What may stand round any answer cell; "{name}" is the cell's function or class.
ROUND: dict[str, Callable[[str, str], str]] = {
    "Windows": lambda code, name: code.replace("\n", "\r\n"),
    "tabs": lambda code, name: re.sub(
        r"^( {4})+", lambda m: "\t" * (len(m[0]) // 4), code, flags=re.MULTILINE
    ),
    "future": lambda code, name: "from __future__ import annotations\n" + code,
    "French": lambda code, name: code + f"\nété_{name} = {name}\n{name} = été_{name}",
    "stars": lambda code, name: (
        f"{code}\n_{name} = {name}\ndef {name}(*a, **k):\n    return _{name}(*a, **k)"
    ),
    "an object": lambda code, name: (
        f"{code}\nclass _C_{name}:\n    f = staticmethod({name})\n"
        f"    def __call__(self, *a, **k): return self.f(*a, **k)\n{name} = _C_{name}()"
    ),
    "an error at the end": lambda code, name: code + "\nassert False, 'my own check'",
}


@pytest.mark.parametrize("around", ROUND.values(), ids=ROUND)
@pytest.mark.parametrize("name", ["detect", "minimax", "pca"])
def test_what_stands_round_an_answer_costs_nothing(
    name: str, around: Callable[[str, str], str]
) -> None:
    changed = {cell: around(code, cell) for cell, code in inline_grader.answers(name).items()}
    verdicts = inline_grader.grade(name, changed)
    whole = sum(check.points for check in inline_grader.load(name, "checks").CHECKS)
    assert sum(v.points for v in verdicts.values()) == whole, [
        (key, v.message) for key, v in verdicts.items() if not v.points
    ]
