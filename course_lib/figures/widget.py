"""Jupyter's face of a figure: the page's module as a widget that asks the kernel."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets
from torch import Tensor

from course_lib.figures import bundle
from course_lib.figures.figure import Figure, one_type
from course_lib.figures.program import pack


class FigureWidget(anywidget.AnyWidget):
    """Shows a figure in a notebook; every question of its JavaScript goes to ``figure.answer``."""

    _esm = traitlets.Unicode().tag(sync=True)
    kind = traitlets.Unicode().tag(sync=True)
    spec = traitlets.Dict().tag(sync=True)
    contents = traitlets.List().tag(sync=True)  # type: ignore[var-annotated]
    data = traitlets.Bytes().tag(sync=True)

    def __init__(self, figure: Figure) -> None:
        contents, content = pack(figure.data, one_type(figure.data))
        super().__init__(
            _esm=bundle.module(figure.kind),
            kind=figure.kind,
            spec={"title": figure.title, **figure.spec},
            contents=contents,
            data=content if figure.data else b"",
        )
        self.figure = figure
        self.on_msg(self._reply)

    def _reply(self, _widget: Any, message: dict[str, Any], _buffers: Any) -> None:
        try:
            found = self.figure.answer(message["question"], **message["args"])
        except Exception as error:
            # The figure shows it where the reader looks, and the kernel goes on.
            self.send({"id": message["id"], "error": f"{type(error).__name__}: {error}"})
            return
        arrays = {name: value for name, value in found.items() if isinstance(value, Tensor)}
        plain = {name: value for name, value in found.items() if name not in arrays}
        buffers = [
            value.detach().float().cpu().contiguous().numpy().tobytes() for value in arrays.values()
        ]
        self.send({"id": message["id"], "arrays": list(arrays), "plain": plain}, buffers)
