"""What runs beside a student's code, inside the locked process: it executes cells and makes calls.

From the first cell on, nothing this process says is proof of anything: the student's code lives in
it and can change all of it. It holds no reference, no expected value and no other submission; the
grader takes numbers from it and judges them elsewhere.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import importlib.abc
import inspect
import linecache
import random
import socket
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from course_lib.grading import wire

#: The longest text of a cell's own error that is passed on.
TEXT = 500


class MissingName(Exception):
    """A function that the notebook should define and does not."""


class Student:
    """The names that a notebook's cells define, as attributes.

    ``student.fgsm(...)`` calls the student's function; a name that is not there raises
    ``MissingName``. ``with student.replaced(fgsm=stub):`` puts another function under a name for a
    while, so that one mistake is not counted twice.
    """

    def __init__(self, names: dict[str, Any]) -> None:
        self.__dict__["names"] = names

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["names"][name]
        except KeyError:
            raise MissingName(name) from None

    @contextmanager
    def replaced(self, **others: Any) -> Iterator[None]:
        """Put other values under some names for as long as the ``with`` block runs."""
        names = self.__dict__["names"]
        before = {name: names[name] for name in others if name in names}
        names.update(others)
        try:
            yield
        finally:
            for name in others:
                names.pop(name, None)
            names.update(before)


class Notebook:
    """The cells of one submission, executed in order in one namespace, and calls of what they define.

    An error in one cell does not keep the next from running, just as in Jupyter.
    """

    def __init__(self) -> None:
        module = types.ModuleType("__main__")
        # What pickles, dataclasses and type hints look for is where they look for it.
        sys.modules["__main__"] = module
        self.names: dict[str, Any] = module.__dict__
        shell = _Shell(self.names)
        self.names.update(get_ipython=lambda: shell, display=lambda *_, **__: None)
        self.names.update(In=[""], Out={}, _="", __="", ___="")
        self.cells: set[str] = set()

    def run(self, cell: str, source: str) -> dict[str, Any] | None:
        """Execute one cell; return None, or its error as ``{"type", "line", "text"}``."""
        filename = f"<{cell}>"
        self.cells.add(filename)
        try:
            plain = _without_magic(source)
            # A traceback, inspect.getsource and torch.jit find a cell's text here.
            linecache.cache[filename] = (len(plain), None, plain.splitlines(True), filename)
            _execute(plain, filename, self.names)
        except BaseException as error:
            told = self._error(error)
            told["text"] = _short(error)
            return told
        return None

    def call(
        self, probe: types.ModuleType, name: str, sent: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Call one probe with what was sent; return a message and the arrays that came out."""
        try:
            import torch

            arguments = {
                key: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
                for key, value in sent.items()
            }
            answer = getattr(probe, name)(Student(self.names), **arguments)
        except BaseException as error:
            return {"error": self._error(error)}, {}
        arrays: dict[str, np.ndarray] = {}
        for key, value in answer.items():
            try:
                arrays[key] = numbers(value)
            except BaseException:
                return {"error": {"type": "returned", "what": _kind(value), "key": key}}, {}
        return {}, arrays

    def _error(self, error: BaseException) -> dict[str, Any]:
        """Where and of what kind, never the text: it could carry what the grader sent."""
        told: dict[str, Any] = {"type": _builtin(error)}
        if "can't allocate memory" in _short(error):  # what torch says
            told = {"type": "MemoryError"}
        if isinstance(error, MissingName):
            told = {"type": "missing", "name": str(error)}
        if isinstance(error, SyntaxError) and error.filename in self.cells:
            told |= {"cell": str(error.filename)[1:-1], "line": error.lineno}
        traceback = error.__traceback__
        while traceback is not None:
            filename = traceback.tb_frame.f_code.co_filename
            if filename in self.cells:
                told |= {"cell": filename[1:-1], "line": traceback.tb_lineno}
            traceback = traceback.tb_next
        return told


def numbers(value: Any) -> np.ndarray:
    """Return a tensor, array, number, or nested list of numbers as a plain array.

    Half precisions come back as float32. Raises ``TypeError`` for anything else.
    """
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().resolve_conj().resolve_neg()
        if value.dtype in (torch.float16, torch.bfloat16):
            value = value.float()
        array: np.ndarray = value.numpy()
    elif isinstance(value, (list, tuple)):
        array = np.asarray([numbers(item) for item in value])
    elif isinstance(value, (bool, int, float, np.generic, np.ndarray)):
        array = np.asarray(value)
    else:
        raise TypeError(f"not numbers: {type(value).__name__}")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"not numbers: {array.dtype}")
    if array.dtype.itemsize > 8:  # long double
        array = array.astype(np.float64)
    return array


def module(name: str, source: str) -> types.ModuleType:
    """Return a module made from source text."""
    made = types.ModuleType(name)
    exec(compile(source, f"[{name}]", "exec", dont_inherit=True), made.__dict__)
    return made


def _execute(source: str, filename: str, names: dict[str, Any]) -> None:
    """Run code as a cell runs: an ``await`` outside functions is fine."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, filename, "exec", flags, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(types.FunctionType(code, names)())
    else:
        exec(code, names)


def _without_magic(source: str) -> str:
    """Turn IPython's ``%``, ``!`` and ``?`` lines into calls of ``get_ipython()``, as IPython does."""
    try:
        compile(source, "", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        return str(TransformerManager().transform_cell(source))
    return source


class _Shell:
    """What is left of IPython's shell here: ``%%time`` runs its cell, the rest does nothing."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    def run_cell_magic(self, name: str, line: str, cell: str) -> None:
        if name in ("time", "timeit", "capture", "prun"):
            _execute(_without_magic(cell), f"<%%{name}>", self._names)

    def run_line_magic(self, name: str, line: str, *_: Any) -> None:
        if name == "time":
            with suppress(SyntaxError):
                _execute(line, "<%time>", self._names)

    def getoutput(self, *_: Any, **__: Any) -> list[str]:
        return []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: None


def _builtin(error: BaseException) -> str:
    for kind in type(error).__mro__:
        if vars(builtins).get(kind.__name__) is kind:
            return str(kind.__name__)
    return "Exception"


def _kind(value: Any) -> str:
    for kind in type(value).__mro__:
        if vars(builtins).get(kind.__name__) is kind and kind is not object:
            return str(kind.__name__)
    return "NoneType" if value is None else "object"


def _short(error: BaseException) -> str:
    try:
        return str(error)[:TEXT]
    except BaseException:
        return ""


def sent_values(
    names: Sequence[str], values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Put what came as JSON and what came as arrays together, in the order it was sent."""
    return {name: arrays[name] if name in arrays else values[name] for name in names}


class _Absent(importlib.abc.MetaPathFinder):
    """Says of the modules that hold what students are to write that they are not there."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = set(names)

    def find_spec(self, fullname: str, *_: Any) -> None:
        if ".".join(fullname.split(".")[:2]) in self._names:
            raise ModuleNotFoundError(
                f"{fullname} is not there when your work is graded: it holds what you are to write",
                name=fullname,
            )


def ready(absent: Sequence[str]) -> None:
    """Load, before any fork, what every child needs; ``absent`` lists modules that are not to load."""
    sys.meta_path.insert(0, _Absent(absent))
    import torch

    torch.set_num_threads(1)
    # The first step of an optimizer loads half of torch. A backward pass must wait for the child:
    # its threads do not survive a fork.
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    for kind in (torch.optim.SGD, torch.optim.Adam):
        kind([weight], lr=0.1).step()
    import IPython.core.inputtransformer2  # noqa: F401


def serve(channel: socket.socket) -> None:
    """Do what the grader asks on ``channel`` until it goes away."""
    notebook = Notebook()
    probe: types.ModuleType | None = None
    while True:
        try:
            asked, arrays = wire.receive(channel)
        except EOFError:
            return
        answer: dict[str, Any] = {}
        out: dict[str, np.ndarray] = {}
        if "cells" in asked:
            seed()
            errors = {name: notebook.run(name, source) for name, source in asked["cells"]}
            answer = {"errors": {name: told for name, told in errors.items() if told is not None}}
        elif "probe" in asked:
            probe = module("probe", asked["probe"])
        else:
            seed()
            assert probe is not None
            sent = sent_values(asked["names"], asked["values"], arrays)
            answer, out = notebook.call(probe, asked["call"], sent)
        try:
            wire.send(channel, answer, out)
        except wire.WireError:
            wire.send(channel, {"error": {"type": "wire"}}, {})


def seed() -> None:
    """Start every call from the same random numbers and settings, whatever a cell has set."""
    import torch

    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
