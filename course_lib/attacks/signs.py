"""A network that reads drawn street signs, and stickers that make it misread them.

A sticker is a region of the flat sign that may take any colour; the rest stays as it is. It is made
for many views at once, so that it also works in views that it was not made for.

Chapter: book/deceive/stronger.md
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.attacks.gradient import input_gradient
from course_lib.attacks.pgd import pgd
from course_lib.data.signs import SIDE, Views


class SignNet(nn.Module):
    """A small convolutional network that reads street signs: (N, 3, 40, 40) to logits (N, 10).

    Three strided convolutions and two dense layers: 143,066 parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 5, stride=2, padding=2),  # 40 -> 20
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),  # 20 -> 10
            nn.ReLU(),
            nn.Conv2d(48, 64, 3, stride=2, padding=1),  # 10 -> 5
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 5 * 5, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, 10) of pictures (N, 3, 40, 40) in [0, 1].

        Raises ``ValueError`` for another shape.
        """
        if x.ndim != 4 or x.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"x: expected shape (N, 3, {SIDE}, {SIDE}), got {tuple(x.shape)}")
        logits: Tensor = self.body(x)
        return logits


class OverViews(nn.Module):
    """A model that judges the colours of a flat sign by how ``model`` reads many views of it.

    Turns (N, 3, H, W) in [0, 1] into (N, K): the logarithms of ``model``'s probabilities, averaged
    over ``views``. ``outline``: (1, H, W), as the sign has it.
    """

    def __init__(self, model: nn.Module, outline: Tensor, views: Views) -> None:
        super().__init__()
        self.model, self.outline, self.views = model, outline, views

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean log-probabilities (N, K) of flat colours (N, 3, H, W)."""
        pictures = [self.views.see(torch.cat([colour, self.outline.to(x)])) for colour in x]
        logits: Tensor = self.model(torch.cat(pictures))
        log_p = logits.log_softmax(dim=1).reshape(len(x), len(self.views), -1)
        return log_p.mean(dim=1)


def not_read_as(log_p: Tensor, y: Tensor) -> Tensor:
    """Return how little the views are read as ``y``: -E[log p(y | view)], (N,) from (N, K) and (N,)."""
    return -log_p.gather(1, y[:, None])[:, 0]


def sensitive(
    model: nn.Module, sign: Tensor, target: int, views: Views, *, squares: int = 8, side: int = 8
) -> Tensor:
    """Return the ``squares`` squares of a flat sign where colours move E[log p(target | view)] most.

    ``sign``: (4, H, W) in [0, 1]; its picture is divided into squares of ``side`` x ``side`` pixels,
    of which those that lie wholly on the plate are ranked by the mean of the gradient's size over
    ``views``. Returns a bool mask (H, W).

    Raises ``ValueError`` for another shape or range, a side that does not divide the picture, and
    more squares than lie on the plate. After the first stage of Eykholt et al. (2018, section 3.3),
    which finds the place for a sticker by an attack on the whole plate with an L1 penalty.
    """
    _check_flat(sign)
    if side < 1 or sign.shape[1] % side or sign.shape[2] % side:
        raise ValueError(f"side: expected a divisor of {tuple(sign.shape[1:])}, got {side}")
    over, y = OverViews(model, sign[3:], views), torch.tensor([target], device=sign.device)
    grad = input_gradient(over, sign[None, :3], y, not_read_as)
    size = F.avg_pool2d(grad.abs().sum(dim=1, keepdim=True), side)
    on_plate = -F.max_pool2d(-(sign[None, 3:].detach() > 0.5).to(size), side) == 1
    if not 1 <= squares <= int(on_plate.sum()):
        raise ValueError(
            f"squares: expected 1 to {int(on_plate.sum())}, as many as lie on the plate, "
            f"got {squares}"
        )
    size = torch.where(on_plate, size, -1)
    chosen = torch.zeros_like(size, dtype=torch.bool)
    chosen.view(-1)[size.view(-1).topk(squares).indices] = True
    return chosen[0, 0].repeat_interleave(side, dim=0).repeat_interleave(side, dim=1)


def sticker(
    model: nn.Module,
    sign: Tensor,
    region: Tensor,
    target: int,
    views: Views,
    *,
    alpha: float = 0.1,
    steps: int = 40,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Colour a region of a flat sign so that its views are read as ``target``.

    ``sign``: (4, H, W) in [0, 1], colours and outline; ``region``: bool (H, W), where colours may
    change, and there freely; ``target``: the class to reach; ``views``: those to make it for. PGD
    with a budget of 1 inside the region and 0 beside it climbs E[log p(target | view)], from random
    colours drawn with ``generator``, in ``steps`` steps of ``alpha``. Returns the sign, (4, H, W).

    Raises ``ValueError`` for another shape or range, a region that is not bool or is empty, and as
    ``pgd`` does. Source: Eykholt et al., "Robust physical-world attacks on deep learning visual
    classification", 2018, equation 3, without its term for what a printer can print; the mean over
    views is Athalye et al., "Synthesizing robust adversarial examples", 2018, section 2.1.
    """
    _check_flat(sign)
    if region.dtype != torch.bool or region.shape != sign.shape[1:] or not bool(region.any()):
        raise ValueError(
            f"region: expected a bool mask {tuple(sign.shape[1:])} that is True somewhere, got "
            f"{region.dtype} {tuple(region.shape)}"
        )
    colour = pgd(
        OverViews(model, sign[3:], views),
        sign[None, :3],
        torch.tensor([target], device=sign.device),
        region.expand(1, 3, -1, -1).to(sign.dtype),
        alpha,
        steps,
        generator=generator,
        targeted=True,
        loss=not_read_as,
    )
    return torch.cat([colour[0], sign[3:].detach()])


def _check_flat(sign: Tensor) -> None:
    if sign.ndim != 3 or len(sign) != 4:
        raise ValueError(f"sign: expected a flat sign (4, H, W), got {tuple(sign.shape)}")
