"""What every live figure is: its data, its networks, a picture of its first state, and two faces.

In Jupyter a figure is a widget whose questions the kernel answers. On a built page it is a custom
element that answers them itself, with the networks shipped beside the page. Where neither runs
(no JavaScript, print, PDF) there is the picture.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from course_lib import plots
from course_lib.figures import bundle
from course_lib.figures.program import Program, pack

#: What the built page's renderer looks for in a cell's outputs.
MIME = "application/vnd.course-figure+json"

#: Bytes that one figure's code, networks and data may be together, as they travel.
BUDGET = 400_000

#: The house's colours by the names that style.css has for them.
COLOURS = {
    "real": plots.REAL,
    "fake": plots.FAKE,
    "defence": plots.DEFENCE,
    "attack": plots.ATTACK,
    "muted": plots.MUTED,
    "ink": plots.INK,
}

Answer = Mapping[str, "Tensor | float | str | list[float]"]


@dataclass(frozen=True, eq=False)
class Figure:
    """A live figure; IPython displays it as the last value of a cell, or by ``display(figure)``.

    ``kind``: what its JavaScript is called, an export of one of the sources in js/. ``title``: one
    line. ``alt``: what is seen and what it means.
    ``spec``: what its JavaScript needs to know, as JSON. ``data``: uint8 or float arrays for it.
    ``programs``: networks, each a function that writes its program down (a page needs it; Jupyter
    does not). ``precision``: how weights travel. ``answers``: by question, what the kernel computes.
    ``draw``: a Matplotlib drawing of the first state.
    """

    kind: str
    title: str
    alt: str
    spec: dict[str, Any]
    draw: Callable[[], Drawing]
    data: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    programs: dict[str, Callable[[], Program]] = field(default_factory=dict)
    answers: dict[str, Callable[..., Answer]] = field(default_factory=dict)
    precision: str = "float16"

    def __post_init__(self) -> None:
        """Refuse an alt text that says nothing where it is written, not where it is shown."""
        plots.alt_text(self.alt)

    def _ipython_display_(self) -> None:
        """Display what belongs here: a page's figure while a book is built, else a widget."""
        from IPython.display import display

        picture = self.picture()
        faces: dict[str, Any] = {}
        if for_a_page():
            # As text: a notebook file sorts the keys of JSON, and the order of choices has a meaning.
            faces[MIME] = json.dumps({**self.page(), "picture": picture})
        else:
            shown = self.widget()._repr_mimebundle_()
            faces |= shown[0] if isinstance(shown, tuple) else shown
        faces |= {"image/png": picture.pop("png"), "text/plain": f"[Figure: {picture['alt']}]"}
        display(faces, raw=True, metadata={"image/png": picture})

    def picture(self) -> dict[str, Any]:
        """Return the picture of the first state: ``png`` (base64), ``alt``, ``width``, ``height``."""
        content, metadata = plots.png(self.draw(), alt=self.alt)
        return {"png": base64.b64encode(content).decode(), **metadata}

    def page(self) -> dict[str, Any]:
        """Return what a page needs: ``element`` (JSON for the custom element) and ``files``, base64.

        Raises ``ValueError`` for a network that a page cannot run, weights that are not finite or
        do not fit their precision, and a figure of more than ``BUDGET`` bytes.
        """
        programs = {name: write() for name, write in self.programs.items()}
        packs = {name: (program.arrays, self.precision) for name, program in programs.items()}
        if self.data:
            packs["data"] = (self.data, one_type(self.data))
        files, table = {}, []
        for key, (arrays, dtype) in packs.items():
            contents, content = pack(arrays, dtype)
            # By its content: figures that show one network share one file.
            name = f"{key}.{hashlib.sha256(content).hexdigest()[:12]}.bin"
            files[name] = base64.b64encode(content).decode()
            table.append({"key": key, "name": name, "contents": contents})
        element = {
            "kind": self.kind,
            "spec": {"title": self.title, **self.spec},
            "programs": {name: program.spec for name, program in programs.items()},
            "files": table,
        }
        texts = (bundle.module(self.kind), json.dumps(element))
        size = sum(len(text.encode()) for text in texts)
        size += sum(len(content) * 3 // 4 for content in files.values())
        if size > BUDGET:
            raise ValueError(
                f"the figure {self.title!r} would send {size:,} bytes, more than {BUDGET:,}: show "
                f"fewer images, a smaller network, or weights in float16"
            )
        return {"element": element, "files": files}

    def widget(self) -> Any:
        """Return an anywidget that shows the figure; this kernel answers its questions."""
        from course_lib.figures.widget import FigureWidget  # anywidget takes a while to import

        return FigureWidget(self)

    def answer(self, question: str, **arguments: Any) -> Answer:
        """Answer one question of the figure, as the kernel does in Jupyter.

        Raises ``ValueError`` for a question that the figure does not have.
        """
        if question not in self.answers:
            raise ValueError(f"question: expected {', '.join(self.answers)}, got {question!r}")
        with torch.no_grad():
            return self.answers[question](**arguments)


def for_a_page() -> bool:
    """Whether a book is being built: then there is no kernel for a widget to ask later."""
    return os.environ.get("COURSE_FIGURES") == "page"


def one_type(data: dict[str, np.ndarray[Any, Any]]) -> str:
    """Return the type in which a figure's arrays travel: uint8 if all have it, else float32."""
    return "uint8" if all(array.dtype == np.uint8 for array in data.values()) else "float32"


def write(page: dict[str, Any], folder: Path) -> None:
    """Write the files of a figure's page and its module into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = page["element"]["kind"]
    content = {name: base64.b64decode(text) for name, text in page["files"].items()}
    for name, payload in {bundle.name(kind): bundle.module(kind).encode(), **content}.items():
        # A name says its content: what is there in full is right.
        if not (folder / name).is_file() or (folder / name).stat().st_size != len(payload):
            (folder / name).write_bytes(payload)


def opening(page: dict[str, Any], address: str) -> str:
    """Return the HTML that goes before a figure's picture; ``CLOSING`` goes after it.

    ``address``: of the folder that ``write`` filled, as the page sees it.
    """
    element = page["element"]
    # In HTML a script's text ends at the first "</".
    text = json.dumps(element, ensure_ascii=False).replace("</", "<\\/")
    return (
        f'<script type="module" src="{address}/{bundle.name(element["kind"])}"></script>'
        f'<course-figure><script type="application/json">{text}</script>'
    )


CLOSING = "</course-figure>"


def to_bytes(name: str, images: Tensor) -> np.ndarray[Any, Any]:
    """Return images (N, C, H, W) in [0, 1] as uint8, for a figure's data.

    Raises ``ValueError`` for another shape or range, or NaN.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(
            f"{name}: expected shape (N, 1 or 3, H, W), N > 0; got {tuple(images.shape)}"
        )
    pixels = images.detach().float().cpu()
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{name}: expected values in [0, 1], got [{low:.3g}, {high:.3g}]")
    found: np.ndarray[Any, Any] = (pixels * 255).round().to(torch.uint8).numpy()
    return found
