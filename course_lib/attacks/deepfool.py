"""DeepFool: walk to the nearest boundary as if the network were linear, look again, walk on.

Chapter: book/deceive/stronger.md
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from course_lib.attacks.gradient import check_images, per_image
from course_lib.classifiers import check_logits, evaluating


def deepfool(
    model: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    overshoot: float = 0.02,
    max_steps: int = 50,
    candidates: int = 10,
    direct: bool = True,
) -> Tensor:
    """Return, for each image, a small change in the Euclidean norm that makes ``model`` leave ``y``.

    ``x``: (N, ...) in [0, 1]; ``y``: int64 (N,), the classes to leave, by default the model's own
    answers, as in the paper. An image that the model does not read as ``y`` needs no change and comes
    back as it is; one that is not fooled after ``max_steps``, or whose gradient is zero, comes back as
    far as it got. ``overshoot``: by what share the whole change is lengthened, to land beyond the
    boundary; ``candidates``: how many of the likeliest other classes are looked at. ``direct``: how
    the box is kept, see ``deepfool_path``; without it, more steps find a smaller change. Returns x_adv
    like ``x``.

    Raises ``ValueError`` as ``deepfool_path`` does. Source: Moosavi-Dezfooli, Fawzi & Frossard,
    "DeepFool: a simple and accurate method to fool deep neural networks", 2016, Algorithm 2.
    """
    path = deepfool_path(
        model,
        x,
        y,
        overshoot=overshoot,
        max_steps=max_steps,
        candidates=candidates,
        direct=direct,
    )
    return deque(path, maxlen=1)[0]


def deepfool_path(
    model: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    overshoot: float = 0.02,
    max_steps: int = 50,
    candidates: int = 10,
    direct: bool = True,
) -> Iterator[Tensor]:
    """Yield the batch as DeepFool moves it: the images as they came, then x_adv after each step.

    Arguments are those of ``deepfool``. Images that are fooled stay where they are and cost nothing.
    The paper has no box. With ``direct`` each step goes to the nearest point of the box [0, 1] at which
    the linearised model is undecided; without, the paper's step is clipped to the box, and what it
    lost there is made up for by later steps, from gradients that are nearer the truth. Where the box
    does not bind both are the paper's closed form. As in the
    authors' program, though not in Algorithm 2, gradients are taken at the point with the overshoot,
    and the step starts from the point without it.

    Raises ``ValueError`` for x outside [0, 1], NaN, an empty batch, labels that do not fit, negative
    overshoot, max_steps or candidates below 1, and a model with fewer than two classes or without a
    gradient. Source: Moosavi-Dezfooli et al. 2016, equations 8 and 9.
    """
    x = x.detach()
    check_images(x, torch.zeros(len(x), dtype=torch.int64) if y is None else y)
    if not overshoot >= 0:
        raise ValueError(f"overshoot: expected at least 0, got {overshoot}")
    for name, value in (("max_steps", max_steps), ("candidates", candidates)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    answers = _logits(model, x, y).argmax(dim=1)
    y = answers if y is None else y.to(x.device)
    precise = torch.promote_types(x.dtype, torch.float32)
    to_hyperplane = _to_hyperplane if direct else _clipped_to_hyperplane

    def walk() -> Iterator[Tensor]:
        x_adv = x.clone()
        reached = x.to(precise, copy=True)  # x_i of the paper: without the overshoot
        active = (answers == y).nonzero()[:, 0]
        yield x_adv.clone()
        for _ in range(max_steps):
            if len(active) == 0:
                return
            start = reached[active]
            gaps, slopes = _linearised(model, x_adv[active], y[active], candidates)
            distance = torch.full((len(active),), torch.inf, dtype=precise, device=x.device)
            nearest = start
            for gap, slope in zip(gaps, slopes, strict=True):
                point, length = to_hyperplane(start, slope.to(precise), gap.to(precise))
                closer = length < distance
                distance = torch.where(closer, length, distance)
                nearest = torch.where(per_image(closer, x), point, nearest)
            reached[active] = nearest
            origin = x[active].to(precise)
            moved = (origin + (1 + overshoot) * (nearest - origin)).clamp(0, 1)
            x_adv[active] = moved.to(x.dtype)
            yield x_adv.clone()
            active = active[distance.isfinite()]  # a flat model shows no way
            if len(active):
                active = active[_logits(model, x_adv[active]).argmax(dim=1) == y[active]]

    return walk()


@torch.no_grad()
def _logits(model: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
    with evaluating(model):
        logits: Tensor = model(x)
    check_logits(logits, torch.zeros(len(x), dtype=torch.int64) if y is None else y)
    if logits.shape[1] < 2:
        raise ValueError(f"model: expected logits of 2 or more classes, got {tuple(logits.shape)}")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("model: expected finite logits, got NaN or infinity")
    return logits


def _linearised(
    model: nn.Module, x: Tensor, y: Tensor, candidates: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Return, for each of the likeliest other classes k, f_y - f_k (N,) and grad(f_k - f_y) (N, ...).

    One forward pass, then one backward pass of the whole batch per class.
    """
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        # Copies: a tensor made in inference mode cannot take part in a backward pass.
        x, y = x.clone().requires_grad_(), y.clone()
        logits: Tensor = model(x)
        others = logits.detach().scatter(1, y[:, None], -torch.inf)
        count = min(candidates, logits.shape[1] - 1)
        classes = others.topk(count, dim=1).indices
        mine = logits.gather(1, y[:, None])
        margins = logits.gather(1, classes) - mine  # (N, count), negative while y is read
        if not margins.requires_grad:
            raise ValueError("model: its logits have no gradient in x; does it detach or round it?")
        slopes = [
            torch.autograd.grad(margins[:, k].sum(), x, retain_graph=k < count - 1)[0]
            for k in range(count)
        ]
    if not all(bool(torch.isfinite(slope).all()) for slope in slopes):
        raise ValueError("model: the gradient of its logits is NaN or infinite")
    # What rounding leaves of a gap of 0 must still be crossed.
    least = torch.finfo(logits.dtype).eps * (1 + mine.detach().abs())
    gaps = (-margins.detach()).clamp(min=0) + least
    return list(gaps.unbind(dim=1)), slopes


def _to_hyperplane(x: Tensor, w: Tensor, gap: Tensor, rounds: int = 30) -> tuple[Tensor, Tensor]:
    """Return the point of the box [0, 1] nearest to ``x`` at which w . (point - x) = gap, and how far.

    ``x`` and ``w``: (N, ...); ``gap``: (N,), above 0. Where the box does not bind this is
    x + gap w / |w|^2. Otherwise it is x + t w, clipped, for the t at which the clipped sum is
    right; that sum is concave in t, so Newton's steps from 0 climb to it and never pass it. The distance
    is infinite where no point of the box will do.
    """
    shape = x.shape
    x, w = x.flatten(1), w.flatten(1)
    w, gap, flat = _scaled(w, gap)
    room = torch.where(w > 0, 1 - x, x)  # how far each value may go, all the way
    t = torch.zeros_like(gap)
    for _ in range(rounds):
        wanted = t[:, None] * w.abs()
        free = wanted < room
        done = (torch.where(free, wanted, room) * w.abs()).sum(dim=1)
        speed = (w.square() * free).sum(dim=1)
        short = gap - done
        if bool(((short <= 1e-6 * gap) | (speed == 0)).all()):
            break
        t = t + torch.where(speed > 0, short / speed.clamp(min=1e-30), 0)
    change = torch.minimum(t[:, None] * w.abs(), room) * w.sign()
    reaches = (change * w).sum(dim=1) >= 0.999 * gap
    length = change.norm(dim=1).where(reaches & ~flat, torch.inf)
    return (x + change).reshape(shape), length


def _clipped_to_hyperplane(x: Tensor, w: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
    """Return x + gap w / |w|^2, clipped to [0, 1], like ``x``, and how far it is unclipped, (N,)."""
    w, gap, flat = _scaled(w, gap)
    length2 = w.flatten(1).square().sum(dim=1).where(~flat, torch.ones_like(gap))
    t = gap / length2
    point = (x + per_image(t, x) * w).clamp(0, 1)
    return point, (t * length2.sqrt()).where(~flat, torch.inf)


def _scaled(w: Tensor, gap: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``w`` (N, ...) with a largest value of 1, ``gap`` (N,) to match, and where w is 0, (N,).

    The plane w . r = gap stays where it is, and the squares of small gradients do not vanish.
    """
    scale = w.flatten(1).abs().amax(dim=1)
    flat = scale == 0
    scale = scale.where(~flat, torch.ones_like(scale))
    return w / per_image(scale, w), gap / scale, flat
