"""The kit for a figure of one's own: a function, its sliders, and what its results are shown as."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure as Drawing
from torch import Tensor, nn

from course_lib.classifiers import evaluating
from course_lib.figures.figure import COLOURS, Answer, Figure
from course_lib.figures.program import Function, trace

Colour: TypeAlias = Literal["real", "fake", "attack", "defence", "ink", "muted"]


@dataclass(frozen=True)
class Slider:
    """A number from ``low`` to ``high``, first at ``start`` (default: in the middle).

    It moves in ``step`` (default: a hundredth of the way); with ``log`` in a hundred equal ratios,
    and both ends are positive. ``decimals``: with how many it is shown.
    """

    label: str
    low: float
    high: float
    start: float | None = None
    step: float | None = None
    decimals: int = 2
    log: bool = False

    def __post_init__(self) -> None:
        """Refuse ends, a start or a step that do not fit each other."""
        name = f"Slider {self.label!r}"
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{name}: expected low < high, got {self.low}, {self.high}")
        if self.start is not None and not self.low <= self.start <= self.high:
            raise ValueError(
                f"{name}: expected start in [{self.low}, {self.high}], got {self.start}"
            )
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"{name}: expected low > 0 and no step for log, got {self.low}")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(
                f"{name}: expected 0 < step <= {self.high - self.low}, got {self.step}"
            )

    @property
    def first(self) -> float:
        """The value at the start."""
        if self.start is not None:
            return self.start
        if self.log:
            return math.sqrt(self.low * self.high)
        half = (self.high - self.low) / 2
        return self.low + (half if self.step is None else self.step * (half // self.step))


@dataclass(frozen=True)
class Picture:
    """An image (1, 1 or 3, H, W), black at ``low`` and white at ``high``."""

    caption: str
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Bars:
    """Shares (1, K) in [0, 1], one bar for each of the ``labels``."""

    caption: str
    labels: Sequence[str]
    colour: Colour = "ink"


@dataclass(frozen=True)
class Curve:
    """A curve (1, len(x)) over ``x``; ``y``: its axis from and to (default: it follows the curve)."""

    caption: str
    x: Sequence[float]
    xlabel: str = ""
    ylabel: str = ""
    y: tuple[float, float] | None = None
    colour: Colour = "ink"


@dataclass(frozen=True)
class Number:
    """One number, (1,) or (1, 1)."""

    label: str
    decimals: int = 2
    unit: str = ""


Output: TypeAlias = Picture | Bars | Curve | Number


def explorer(
    function: Function,
    controls: Sequence[Slider],
    outputs: Sequence[Output],
    *,
    title: str,
    alt: str,
    precision: Literal["float16", "float32"] = "float32",
) -> Figure:
    """Return a figure with a slider for each input of ``function`` and a display for each output.

    ``function``: takes (1, len(controls)), float32, and returns one tensor or a tuple of them, as the
    ``outputs`` say. In Jupyter the kernel calls it, and it may do anything; for a page it is written
    down as ``program.trace`` does, so that it has to be made of operations that a page can run.
    ``precision``: how its constants travel to a page.

    Two pictures and how much of each::

        figures.explorer(
            lambda share: (1 - share) * a + share * b,  # a, b: pictures (1, 1, 28, 28)
            [figures.Slider("share of b", 0, 1)],
            [figures.Picture("the mixture")],
            title="Half of each",
            alt="The mean of a two and a seven.",
        )

    Raises ``ValueError`` for no control or no output, and for results that are not as declared, which
    it names; and, while a book is built, as ``program.trace`` does.
    """
    if not controls:
        raise ValueError("controls: expected one or more, got none")
    if not outputs:
        raise ValueError("outputs: expected one or more, got none")
    for i, output in enumerate(outputs):
        _check_declared(f"outputs[{i}]", output)
    start = [control.first for control in controls]

    def as_shown() -> AbstractContextManager[None]:
        return evaluating(function) if isinstance(function, nn.Module) else nullcontext()

    def values_at(values: Sequence[float]) -> list[Tensor]:
        x = torch.tensor([list(values)], dtype=torch.float32)
        if x.shape != (1, len(controls)):
            raise ValueError(
                f"values: expected {len(controls)}, one per control; got {len(values)}"
            )
        with torch.no_grad(), as_shown():
            returned = function(x)
        found = [returned] if isinstance(returned, Tensor) else list(returned)
        if len(found) != len(outputs):
            raise ValueError(f"function: expected {len(outputs)} outputs, got {len(found)}")
        for i, (value, output) in enumerate(zip(found, outputs, strict=True)):
            _check(f"outputs[{i}]", value, output)
        return [value.detach().float().cpu() for value in found]

    def run(values: Sequence[float]) -> Answer:
        return {str(i): value for i, value in enumerate(values_at(values))}

    first = values_at(start)
    described = []
    for output, value in zip(outputs, first, strict=True):
        described.append({"kind": type(output).__name__, **asdict(output)})
        if isinstance(output, Picture):
            described[-1]["shape"] = list(value.shape[1:])
        if isinstance(output, Curve):
            described[-1]["x"] = [float(x) for x in output.x]

    def program() -> Any:
        with as_shown():
            return trace(function, torch.tensor([start], dtype=torch.float32))

    return Figure(
        kind="explorer",
        title=title,
        alt=alt,
        spec={
            "controls": [{**asdict(control), "start": control.first} for control in controls],
            "outputs": described,
        },
        draw=lambda: _draw(outputs, first),
        precision=precision,
        programs={"function": program},
        answers={"run": run},
    )


def _check_declared(name: str, output: Output) -> None:
    if isinstance(output, Picture) and not output.low < output.high:
        raise ValueError(f"{name}: expected low < high, got {output.low}, {output.high}")
    if isinstance(output, Bars | Curve) and output.colour not in COLOURS:
        raise ValueError(f"{name}: expected a colour of {list(COLOURS)}, got {output.colour!r}")
    if isinstance(output, Bars) and len(output.labels) == 0:
        raise ValueError(f"{name}: expected one label or more, got none")
    if isinstance(output, Curve):
        x = [float(value) for value in output.x]
        if len(x) < 2 or not all(math.isfinite(v) for v in x) or x[0] >= x[-1]:
            raise ValueError(f"{name}: expected x of two or more finite values, from low to high")
        if output.y is not None and not output.y[0] < output.y[1]:
            raise ValueError(f"{name}: expected y from low to high, got {output.y}")


def _check(name: str, value: Any, output: Output) -> None:
    kind, called = (
        type(output).__name__,
        output.label if isinstance(output, Number) else output.caption,
    )
    name = f"{name} ({kind} {called!r})"
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: expected a tensor, got {type(value).__name__}")
    shape = tuple(value.shape)
    if isinstance(output, Picture):
        if len(shape) != 4 or shape[0] != 1 or shape[1] not in (1, 3):
            raise ValueError(f"{name}: expected shape (1, 1 or 3, H, W), got {shape}")
        return
    if isinstance(output, Number):
        if shape not in ((1,), (1, 1)):
            raise ValueError(f"{name}: expected shape (1,) or (1, 1), got {shape}")
        return
    length = len(output.labels if isinstance(output, Bars) else output.x)
    if shape != (1, length):
        raise ValueError(f"{name}: expected shape (1, {length}), got {shape}")
    if isinstance(output, Bars) and not (value.min() >= -1e-5 and value.max() <= 1 + 1e-5):
        raise ValueError(
            f"{name}: expected shares in [0, 1], got [{value.min():.3g}, {value.max():.3g}]"
        )


def _draw(outputs: Sequence[Output], values: Sequence[Tensor]) -> Drawing:
    widths = {Picture: 1.0, Bars: 1.4, Curve: 1.5, Number: 0.7}
    ratios = [widths[type(output)] for output in outputs]
    figure, axes = plt.subplots(
        1,
        len(outputs),
        figsize=(min(7.2, 2.4 * sum(ratios)), 2.5),
        width_ratios=ratios,
        squeeze=False,
    )
    for axis, output, value in zip(axes[0], outputs, values, strict=True):
        array = value[0].numpy()
        title = output.label if isinstance(output, Number) else output.caption
        axis.set_title(title, fontsize=8.5, loc="center", fontweight="normal", wrap=True)
        if isinstance(output, Picture):
            shown = ((array - output.low) / (output.high - output.low)).clip(0, 1)
            axis.imshow(shown.transpose(1, 2, 0) if len(shown) == 3 else shown[0], vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
        elif isinstance(output, Bars):
            axis.bar(range(len(output.labels)), array, color=COLOURS[output.colour])
            axis.set_xticks(range(len(output.labels)), output.labels, fontsize=8)
            axis.set_ylim(0, 1)
            axis.grid(axis="x", visible=False)
        elif isinstance(output, Curve):
            axis.plot([float(x) for x in output.x], array, color=COLOURS[output.colour])
            axis.set(xlabel=output.xlabel, ylabel=output.ylabel)
            if output.y is not None:
                axis.set_ylim(*output.y)
        else:
            text = f"{float(array.ravel()[0]):.{output.decimals}f} {output.unit}".strip()
            axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=13, fontweight="bold")
            axis.set_axis_off()
    return figure
