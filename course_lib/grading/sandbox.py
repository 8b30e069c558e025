"""The grader's side of the sandbox: it starts a zygote, asks it for children, and trusts none of them.

``Sandbox`` holds one zygote; ``Sandbox.child()`` is a process that runs one submission's code. What
comes back is numbers or a ``Failure``; a child that hangs, dies, floods or lies costs itself alone.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import math
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import course_lib
from course_lib.grading import jail, wire
from course_lib.grading.checks import Failure, Sent
from course_lib.grading.jail import Limits, Missing

#: What of the package a student's code finds. The rest holds what she is to write.
SHARED = {"__init__.py", "checkpoints", "classifiers.py", "data", "device.py", "plots.py"}
#: The most that an answer may weigh. What is asked for is small; a large one costs the grader.
ANSWER = 2 << 20
#: What a failed call may be called: anything else a child says would be words of its own.
_KINDS = {
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, BaseException)
} | {"missing", "returned", "wire"}
_TYPES = {name for name, kind in vars(builtins).items() if isinstance(kind, type)} | {"NoneType"}
#: Users of their own, one per grading process, where root grades.
_USERS = range(61184, 65000)
#: The part of its time that a process computes when nobody keeps it from doing so.
_BUSY = 0.8


class Sandbox:
    """A zygote and the children forked from it, one at a time.

    ``preload`` names modules that it imports before the first child; ``hidden`` further files and
    folders that must not be seen. Use it as a context manager. Starting it raises ``Missing`` where
    a lock cannot be had.
    """

    def __init__(
        self,
        *,
        preload: Sequence[str] = (),
        hidden: Sequence[Path] = (),
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._preload = list(preload)
        # Jupyter's settings may lie beside Python, with whatever is written into them.
        settings = Path(sys.prefix) / "etc" / "jupyter"
        self._hidden = [path.resolve() for path in (*hidden, settings)]
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.report: dict[str, Any] = {}
        self.own_user = 0

    def __enter__(self) -> Sandbox:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the zygote and all that came of it."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(5)  # it ends by itself when nobody is on the line
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _start(self) -> None:
        if sys.platform != "linux":
            raise Missing(
                f"no sandbox on {sys.platform}: grade on Linux (WSL 2 and a container count)"
            )
        ours, theirs = socket.socketpair()
        package = Path(course_lib.__file__).resolve().parent
        shown = [Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), package]
        absent = [path for path in package.iterdir() if path.name not in SHARED]
        base = Path(tempfile.gettempdir()) / f"course-sandbox-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": "/tmp",
            "LOGNAME": "student",
            "LANG": "C.UTF-8",
            "MPLBACKEND": "Agg",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        }
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        with tempfile.TemporaryFile() as errors:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-s",
                    "-m",
                    "course_lib.grading.zygote",
                    str(theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                env=environment,
                cwd="/",
            )
            theirs.close()
            ours.settimeout(120)
            order = {
                "base": str(base),
                "shown": [str(path) for path in dict.fromkeys(shown)],
                "hidden": [str(path) for path in absent + self._hidden],
                "absent": [f"course_lib.{path.stem}" for path in absent],
                "preload": self._preload,
                "limits": asdict(self.limits),
                "user": os.getuid(),
            }
            try:
                wire.send(ours, order, {})
                answer, _ = wire.receive(ours)
                if "unshared" in answer:
                    wire.send(ours, {"mapped": self._map(self._process.pid)}, {})
                    answer, _ = wire.receive(ours)
            except (OSError, EOFError, wire.WireError) as error:
                self.close()
                errors.seek(0)
                last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                raise Missing(f"the sandbox did not start: {' '.join(last) or error}") from None
        if "ready" not in answer:
            self.close()
            raise Missing(f"no sandbox here, so nothing is graded. {answer.get('missing')}")
        self._control = ours
        self.report = answer["ready"]
        self._loaded, _ = _used(self._process.pid)

    def _map(self, pid: int) -> bool:
        """Give a zygote that root started two users: root, for setting up, and one for students."""
        if os.getuid() != 0:
            return False
        for user in (_USERS[os.getpid() % len(_USERS)], 65534):
            with contextlib.suppress(OSError):
                jail.map_users(pid, [0, user])
                self.own_user = user
                return True
        raise Missing(
            "a user of its own for students' code: root may not map one here. Grade as an ordinary "
            "user, or in a container with more than one user"
        )

    def _fork(self) -> tuple[socket.socket, socket.socket]:
        """Have the zygote make a child; a zygote that has gone is started again, once."""
        for _ in range(2):
            if self._control is None:
                self._start()
            control = self._control
            assert control is not None
            ours, theirs = socket.socketpair()
            with theirs, contextlib.suppress(OSError, EOFError, wire.WireError):
                socket.send_fds(control, [b"s"], [theirs.fileno()])
                wire.receive(control)
                return ours, control
            ours.close()
            self.close()
        raise RuntimeError("the sandbox's zygote ends as soon as it is started")

    @contextlib.contextmanager
    def child(self, until: float = math.inf) -> Iterator[Child]:
        """Fork a process for one submission; it and all it started are gone at the end.

        ``until`` is when its time is over, as ``time.monotonic`` tells it.
        """
        ours, control = self._fork()
        assert self._process is not None
        until = min(until, time.monotonic() + self.limits.total)
        child = Child(ours, self._process.pid, self.limits, self._loaded, until)
        try:
            yield child
        finally:
            child.close()
            try:
                control.sendall(b"r")
                child.status = int(wire.receive(control)[0]["status"])
            except (OSError, EOFError, wire.WireError):
                self.close()


class Child:
    """A process that runs one submission's code, and the only line to it.

    ``starved`` says of one whose time was over that it had not computed for most of it: it waited, or
    others did not let it, and alone it may come through.
    """

    def __init__(
        self, channel: socket.socket, zygote: int, limits: Limits, loaded: int, until: float
    ) -> None:
        self._channel = channel
        self._zygote = zygote
        self._limits = limits
        self._until = until
        self._loaded = loaded
        self._look = 0.0
        self._since: tuple[float, float] | None = None
        self._names: frozenset[str] = frozenset()
        self._lines: dict[str, int] = {}
        self.starved = False
        self.status: int | None = None
        self.gone: Failure | None = None

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def cells(self, cells: Sequence[tuple[str, str]]) -> Mapping[str, Failure] | Failure:
        """Execute cells ``(name, source)`` in order; return the error of each that raised one.

        A ``Failure`` instead means that the process did not come through.
        """
        for name, source in cells:
            self._lines[name] = max(self._lines.get(name, 0), source.count("\n") + 1)
        answer = self._ask({"cells": list(cells)}, {}, self._limits.cells)
        if isinstance(answer, Failure):
            return answer
        errors = answer[0].get("errors")
        known = {name for name, _ in cells}
        if not isinstance(errors, dict):
            return self._lost("wire")
        return {
            name: self._failure(told, own=True) for name, told in errors.items() if name in known
        }

    def probe(self, source: str) -> Failure | None:
        """Send the probes' source text; return a ``Failure`` if the process did not take it."""
        self._names = _asked_for(source)
        answer = self._ask({"probe": source}, {}, self._limits.call)
        return answer if isinstance(answer, Failure) else None

    def call(self, name: str, sent: Sent) -> Mapping[str, np.ndarray] | Failure:
        """Call the probe ``name``; return the arrays that came back, or why there are none."""
        arrays = {key: value for key, value in sent.items() if isinstance(value, np.ndarray)}
        values = {key: value for key, value in sent.items() if key not in arrays}
        question = {"call": name, "names": list(sent), "values": values}
        answer = self._ask(question, arrays, self._limits.call)
        if isinstance(answer, Failure):
            return answer
        error = answer[0].get("error")
        return answer[1] if error is None else self._failure(error)

    def _ask(
        self, question: Mapping[str, Any], arrays: Mapping[str, np.ndarray], seconds: float
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]] | Failure:
        if self.gone is not None:
            return self.gone
        until = min(time.monotonic() + seconds, self._until)
        self._since = None
        self._look = time.monotonic() + 0.2  # most answers are there before the first look
        self._channel.settimeout(max(0.001, until - time.monotonic()))
        try:
            wire.send(self._channel, question, arrays)
            return wire.receive(self._channel, lambda: self._wait(until), ANSWER)
        except TimeoutError:
            self.starved = self._waited()
            return self._lost("timeout")
        except MemoryError:
            return self._lost("memory")
        except wire.WireError:
            return self._lost("wire")
        except (EOFError, OSError):
            return self._lost("crashed")

    def _lost(self, kind: str) -> Failure:
        self.gone = Failure(kind)
        return self.gone

    def _wait(self, until: float) -> None:
        """Wait until there is something to read.

        Raises ``TimeoutError`` when it is late, and ``MemoryError`` when the process and all it has
        started hold too much: the limits of one process are the kernel's, the sum of them is ours.
        """
        ready = select.poll()
        ready.register(self._channel, select.POLLIN)
        while True:
            now = time.monotonic()
            if now >= until:
                raise TimeoutError
            if now >= self._look:
                self._look = now + 0.1
                held, worked = _used(self._zygote)
                self._since = self._since or (now, worked)
                if held - self._loaded > self._limits.memory:
                    raise MemoryError
            if ready.poll(1000 * (min(self._look, until) - now)):
                return

    def _waited(self) -> bool:
        """Say of a process that is late whether it computed for less than most of its time."""
        now = time.monotonic()
        if self._since is None or now >= self._until:
            return True  # what it did before its last question is not known here
        begin, before = self._since
        _, worked = _used(self._zygote)
        return worked - before < _BUSY * (now - begin)

    def _failure(self, told: Any, *, own: bool = False) -> Failure:
        """Read what the process says of an error, believing only what has the form of one.

        Names are of those that the probes ask for, cells and lines of those that were sent: in words and
        numbers of its own it could pass on what it is asked with. ``own`` is for the errors of a
        notebook's cells, which ran before anything was sent: there the text of the error is the
        student's, and is kept.
        """
        if not isinstance(told, dict):
            return Failure("wire")
        kind, cell, line = told.get("type"), told.get("cell"), told.get("line")
        name, what = told.get("name"), told.get("what")
        detail = ""
        if own:
            detail = str(told.get("text", ""))[:500]
        elif kind == "missing":
            if not isinstance(name, str) or name not in self._names:
                return Failure("wire")
            detail = name
        elif kind == "returned":
            detail = what if isinstance(what, str) and what in _TYPES else "object"
        if not isinstance(cell, str) or cell not in self._lines:
            cell, line = "", 0
        elif type(line) is not int or line < 1:
            line = 0
        else:
            line = min(line, self._lines[cell])
        kind = kind if isinstance(kind, str) and kind in _KINDS else "Exception"
        return Failure(kind, detail, cell, line)


@cache
def _asked_for(probe: str) -> frozenset[str]:
    """Return the names that probes look up in what they get first: the student's functions."""
    tree = ast.parse(probe)
    first = {
        argument.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for argument in (node.args.posonlyargs + node.args.args)[:1]
    }
    return frozenset(
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in first
    )


def _used(pid: int) -> tuple[int, float]:
    """Return the bytes that a process and all that came of it hold, and the CPU seconds they have had.

    Pages that they share are counted once. What ended and was waited for counts with who waited.
    """
    held, worked = 0, 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):
                worked += sum(one.cpu_times()[:4])
                held += _share(one.pid)
    return held, worked


def _share(pid: int) -> int:
    """Return a process's proportional share of memory in bytes (proc(5), smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    return 0
