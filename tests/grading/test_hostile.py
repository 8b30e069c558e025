"""Submissions that try to cheat, to look, to break out or to break the run, and honest odd ones.

Every payload is the answer of cell ``fgsm`` or an edit of the whole notebook. None may earn a point it
did not work for, see anything, leave anything behind, or cost another submission anything.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inline_grader
import psutil
import pytest
from submissions import Notebook, earned, find, submission

from course_lib.grading.jail import Limits
from course_lib.grading.job import to_bytes
from course_lib.grading.sandbox import Sandbox

pytestmark = pytest.mark.alone

Grade = Callable[..., dict[str, Any]]
FGSM = ("fgsm_step", "fgsm_clip", "fgsm_alone")

#: Each defines what would have to be believed. Name -> code.
CHEATS = {
    "an object that equals everything": """
        class Yes:
            def __eq__(self, other): return True
            def __getattr__(self, name): return self
            def __call__(self, *a, **k): return self
            def __iter__(self): return iter([self])
            def __float__(self): return 0.0
            def __array__(self, *a, **k):
                import numpy
                return numpy.zeros((2, 1, 4, 4))
        def fgsm(model, x, y, eps): return Yes()
    """,
    "a tensor that answers comparisons itself": """
        class T(torch.Tensor):
            @classmethod
            def __torch_function__(cls, func, types, args=(), kwargs=None): return True
        def fgsm(model, x, y, eps): return x.as_subclass(T)
    """,
    "comparisons patched": """
        import numpy as np
        np.allclose = np.array_equal = np.isfinite = lambda *a, **k: True
        torch.allclose = torch.equal = lambda *a, **k: True
        def fgsm(model, x, y, eps): return x
    """,
    "the child's own wire patched": """
        import sys
        wire = sys.modules["course_lib.grading.wire"]
        wire.send = lambda channel, message, arrays: channel.sendall(b"\\0" * 8)
        def fgsm(model, x, y, eps): return x
    """,
    "points sent up the line": """
        import os, json, struct
        text = json.dumps({"points": 20, "status": "graded", "ok": True}).encode()
        for fd in range(3, 32):
            try: os.write(fd, struct.pack("<II", len(text), 0) + text)
            except OSError: pass
        def fgsm(model, x, y, eps): return x
    """,
    "answers of calls forged in advance": """
        import os, struct, numpy, safetensors.numpy
        blob = safetensors.numpy.save({"x_adv": numpy.zeros((2, 1, 4, 4), "float32")})
        for fd in range(3, 32):
            try:
                for _ in range(5): os.write(fd, struct.pack("<II", 2, len(blob)) + b"{}" + blob)
            except OSError: pass
        def fgsm(model, x, y, eps): return x
    """,
    "the driver patched": """
        import sys
        child = sys.modules["course_lib.grading.child"]
        child.numbers = lambda value: __import__("numpy").ones(3)
        child.Notebook.call = lambda self, *a: ({"points": 20}, {})
        def fgsm(model, x, y, eps): return x
    """,
    "an input transformer": """
        ip = get_ipython()
        ip.input_transformers_post.append(lambda lines: ["pass"])
        ip.kernel.do_execute = lambda *a: {"status": "ok"}
        def fgsm(model, x, y, eps): return x
    """,
    "torch replaced": """
        import sys, types
        fake = types.ModuleType("torch"); fake.allclose = lambda *a: True
        sys.modules["torch"] = fake
        def fgsm(model, x, y, eps): return x
    """,
    "the stack searched for a reference": """
        import sys, gc
        def fgsm(model, x, y, eps):
            frame = sys._getframe()
            while frame:
                for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
                    if callable(getattr(value, "expect", None)): return value.expect()["x_adv"]
                    if isinstance(value, dict) and "want" in value: return value["want"]
                frame = frame.f_back
            for value in gc.get_objects():
                if type(value).__name__ == "Check": return value.expect()
            return x
    """,
    "the reference imported": """
        from course_lib.attacks import fgsm
    """,
    "the reference imported at the call": """
        def fgsm(model, x, y, eps):
            import importlib
            return importlib.import_module("course_lib.attacks").fgsm(model, x, y, eps)
    """,
    "the reference found on the disk": """
        import pathlib, sys
        for root in ["/", *sys.path]:
            for path in pathlib.Path(root).glob("**/attacks/fgsm.py"):
                exec(path.read_text())
    """,
    "the solutions executed": """
        import pathlib
        for path in pathlib.Path("/").glob("**/solutions/fgsm/*.py"):
            exec(path.read_text())
    """,
    "the checks imported": """
        import course_lib.grading.checks as checks
        def fgsm(model, x, y, eps): return x
    """,
    "a module beside the notebook": """
        import sys
        open("/tmp/torch.py", "w").write("allclose = lambda *a: True")
        sys.path.insert(0, "/tmp")
        for name in [n for n in sys.modules if n.startswith("torch")]: del sys.modules[name]
        def fgsm(model, x, y, eps): return x
    """,
    "an exit with success": """
        import os
        def fgsm(model, x, y, eps): os._exit(0)
    """,
    "an exit of the interpreter": """
        import sys
        def fgsm(model, x, y, eps): sys.exit(0)
    """,
    "the input back": """
        def fgsm(model, x, y, eps): return x
    """,
    "half of the way": """
        def fgsm(model, x, y, eps): return (x + eps / 2).clamp(0, 1)
    """,
    "not a number": """
        def fgsm(model, x, y, eps): return x * float("nan")
    """,
    "infinity": """
        def fgsm(model, x, y, eps): return x + float("inf")
    """,
    "a complex tensor": """
        def fgsm(model, x, y, eps): return x * 1j
    """,
    "True": """
        def fgsm(model, x, y, eps): return True
    """,
    "text": """
        def fgsm(model, x, y, eps): return "20"
    """,
    "a list without end": """
        def fgsm(model, x, y, eps):
            a = []; a.append(a); return a
    """,
    "a meta tensor": """
        def fgsm(model, x, y, eps): return x.to("meta")
    """,
    "a sparse tensor": """
        def fgsm(model, x, y, eps): return x.to_sparse()
    """,
    "an array of objects": """
        import numpy
        def fgsm(model, x, y, eps): return numpy.array([lambda: 1] * 3, dtype=object)
    """,
    "a tensor that is too large": """
        def fgsm(model, x, y, eps): return torch.zeros(1).expand(10**10)
    """,
    "a large answer": """
        def fgsm(model, x, y, eps): return torch.zeros(30_000_000)
    """,
    "another shape": """
        def fgsm(model, x, y, eps): return x[:1]
    """,
    "recursion": """
        def fgsm(model, x, y, eps): return fgsm(model, x, y, eps)
    """,
    "an exception that lies": """
        class Graded(BaseException):
            points = 20
            def __str__(self): raise SystemExit
            def __repr__(self): raise SystemExit
        def fgsm(model, x, y, eps): raise Graded()
    """,
    "KeyboardInterrupt": """
        def fgsm(model, x, y, eps): raise KeyboardInterrupt
    """,
    "GeneratorExit": """
        def fgsm(model, x, y, eps): raise GeneratorExit
    """,
    "a frame with a huge head": """
        import os
        def fgsm(model, x, y, eps):
            for fd in range(3, 32):
                try: os.write(fd, b"\\xff" * 8)
                except OSError: pass
    """,
    "a frame of JSON bombs": """
        import os, struct
        def fgsm(model, x, y, eps):
            text = b'[' * 500_000
            for fd in range(3, 32):
                try: os.write(fd, struct.pack("<II", len(text), 0) + text)
                except OSError: pass
    """,
    "arrays that overlap": """
        import os, struct, json
        def fgsm(model, x, y, eps):
            head = json.dumps({"x_adv": {"dtype": "F32", "shape": [9], "data_offsets": [-4, 99]}}).encode()
            blob = struct.pack("<Q", len(head)) + head
            for fd in range(3, 32):
                try: os.write(fd, struct.pack("<II", 2, len(blob)) + b"{}" + blob)
                except OSError: pass
    """,
    "an error that is no error": """
        import sys
        child = sys.modules["course_lib.grading.child"]
        child.Notebook.call = lambda self, *a: ({"error": ["<script>alert(1)</script>"]}, {})
        def fgsm(model, x, y, eps): return x
    """,
    "an error with a script in it": """
        import sys
        child = sys.modules["course_lib.grading.child"]
        told = {"type": "<script>", "cell": "<b>", "line": 10**9, "name": "<img onerror=x>"}
        child.Notebook.call = lambda self, *a: ({"error": told}, {})
        def fgsm(model, x, y, eps): return x
    """,
}

#: What uses up time, memory, processes or room, and the status that says so.
BOMBS = {
    "a loop without end": ("while True: pass", "timeout"),
    "a loop that ignores signals": (
        "import signal\n"
        "for s in range(1, 65):\n"
        "    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "while True:\n"
        "    try:\n"
        "        while True: pass\n"
        "    except BaseException: pass",
        "timeout",
    ),
    "a long sleep": ("import time; time.sleep(10**6)", "timeout"),
    "a lock held for ever": (
        "import threading; threading.Lock().acquire(); threading.Event().wait()",
        "timeout",
    ),
    "half an answer": (
        "import os, struct\n"
        "for fd in range(3, 32):\n"
        "    try: os.write(fd, struct.pack('<II', 1000, 0) + b'{')\n"
        "    except OSError: pass\n"
        "while True: pass",
        "timeout",
    ),
    "a list that grows": ("a = [0]\nwhile True: a += a", "memory"),
    "a large tensor": ("a = torch.ones(10**10)", "memory"),
    "memory in many processes": (
        "import os, time\n"
        "for _ in range(8):\n"
        "    if os.fork() == 0:\n"
        "        a = bytearray(150 << 20)\n"
        "        for i in range(0, len(a), 4096): a[i] = 1\n"
        "        time.sleep(60)\n"
        "time.sleep(60)",
        "memory",
    ),
    "a fork bomb": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "",
    ),
    "a thread bomb": (
        "import threading, time\n"
        "while True:\n"
        "    try: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "    except RuntimeError: pass",
        "",
    ),
    "a crash": ("import ctypes; ctypes.string_at(0)", "crashed"),
    "an abort": ("import os; os.abort()", "crashed"),
    "the disk filled": (
        "import os\n"
        "for i in range(200):\n"
        "    with open(f'/tmp/{i}', 'wb') as f: f.write(bytes(10 << 20))",
        "",
    ),
    "60 MB printed": ("print('x' * 60_000_000)\nraise ValueError('y' * 60_000_000)", ""),
    "files without end": (
        "import itertools\nfor i in itertools.count(): open(f'/dev/shm/{i}', 'w')",
        "",
    ),
    "its own process killed": ("import os\nos.kill(0, 9)\nos.kill(-1, 9)\nraise ValueError", ""),
    "the line closed": ("import os; os.closerange(3, 64)", "crashed"),
}


def answers(code: str) -> dict[str, str]:
    return {"fgsm": textwrap.dedent(code).strip()}


def processes() -> set[int]:
    """Return the ids of all that came of this process and still runs: the zygote's among them."""
    return {one.pid for one in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize("code", CHEATS.values(), ids=CHEATS)
def test_a_cheat_earns_nothing(fgsm: Grade, code: str) -> None:
    result = fgsm(submission("fgsm", answers(code)))
    assert result["points"] == 0
    told = to_bytes(result)
    assert b"<script>" not in told.replace(
        json.dumps(result["answers"], indent=1).encode(), b""
    ) or ("<script>" in code)
    for row in result["checks"]:
        assert "<" not in row["message"]
        assert row["message"]
    assert len(told) < 100_000


@pytest.mark.parametrize(("code", "status"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_costs_itself_alone(request: pytest.FixtureRequest, code: str, status: str) -> None:
    fgsm: Grade = request.getfixturevalue("patient" if status == "memory" else "fgsm")
    body = "def fgsm(model, x, y, eps):\n" + textwrap.indent(code, "    ")
    fgsm(submission("fgsm"))  # now the sandbox of this grader is there
    before = processes()
    result = fgsm(submission("fgsm", {"fgsm": body}))
    assert result["points"] == 0
    if status:
        assert result["status"] == status
    assert len(to_bytes(result)) < 100_000
    assert processes() <= before
    # The next one finds everything as it was, and this one's other answers are not lost.
    other = submission("fgsm")
    assert fgsm(other)["points"] == 20


def test_what_ends_one_answer_keeps_the_marks_of_the_others(fgsm: Grade) -> None:
    right = fgsm(submission("fgsm"))
    written = inline_grader.answers("fgsm")
    written["targeted_fgsm"] = "def targeted_fgsm(model, x, target, eps):\n    while True: pass"
    result = fgsm(submission("fgsm", written))
    assert result["status"] == "timeout"
    lost = {name for name, points in earned(result).items() if not points}
    assert lost == {"targeted_step", "targeted_clip"}
    assert right["status"] == "graded"


# ------------------------------------------------------------------------------------ looking around


LOOK = """
import ctypes, errno, os, socket, subprocess, sys, glob
found = []
def no(what, f):
    try:
        value = f()
    except (OSError, PermissionError, ImportError, subprocess.SubprocessError, ValueError):
        return
    if value not in (None, -1, False, [], ""):
        found.append(f"{what}: {value!r}")
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *a):
    value = libc.syscall(number, *a)
    return None if value < 0 else value
no("network", lambda: socket.create_connection(("127.0.0.1", 1), 0.2) or True)
no("a socket", lambda: socket.socket())
no("an IPv6 socket", lambda: socket.socket(socket.AF_INET6))
no("a raw socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
no("root", lambda: os.setuid(0) or os.getuid() == 0 and "root")
no("unshare", lambda: None if libc.unshare(0x10000000) < 0 else "users")
no("mount", lambda: None if libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None) < 0 else "mounted")
no("umount", lambda: None if libc.umount2(b"/tmp", 2) < 0 else "unmounted")
no("chroot", lambda: os.chroot("/tmp") or "chroot")
no("ptrace", lambda: None if libc.ptrace(16, os.getppid(), 0, 0) < 0 else "attached")
no("setns", lambda: None if libc.setns(0, 0) < 0 else "setns")
no("personality", lambda: call(135, 0xffffffff))
no("bpf", lambda: call(321, 0, 0, 0))
no("perf", lambda: call(298, 0, 0, -1, -1, 0))
no("keyring", lambda: call(250, 0, -3, 1))
no("io_uring", lambda: call(425, 8, ctypes.create_string_buffer(120)))
no("memfd", lambda: call(319, b"x", 0))
no("userfaultfd", lambda: call(323, 0))
no("shared memory", lambda: call(29, 0, 4096, 0o1600))
no("message queue", lambda: call(68, 0, 0o1600))
no("clone of a user", lambda: call(56, 0x10000000 | 17, 0, 0, 0, 0))
no("the parent", lambda: os.getppid())
no("other processes", lambda: [p for p in os.listdir("/proc") if p.isdigit() and int(p) not in
                               (1, os.getpid())])
no("environment of another", lambda: open(f"/proc/{os.getppid()}/environ").read())
no("open files", lambda: [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                          if int(fd) > 3 and os.path.exists(f"/proc/self/fd/{fd}")
                          and not os.path.isdir(f"/proc/self/fd/{fd}")])
no("secrets in the environment", lambda: [k for k in os.environ if "TOKEN" in k or "SECRET" in k
                                          or "KEY" in k or "PROXY" in k.upper()])
for path in ("/etc/passwd", "/etc/shadow", "/etc/hostname", "/home", "/var", "/run", "/sys",
             "/work", "/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/tty", "/dev/ptmx"):
    if path != "/work":
        no(path, lambda: open(path).read() if not os.path.isdir(path) else os.listdir(path))
seen = []
for folder, folders, files in os.walk("/"):
    folders[:] = [f for f in folders if os.path.join(folder, f) not in ("/proc", "/usr", "/lib", "/lib64")]
    seen += [os.path.join(folder, name) for name in files + folders if name in
             ("solutions", "gradebook.db", "test_hostile.py", "catalogue.py")
             and "site-packages" not in folder]
    seen += [folder for name in files if name == "checks.py" and "grading" in folder]
no("the teacher's files", lambda: seen)
import course_lib
package = os.path.dirname(course_lib.__file__)
def write(path):
    with open(path, "w") as file: file.write("x")
    return path
for path in ("/x", "/usr/x", package + "/x.py", package + "/__init__.py", sys.prefix + "/x",
             "/dev/shm/../x", "/etc/ld.so.preload"):
    no("writing " + path, lambda: write(path))
for name in ("attacks", "gans", "detection", "pca", "metrics", "grading.checks", "grading.job", "recipes"):
    no(name, lambda: __import__("course_lib." + name))
no("another kernel's door", lambda: os.open("/proc/self/mem", os.O_RDWR) and None)
no("capabilities", lambda: [l for l in open("/proc/self/status") if l.startswith(("CapEff", "CapPrm",
    "CapBnd", "CapAmb")) and int(l.split()[1], 16)])
no("privileges", lambda: [l for l in open("/proc/self/status") if l.startswith("NoNewPrivs") and
    l.split()[1] != "1"])
no("no filter", lambda: [l for l in open("/proc/self/status") if l.startswith("Seccomp:") and
    l.split()[1] != "2"])
raise RuntimeError("FOUND " + " | ".join(found))
"""


def test_there_is_nothing_to_see_and_no_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gradebook.db").write_text("secret")
    monkeypatch.setenv("GRADER_TOKEN", "secret")
    with Sandbox(preload=["torch"], limits=Limits(cells=60)) as sandbox, sandbox.child() as child:
        told = child.cells([("look", LOOK)])
    assert isinstance(told, dict)
    assert told["look"].detail == "FOUND "


def test_a_process_left_behind_is_gone(fgsm: Grade) -> None:
    code = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True: time.sleep(0.1)
            os._exit(0)
        def fgsm(model, x, y, eps): return x
    """
    before = processes()
    assert fgsm(submission("fgsm", answers(code)))["points"] == 0
    assert processes() <= before


def test_nothing_is_handed_from_one_student_to_the_next(fgsm: Grade) -> None:
    leave = """
        import os, builtins, torch
        for path in ("/tmp/left", "/dev/shm/left"): open(path, "w").write("x")
        builtins.left = torch.left = 1
        os.environ["LEFT"] = "1"
        raise RuntimeError("left")
    """
    look = """
        import os, builtins, torch
        raise RuntimeError([os.path.exists("/tmp/left"), os.path.exists("/dev/shm/left"),
                            hasattr(builtins, "left"), hasattr(torch, "left"), "LEFT" in os.environ])
    """
    assert fgsm(submission("fgsm", answers(leave)))["errors"]["fgsm"]["text"] == "left"
    seen = fgsm(submission("fgsm", answers(look)))["errors"]["fgsm"]["text"]
    assert seen == str([False] * 5)


def test_what_was_sent_is_not_told(fgsm: Grade) -> None:
    code = """
        def fgsm(model, x, y, eps):
            name = "secret" + str(x.sum().item()).replace(".", "_").replace("-", "m")
            raise type(name, (ValueError,), {})(str(x))
    """
    result = fgsm(submission("fgsm", answers(code)))
    told = json.dumps([result["checks"], result["errors"]])
    assert "secret" not in told and "tensor" not in told and "ValueError" in told


# --------------------------------------------------------------------------- notebooks tampered with


def _copy(notebook: Notebook, grade_id: str, source: str) -> None:
    cell = json.loads(json.dumps(find(notebook, grade_id)))
    cell["source"] = source
    notebook["cells"].append(cell)


def _each(change: Callable[[dict[str, Any]], object]) -> Callable[[Notebook], object]:
    def edit(notebook: Notebook) -> None:
        for cell in notebook["cells"]:
            change(cell)

    return edit


def _drop(notebook: Notebook, *ids: str) -> None:
    notebook["cells"] = [
        cell
        for cell in notebook["cells"]
        if cell["metadata"].get("nbgrader", {}).get("grade_id") not in ids
    ]


#: An edit of a right notebook: full marks all the same. Name -> edit, and a piece of the flag.
EDITS: dict[str, tuple[Callable[[Notebook], object], str]] = {
    "tests deleted": (lambda nb: _drop(nb, "check_fgsm", "check_bim"), "the cell is missing"),
    "a test cell copied": (
        lambda nb: _copy(nb, "check_fgsm", "assert True"),
        "it is there 2 times",
    ),
    "a test cell edited": (
        lambda nb: find(nb, "check_fgsm").update(source="raise SystemExit"),
        "a given cell was edited",
    ),
    "points changed": (
        lambda nb: find(nb, "check_fgsm")["metadata"]["nbgrader"].update(points=1000),
        "its points were changed",
    ),
    "points taken away": (
        lambda nb: find(nb, "check_fgsm")["metadata"]["nbgrader"].update(grade=False),
        "what kind of cell it is was changed",
    ),
    "execution skipped": (
        _each(lambda cell: cell["metadata"].update(tags=["skip-execution"])),
        "tags were added",
    ),
    "no schema version": (
        _each(lambda cell: cell["metadata"].get("nbgrader", {}).pop("schema_version", None)),
        "schema version",
    ),
    "schema version 99": (
        _each(
            lambda cell: (
                cell["metadata"]["nbgrader"].update(schema_version=99)
                if "nbgrader" in cell["metadata"]
                else None
            )
        ),
        "schema version",
    ),
    "another kernel": (
        lambda nb: nb["metadata"].update(kernelspec={"name": "evil", "language": "bash"}),
        "language is bash",
    ),
    "a kernel that is a list": (lambda nb: nb["metadata"].update(kernelspec=[1]), ""),
    "metadata that is a list": (lambda nb: nb.update(metadata=[1]), ""),
    "cells in another order": (lambda nb: nb["cells"].reverse(), ""),
    "answers turned into Markdown": (
        lambda nb: find(nb, "fgsm").update(cell_type="markdown"),
        "",
    ),
    "an id that is a list": (
        lambda nb: nb["cells"].append(
            {"cell_type": "code", "source": "1", "metadata": {"nbgrader": {"grade_id": ["x"]}}}
        ),
        "",
    ),
    "cells that are no cells": (lambda nb: nb["cells"].extend([None, 1, "x", [], {}]), ""),
    "sources that are no text": (
        lambda nb: nb["cells"].extend(
            {"cell_type": "code", "metadata": {}, "source": value} for value in (1, None, [1], {})
        ),
        "",
    ),
    "a lone surrogate": (
        lambda nb: nb["cells"].append(
            {"cell_type": "code", "metadata": {}, "source": "x='\ud800'"}
        ),
        "",
    ),
    "a foreign id": (
        lambda nb: nb["cells"].append(
            {"cell_type": "code", "source": "", "metadata": {"nbgrader": {"grade_id": "<script>"}}}
        ),
        "ids that the assignment does not have",
    ),
    "the old format": (lambda nb: nb.update(nbformat=3), "format is 3"),
    "the setup deleted": (lambda nb: _drop(nb, "setup"), "the cell is missing"),
    "the setup sabotaged": (
        lambda nb: find(nb, "setup").update(source="import os; os._exit(1)"),
        "a given cell was edited",
    ),
    "an untouched copy of an answer": (
        lambda nb: _copy(nb, "fgsm", _stub("fgsm")),
        "it is there 2 times",
    ),
    "60 MB of output": (
        lambda nb: find(nb, "fgsm").update(
            outputs=[{"output_type": "stream", "name": "stdout", "text": "x" * 60_000_000}]
        ),
        "",
    ),
}


def _stub(grade_id: str) -> str:
    from submissions import bundle

    return next(cell.source for cell in bundle("fgsm").master().cells if cell.id == grade_id)


@pytest.mark.parametrize(("edit", "flag"), EDITS.values(), ids=EDITS)
def test_an_edit_changes_nothing(
    fgsm: Grade, edit: Callable[[Notebook], object], flag: str
) -> None:
    result = fgsm(submission("fgsm", None, edit))
    assert (result["points"], result["status"]) == (20, "graded")
    assert any(flag in told for told in result["flags"]) or not flag


@pytest.mark.parametrize(("edit", "flag"), EDITS.values(), ids=EDITS)
def test_an_edit_earns_nothing(fgsm: Grade, edit: Callable[[Notebook], object], flag: str) -> None:
    assert fgsm(submission("fgsm", {}, edit))["points"] == 0


#: Files that are no notebook: rejected, with a reason, in a moment.
REJECTED = {
    "nothing": b"",
    "text": b"I hand in later",
    "half a notebook": submission("fgsm")[:5000],
    "a list": b"[]",
    "cells that are a number": b'{"cells": 3}',
    "no cells": b'{"cells": []}',
    "deep brackets": b'{"cells":' + b"[" * 200_000,
    "many brackets": b'{"cells": [' + b"[]," * 3_000_000 + b"[]]}",
    "a long number": b'{"cells": [], "x": ' + b"9" * 1_000_000 + b"}",
    "zeros": bytes(1000),
    "another notebook": b'{"cells": [{"cell_type": "code", "source": "1", "metadata": {}}]}',
    "too large": b'{"cells": ["' + b"x" * (101 << 20) + b'"]}',
}


@pytest.mark.parametrize("data", REJECTED.values(), ids=REJECTED)
def test_what_is_no_notebook_is_rejected(fgsm: Grade, data: bytes) -> None:
    result = fgsm(data)
    assert (result["status"], result["points"]) == ("rejected", 0)
    assert result["note"]


# ------------------------------------------------------------------------------------ honest oddities

ODD = {
    "warnings and prints": "import warnings, sys\nwarnings.warn('careful')\n"
    "print('x', file=sys.stderr)\n{}",
    "magics": "%matplotlib inline\n!pip install nothing\n{}\n%timeit 1 + 1",
    "a timed cell": "%%time\n{}",
    "a plot": "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()\n{}",
    "an error after the definition": "{}\n1 / 0",
    "a syntax of Windows": "{}\r\n",
    "a type hint of its own": "from __future__ import annotations\n{}",
    "float64 as the default": "torch.set_default_dtype(torch.float64)\n{}",
    "gradients switched off": "torch.set_grad_enabled(False)\n{}\n",
    "logging": "import logging; logging.basicConfig(level='DEBUG')\n{}",
    "a main guard": "{}\nif __name__ == '__main__':\n    print('done')",
    "input": "{}\ninput('ready?')",
    "threads": "torch.set_num_threads(2)\n{}",
    "a name with an accent": "épsilon = 1\n{}",
    "a null device": "open('/dev/null', 'w').write('x')\n{}",
    "a temporary file": "import tempfile\ntempfile.TemporaryFile().write(b'x')\n{}",
    "a decorator": "import functools\ndef log(f):\n    @functools.wraps(f)\n"
    "    def g(*a, **k):\n        print(a)\n        return f(*a, **k)\n    return g\n{}\nfgsm = log(fgsm)",
    "an object that can be called": "{}\nclass A:\n    def __init__(self, f): self.f = f\n"
    "    def __call__(self, *a, **k): return self.f(*a, **k)\nfgsm = A(fgsm)",
    "a dataclass and a pickle": "import dataclasses, pickle\n@dataclasses.dataclass\nclass C:\n    a: int\n"
    "pickle.loads(pickle.dumps(C(1)))\n{}",
    "worker processes": "import torch.utils.data as d\n"
    "list(d.DataLoader(list(range(8)), num_workers=2))\n{}",
    "a progress bar": "from tqdm.auto import tqdm\nfor _ in tqdm(range(3)): pass\n{}",
}


@pytest.mark.parametrize("template", ODD.values(), ids=ODD)
def test_an_honest_oddity_loses_nothing(fgsm: Grade, template: str) -> None:
    written = inline_grader.answers("fgsm")
    written["fgsm"] = template.replace("{}", written["fgsm"])
    result = fgsm(submission("fgsm", written))
    assert result["points"] == 20, [row for row in result["checks"] if not row["points"]]


HELPER = "import math\n\ndef direction(gradient):\n    return gradient.sign() * math.exp(0)\n"


def _use_helper() -> dict[str, str]:
    written = inline_grader.answers("fgsm")
    written["fgsm"] = (
        "def fgsm(model, x, y, eps):\n"
        "    z = x.detach().clone().requires_grad_()\n"
        "    (g,) = torch.autograd.grad(F.cross_entropy(model(z), y), z)\n"
        "    return (x + eps * direction(g)).clamp(0, 1).detach()\n"
    )
    return written


def _extra(source: str) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "source": source, "outputs": []}


@pytest.mark.parametrize("where", ["before", "after", "in the setup", "beside an experiment"])
def test_a_helper_in_a_cell_of_her_own_counts(fgsm: Grade, where: str) -> None:
    def edit(notebook: Notebook) -> None:
        if where == "before":
            notebook["cells"].insert(0, _extra(HELPER))
        elif where == "after":
            notebook["cells"].append(_extra(HELPER))
        elif where == "in the setup":
            cell = find(notebook, "setup")
            cell["source"] = [*cell["source"], "\n", *HELPER.splitlines(True)]
        else:
            loop = "%time\nwhile True:\n    model = 1\n    x = 2\n    pass\n"
            notebook["cells"].insert(3, _extra(HELPER + loop))

    result = fgsm(submission("fgsm", _use_helper(), edit))
    assert result["points"] == 20, [row for row in result["checks"] if not row["points"]]
    assert any("direction" in flag for flag in result["flags"])


def test_a_helper_that_is_nowhere_is_named_in_its_own_words(fgsm: Grade) -> None:
    result = fgsm(submission("fgsm", _use_helper()))
    lost = {row["name"]: row["message"] for row in result["checks"] if not row["points"]}
    assert set(lost) >= set(FGSM)
    assert "NameError" in lost["fgsm_step"]


def test_feedback_on_every_wrong_answer_tells_no_secret(fgsm: Grade, tmp_path: Path) -> None:
    """A page for work that is wrong in every way holds nothing of the solution or the checks."""
    from submissions import ROOT, bundle

    from course_lib.grading import feedback, release

    nothing: dict[str, str] = dict.fromkeys(inline_grader.answers("fgsm"), "1 / 0")
    for number, answers in enumerate(({}, nothing, _use_helper() | {"bim": "x"})):
        result = fgsm(submission("fgsm", answers), f"s{number}")
        answered = {name: "" for name in result["answers"]}
        feedback.write(tmp_path, result | {"answers": answered}, bundle("fgsm").master())
    assert len(list(tmp_path.rglob("*.html"))) == 3
    assert release.scan([tmp_path], ROOT) == []
