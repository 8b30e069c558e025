"""Few-pixel attacks: change hardly any pixel, each as far as it likes, without the gradient or with it.

Chapter: book/deceive/stronger.md
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from course_lib import device
from course_lib.attacks.gradient import check_images, input_gradient, margin
from course_lib.classifiers import check_logits, evaluating


@torch.no_grad()
def few_pixel(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    pixels: int = 1,
    *,
    targeted: bool = False,
    population: int = 400,
    generations: int = 100,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Replace at most ``pixels`` pixels of each image, found by differential evolution.

    ``x``: (N, C, H, W) in [0, 1]; ``y``: int64 (N,), the true labels, or with ``targeted`` the labels
    to reach. A candidate is a row, a column and C values for each pixel; a ``population`` of them
    goes through the model at a time, at most ``generations`` + 1 times, and the search for an image
    ends once a candidate fools the model. Images that fool it as they are come back unchanged, those
    that resist with the best candidate found. ``generator``: seeded, on the CPU; by default of seed
    0. The model's gradient is not used. Returns x_adv like ``x``.

    Raises ``ValueError`` for images that are not (N, C, H, W) in [0, 1], an empty batch, labels that
    do not fit, logits that are not finite, and ``pixels``, ``population`` or ``generations`` out of
    range. Source: Su, Vargas & Sakurai, "One pixel attack for fooling deep neural networks", 2019,
    section III (DE/rand/1, F = 0.5, no crossover, values drawn from a Gaussian).
    """
    _check(x, y)
    if not 1 <= pixels <= x[0, 0].numel():
        raise ValueError(f"pixels: expected 1 to {x[0, 0].numel()}, got {pixels}")
    # A candidate, three others to mix, and one to spare.
    for name, value, least in (("population", population, 5), ("generations", generations, 1)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    generator = device.generator(0) if generator is None else generator
    seeds = torch.randint(2**31, (len(x),), generator=generator).tolist()
    x_adv = x.detach().clone()
    with evaluating(model):
        for i, seed in enumerate(seeds):
            x_adv[i] = _search(
                model, x_adv[i], y[i], pixels, targeted, population, generations, seed
            )
    return x_adv


def _search(
    model: nn.Module,
    image: Tensor,
    label: Tensor,
    pixels: int,
    targeted: bool,
    population: int,
    generations: int,
    seed: int,
) -> Tensor:
    """Return one image (C, H, W), changed in at most ``pixels`` pixels."""
    # Here, because it takes a while to import and no other attack needs it.
    from scipy.optimize import Bounds, differential_evolution

    channels, height, width = image.shape

    def judge(images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to make small, and which images fool the model."""
        labels = label.expand(len(images))
        logits: Tensor = model(images)
        check_logits(logits, labels)
        _check_finite(logits)
        # The paper's fitness is the label's probability p. Evolution only compares, and the log-odds
        # log p / (1 - p) rise with p but tell candidates apart where p itself is rounded to 1.
        others = logits.double().scatter(1, labels[:, None], -torch.inf).logsumexp(dim=1)
        odds = logits.double().gather(1, labels[:, None])[:, 0] - others
        hit = logits.argmax(dim=1) == label
        return (-odds, hit) if targeted else (odds, ~hit)

    def draw(candidates: NDArray[np.float64]) -> Tensor:
        """Return the images (S, C, H, W) of candidates (S, pixels * (2 + C))."""
        images = image.repeat(len(candidates), 1, 1, 1)
        each = torch.arange(len(candidates), device=image.device)
        genes = torch.from_numpy(candidates).to(image.device)
        for gene in genes.reshape(len(candidates), pixels, 2 + channels).unbind(dim=1):
            row = gene[:, 0].long().clamp(max=height - 1)
            column = gene[:, 1].long().clamp(max=width - 1)
            images[each, :, row, column] = gene[:, 2:].to(image.dtype)
        return images

    if bool(judge(image[None])[1]):
        return image
    fooled: list[Tensor] = []

    def energies(candidates: NDArray[np.float64]) -> Any:  # SciPy's types know no vectorized=True
        images = draw(candidates.T)
        energy, hit = judge(images)
        if bool(hit.any()) and not fooled:
            fooled.append(images[int(hit.int().argmax())])
        return energy.cpu().numpy()

    def stop(best: NDArray[np.float64], convergence: object) -> None:
        if fooled:
            raise StopIteration

    rng = np.random.default_rng(seed)
    first = rng.uniform(size=(population, pixels, 2 + channels)) * [height, width, *[1] * channels]
    first[:, :, 2:] = rng.normal(0.5, 0.5, size=first[:, :, 2:].shape).clip(0, 1)
    best = differential_evolution(
        energies,
        Bounds(0, [height, width, *[1] * channels] * pixels),
        strategy="rand1bin",
        mutation=0.5,
        recombination=1,  # every gene from the mutant: no crossover
        init=first.reshape(population, -1),
        maxiter=generations,
        callback=stop,
        tol=0,
        atol=-1,  # never "converged": where all do alike, none has hit upon the pixel yet
        polish=False,
        vectorized=True,
        updating="deferred",
        seed=rng,
    )
    return fooled[0] if fooled else draw(best.x[None])[0]


def fewest_pixels(
    model: nn.Module, x: Tensor, y: Tensor, *, most: int = 60, tries: int = 8
) -> Tensor:
    """Turn pixels to black or white, one at a time, the one that promises most, until fooled.

    The promise of a pixel is first order: its slope times how far it can go. Of the ``tries`` most
    promising, the one is kept that brings the best wrong logit nearest to the right one, or furthest
    above it. ``x``: (N, C, H, W) in [0, 1]; ``y``: int64 (N,), the true labels. Images that fool the
    model as they are come back unchanged, those that resist ``most`` pixels as far as they got.
    Returns x_adv like ``x``.

    Raises ``ValueError`` for images that are not (N, C, H, W) in [0, 1], an empty batch, labels that
    do not fit, ``most`` or ``tries`` below 1, or a model that gives no gradient. Source: after
    Papernot et al., "The limitations of deep learning in adversarial settings", 2016, section IV,
    with the margin in place of a target's saliency.
    """
    _check(x, y)
    for name, value in (("most", most), ("tries", tries)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    places = x[0, 0].numel()
    tries = min(tries, places)
    x_adv = x.detach().clone()
    used = torch.zeros(len(x), places, dtype=torch.bool, device=x.device)
    active = (_margin(model, x_adv, y) <= 0).nonzero()[:, 0]
    for _ in range(min(most, places)):
        if len(active) == 0:
            break
        images, labels = x_adv[active], y[active]
        grad = input_gradient(model, images, labels, margin)
        end = (grad > 0).to(x.dtype)
        promise = (grad * (end - images)).sum(dim=1).flatten(1)
        picks = promise.masked_fill(used[active], -torch.inf).topk(tries, dim=1).indices
        # (n * tries, C, H, W): each image with each of its picks turned.
        turned = torch.where(
            torch.nn.functional.one_hot(picks, places).bool().reshape(-1, 1, *x.shape[2:]),
            end.repeat_interleave(tries, dim=0),
            images.repeat_interleave(tries, dim=0),
        )
        values = _margin(model, turned, labels.repeat_interleave(tries)).reshape(-1, tries)
        best = values.argmax(dim=1)
        row = torch.arange(len(active), device=x.device)
        x_adv[active] = turned[row * tries + best]
        used[active, picks[row, best]] = True
        active = active[values[row, best] <= 0]
    return x_adv


@torch.no_grad()
def _margin(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with evaluating(model):
        logits: Tensor = model(x)
    check_logits(logits, y)
    _check_finite(logits)
    return margin(logits, y)


def _check(x: Tensor, y: Tensor) -> None:
    check_images(x, y)
    if x.ndim != 4:
        raise ValueError(f"x: expected shape (N, C, H, W), got {tuple(x.shape)}")


def _check_finite(logits: Tensor) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("model: expected finite logits, got NaN or infinity")
