"""Pick an image, choose an attack, and move how far each pixel may go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure as Drawing
from torch import Tensor, nn

from course_lib import plots
from course_lib.classifiers import evaluating
from course_lib.figures.figure import Answer, Figure, to_bytes
from course_lib.figures.program import Program, trace

#: bim(model, x, y, eps, alpha, steps) -> x_adv; with one step of alpha = eps it is FGSM.
Bim = Callable[[nn.Module, Tensor, Tensor, float, float, int], Tensor]


def fgsm_explorer(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    bim: Bim,
    title: str,
    alt: str,
    methods: Mapping[str, tuple[int, float]] | None = None,
    names: Sequence[str] | None = None,
    start: float = 0.08,
    most: float = 0.3,
) -> Figure:
    """Return a figure in which the reader attacks ``model`` on one of the images ``x``.

    ``model``: a classifier, (N, C, H, W) in [0, 1] to logits (N, K). ``x``: (N, C, H, W), kept in
    256 levels; ``y``: (N,), the true classes, called ``names``. ``methods``: what can be chosen, each
    as (steps, alpha as a share of epsilon); by default FGSM, one step of epsilon, and BIM, eight of
    a quarter. ``bim(model, x, y, eps, alpha, steps)`` makes them in Jupyter, so that a student's own
    can be put in; a page makes the same steps itself. The slider goes from 0 to ``most``.

    Raises ``ValueError`` for images out of range, labels that do not fit, or a ``start`` beyond
    ``most``; and, while a book is built, as ``program.trace`` does.
    Source: Goodfellow et al. 2015, section 4; Kurakin et al. 2017, section 2.2.
    """
    pixels = to_bytes("x", x)
    x = torch.from_numpy(pixels).float() / 255
    methods = {"FGSM": (1, 1.0), "BIM": (8, 0.25)} if methods is None else dict(methods)
    if not 0 <= start <= most <= 1 or most == 0:
        raise ValueError(f"start, most: expected 0 <= start <= most <= 1, got {start}, {most}")
    with torch.no_grad(), evaluating(model):
        classes = model(x[:1]).shape[1]
    if y.shape != (len(x),) or int(y.min()) < 0 or int(y.max()) >= classes:
        raise ValueError(
            f"y: expected {len(x)} classes from 0 to {classes - 1}, got {tuple(y.shape)}: {y.tolist()}"
        )
    names = [str(i) for i in range(classes)] if names is None else list(names)
    if len(names) != classes:
        raise ValueError(f"names: expected {classes}, one per class; got {len(names)}")

    def attack(index: int, eps: float, alpha: float, steps: int) -> Answer:
        image, label = x[index : index + 1], y[index : index + 1]
        if eps > 0:
            with torch.enable_grad():
                image = bim(model, image, label, eps, alpha, steps).detach()
        with evaluating(model):
            return {"image": image, "probabilities": model(image).softmax(dim=1)}

    def write_down() -> Program:
        with evaluating(model):
            return trace(model, x[:1])

    def draw() -> Drawing:
        steps, share = next(iter(methods.values()))
        with torch.no_grad():
            found = attack(0, start, share * start, steps)
        image, probabilities = found["image"], found["probabilities"]
        assert isinstance(image, Tensor) and isinstance(probabilities, Tensor)
        figure, axes = plt.subplots(1, 4, figsize=(7.2, 2.0), width_ratios=[1, 1, 1, 1.7])
        change = ((image - x[:1]) / (2 * max(start, 1e-9)) + 0.5).clamp(0, 1)
        titles = ("the image x", "what was added", "what the network sees")
        for axis, title, picture in zip(axes, titles, (x[:1], change, image), strict=False):
            shown = picture[0].permute(1, 2, 0).numpy()
            axis.imshow(shown if shown.shape[2] == 3 else shown[..., 0], vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.set_title(title, fontsize=8, loc="center")
            axis.grid(False)
        axes[3].bar(range(classes), probabilities[0].tolist(), color=plots.ATTACK)
        axes[3].set_xticks(range(classes), names)
        axes[3].set_ylim(0, 1)
        axes[3].set_title("probability", fontsize=8, loc="center")
        axes[3].grid(axis="x", visible=False)
        return figure

    return Figure(
        kind="fgsm_explorer",
        title=title,
        alt=alt,
        spec={
            "shape": list(x.shape[1:]),
            "labels": y.tolist(),
            "names": names,
            "methods": {
                name: {"steps": steps, "alpha": share} for name, (steps, share) in methods.items()
            },
            "start": start,
            "most": most,
        },
        draw=draw,
        data={"images": pixels},
        # A rounded weight flips the sign of gradients that are nearly nothing.
        precision="float32",
        programs={"model": write_down},
        answers={"attack": attack},
    )
