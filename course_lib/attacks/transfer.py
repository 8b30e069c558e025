"""Attacks that travel: images made to fool one model and shown to another.

Chapter: book/deceive/travel.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from course_lib.attacks.gradient import check_images, per_image
from course_lib.classifiers import check_examples, check_logits, evaluating

#: ``attack(model, x, y)`` gives x_adv; its budget is bound beforehand.
BoundAttack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def transfer_matrix(
    models: Sequence[nn.Module],
    attack: BoundAttack,
    x: Tensor,
    y: Tensor,
    *,
    targets: Sequence[nn.Module] | None = None,
    batch_size: int = 500,
) -> Tensor:
    """Return how often an image made to fool model i fools target j: (M, T), shares in [0, 1].

    Row i: the model attacked, whose gradients are used. Column j: the model asked; ``targets`` are
    the models themselves by default, and then the diagonal is the white-box rate. A share is of the
    images that both read right before the attack: an image that the target misreads anyway is no
    success. A target needs no gradient, only logits. ``x``: (N, ...) in [0, 1]; ``y``: int64 (N,),
    the true labels. Returns float64 on the CPU; the models are left as they were.

    Raises ``ValueError`` for no models, inputs that do not fit, a pair that reads no image right,
    and an attack that returns another shape, NaN, or pixels outside [0, 1]. Source: the matrices of
    Papernot, McDaniel & Goodfellow, "Transferability in machine learning", 2016, where every image
    counts.
    """
    check_images(x, y)
    targets = models if targets is None else targets
    for name, found in (("models", models), ("targets", targets)):
        if len(found) == 0:
            raise ValueError(f"{name}: expected one or more, got none")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    both = torch.zeros(len(models), len(targets), dtype=torch.float64)
    fooled = torch.zeros_like(both)
    for images, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
        right = _reads_right(targets, images, labels)
        source_right = right if targets is models else _reads_right(models, images, labels)
        for i, model in enumerate(models):
            x_adv = attack(model, images, labels).detach()
            _check_attacked(x_adv, images)
            fair = source_right[i] & right  # (T, N): by the source and by each target
            both[i] += fair.sum(dim=1).cpu()
            fooled[i] += (fair & ~_reads_right(targets, x_adv, labels)).sum(dim=1).cpu()
    if not bool((both > 0).all()):
        i, j = (both == 0).nonzero()[0].tolist()
        raise ValueError(
            f"models: number {i} and target {j} read no image right that both are shown"
        )
    shares: Tensor = fooled / both
    return shares


def aligned_directions(grad: Tensor, k: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Return ``k`` orthonormal directions per image that share its gradient equally: (N, k, ...).

    ``grad``: (N, ...), finite and nowhere 0 for a whole image. Each direction r has length 1 and
    r . g = |g| / sqrt(k), the most that k orthogonal directions can all have; what each has besides
    is random, drawn on the CPU by ``generator`` (default: seed 0). A step of length eps along any of
    them raises a linear loss by eps |g| / sqrt(k).

    Raises ``ValueError`` for k outside 1..d, d being an image's number of values, or a gradient that
    is 0. Source: Tramèr, Papernot, Goodfellow, Boneh & McDaniel, "The space of transferable
    adversarial examples", 2017: the gradient aligned adversarial subspace (GAAS).
    """
    check_examples("grad", grad)
    flat = grad.detach().flatten(1)
    n, d = flat.shape
    if not 1 <= k <= d:
        raise ValueError(f"k: expected 1 to {d}, as many as an image has values; got {k}")
    g = flat / flat.abs().amax(dim=1, keepdim=True)  # squares of small gradients would vanish
    g = g / g.norm(dim=1, keepdim=True)
    if not bool(g.isfinite().all()):
        raise ValueError(
            f"grad: {int((~g.isfinite()).any(dim=1).sum())} of {n} images have gradient 0"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    draw = torch.randn(n, d, k, generator=generator, dtype=torch.float64, device=generator.device)
    q = torch.linalg.qr(draw).Q.mT.to(flat)  # (N, k, d): any orthonormal directions
    # A reflection keeps them orthonormal. The one that takes their mean direction to g gives each the
    # same share of g; the one that takes it to -g, and a turn, does too. The further is the stabler.
    mean = q.sum(dim=1) / k**0.5
    turn = torch.where((mean * g).sum(dim=1, keepdim=True) > 0, -1.0, 1.0).to(flat)
    mirror = mean - turn * g
    mirror = mirror / mirror.norm(dim=1, keepdim=True)
    along = (q * mirror[:, None]).sum(dim=2, keepdim=True)
    directions: Tensor = turn[:, None] * (q - 2 * along * mirror[:, None])
    return directions.reshape(n, k, *grad.shape[1:])


def boundary_distance(
    model: nn.Module,
    x: Tensor,
    direction: Tensor,
    *,
    reach: float,
    points: int = 50,
    halvings: int = 12,
) -> Tensor:
    """Return how far from ``x`` along ``direction`` the model's answer changes first: (N,).

    ``x``: (N, ...); ``direction``: like x, of any length but 0; distances are Euclidean. The line is
    looked at in ``points`` places up to ``reach`` and the first that is answered differently is
    brought nearer by ``halvings`` bisections, so a change that is undone within reach / points can
    be missed. ``inf`` where there is none. Points beyond [0, 1] are looked at too: choose ``reach``.

    Raises ``ValueError`` for shapes that differ, a direction of length 0, a reach that is not above
    0 or not finite, points < 1 or halvings < 0. Source: Tramèr et al., 2017: the minimum distance
    MD_d(f, x).
    """
    check_examples("x", x)
    check_examples("direction", direction)
    if direction.shape != x.shape:
        raise ValueError(f"direction: expected {tuple(x.shape)}, got {tuple(direction.shape)}")
    if not 0 < reach < float("inf"):
        raise ValueError(f"reach: expected a finite distance above 0, got {reach}")
    if points < 1 or halvings < 0:
        raise ValueError(
            f"points, halvings: expected points >= 1 and halvings >= 0, got {points}, {halvings}"
        )
    length = direction.flatten(1).norm(dim=1)
    if not bool((length > 0).all()):
        raise ValueError(f"direction: {int((length == 0).sum())} of {len(x)} have length 0")
    unit = direction.detach() / per_image(length, x)
    x = x.detach()

    @torch.no_grad()
    def changed(images: Tensor, distances: Tensor, index: Tensor) -> Tensor:
        logits: Tensor = model(images + per_image(distances, images) * unit[index])
        return torch.ne(logits.argmax(dim=1), start[index])

    with evaluating(model), torch.no_grad():
        start = model(x).argmax(dim=1)
        found = torch.full_like(length, float("inf"))
        left = torch.arange(len(x), device=x.device)
        for point in range(1, points + 1):
            at = torch.full_like(length[left], reach * point / points)
            crossed = changed(x[left], at, left)
            found[left[crossed]] = at[crossed]
            left = left[~crossed]
            if len(left) == 0:
                break
        crossing = found.isfinite().nonzero()[:, 0]
        if len(crossing) == 0:
            return found
        high = found[crossing]
        low = high - reach / points
        for _ in range(halvings):
            middle = (low + high) / 2
            beyond = changed(x[crossing], middle, crossing)
            low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
        found[crossing] = high
    return found


@torch.no_grad()
def _reads_right(models: Sequence[nn.Module], x: Tensor, y: Tensor) -> Tensor:
    """Return which images each model reads right: bool (M, N)."""
    rows = []
    for model in models:
        with evaluating(model):
            logits: Tensor = model(x)
        check_logits(logits, y)
        rows.append(logits.argmax(dim=1) == y)
    return torch.stack(rows)


def _check_attacked(x_adv: Tensor, x: Tensor) -> None:
    if x_adv.shape != x.shape or not bool(((x_adv >= 0) & (x_adv <= 1)).all()):
        raise ValueError(
            f"attack: expected images {tuple(x.shape)} in [0, 1], got {tuple(x_adv.shape)} in "
            f"[{float(x_adv.min()):.4g}, {float(x_adv.max()):.4g}]"
        )
