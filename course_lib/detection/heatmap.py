"""Where was it changed: heat maps of manipulation, and how they are scored against the true mask.

Every map is (N, 1, H, W), a number for each pixel, higher where the image looks more changed. Masks
are (N, 1, H, W) in [0, 1]; a pixel counts as changed where its mask is above one half.

Chapter: book/detect/where.md
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib import device
from course_lib.classifiers import Step, evaluating
from course_lib.detection.compression import jpeg
from course_lib.detection.evaluate import Estimate
from course_lib.detection.processing import check_images

if TYPE_CHECKING:  # takes seconds to import, and drawing a map needs none of it
    from lightning_fabric import Fabric

#: Half a grey level: a flat patch has no noise to take the logarithm of.
_FLOOR = 0.5 / 255


def error_level(x: Tensor, quality: int = 90) -> Tensor:
    """Save each image once more as JPEG and return how far every pixel moved: (N, 1, H, W), >= 0.

    ``x``: (N, C, H, W) in [0, 1]; ``quality``: 1 to 100. The mean over the channels of the absolute
    difference. Raises ``ValueError`` for another shape, range or quality.
    Source: Krawetz (2007), "A Picture's Worth...", on error level analysis.
    """
    return (x - jpeg(x, quality)).abs().mean(dim=1, keepdim=True)


def noise_residual(x: Tensor) -> Tensor:
    """Return what the neighbours do not explain, (N, C, H, W): second differences along both axes.

    White noise keeps its standard deviation, and a plane vanishes, tilted or not. ``x``: (N, C, H, W)
    in [0, 1]; its edge pixels are repeated outwards. Raises ``ValueError`` for another shape or range.
    Source: Immerkaer (1996), equation 2, the mask there, divided by 6.
    """
    check_images(x)
    return _residual(x)


def _residual(x: Tensor) -> Tensor:
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    rows = x[:, :, :-2] - 2 * x[:, :, 1:-1] + x[:, :, 2:]
    return (rows[..., :-2] - 2 * rows[..., 1:-1] + rows[..., 2:]) / 6


def patch_inconsistency(x: Tensor, patch: int = 9) -> Tensor:
    r"""Compare the noise around each pixel with the rest of its image, in doublings: (N, 1, H, W).

    :math:`\lvert \log_2 \sigma_p - \mathrm{median}_q \log_2 \sigma_q \rvert`, where :math:`\sigma_p` is
    the mean absolute noise residual in the ``patch`` x ``patch`` pixels around p: 0 where the noise is
    the image's usual one, 1 where it is half or twice as strong. A residual counts as six times the
    image's median at most, so that an edge is not taken for noise. Nothing is trained.

    ``x``: (N, C, H, W) in [0, 1]; ``patch``: odd, from 3 to the smaller side. Raises ``ValueError`` for
    another shape, range or patch.
    Source: the idea in Mahdian and Saic (2009), with another estimate of the noise.
    """
    residual = noise_residual(x).abs().mean(dim=1, keepdim=True)
    if not (3 <= patch <= min(x.shape[2:]) and patch % 2 == 1):
        raise ValueError(f"patch: expected an odd number from 3 to {min(x.shape[2:])}, got {patch}")
    usual = residual.flatten(1).median(dim=1).values.view(-1, 1, 1, 1)
    capped = torch.minimum(residual, 6 * usual.clamp_min(_FLOOR))
    half = patch // 2
    around = F.pad(capped, (half, half, half, half), mode="replicate")
    level = (F.avg_pool2d(around, patch, stride=1) + _FLOOR).log2()
    median = level.flatten(1).median(dim=1).values.view(-1, 1, 1, 1)
    return (level - median).abs()


class PatchNet(nn.Module):
    """A fully convolutional detector: one logit per pixel, each from a patch of 15 x 15 pixels.

    It sees the image and the size of its noise residual, side by side, as the two streams of Zhou et
    al. (2018). Four convolutions describe the patch by ``width`` numbers, two more judge it. With
    ``compare`` these also see how the description differs from its mean over the image: a patch is then
    judged against the rest of its own image, as in Mayer and Stamm (2020), and not alone, as in Chai et
    al. (2020).
    (N, 3, H, W) in [0, 1], H and W even and from 16 up, to logits (N, 1, H, W). ``generator`` seeds
    the initial weights (He et al. 2015).

    Raises ``ValueError`` for a width below 2, and in use for images of the wrong shape.
    """

    #: The side of the patch that a logit is computed from.
    patch = 15

    def __init__(
        self,
        *,
        compare: bool = True,
        width: int = 24,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if width < 2:
            raise ValueError(f"width: expected at least 2, got {width}")
        self.compare = compare
        self.conv1 = nn.Conv2d(6, width // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(width // 2, width, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1)
        self.conv4 = nn.Conv2d(width, width, 3, padding=1)
        self.judge1 = nn.Conv2d(2 * width if compare else width, width, 1)
        self.judge2 = nn.Conv2d(width, 1, 1)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.judge1):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", generator=generator)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.judge2.weight)  # it starts undecided: every logit is 0
        assert self.judge2.bias is not None
        nn.init.zeros_(self.judge2.bias)

    def patches(self, x: Tensor) -> Tensor:
        """Return one logit for every second pixel each way, (N, 1, H / 2, W / 2)."""
        return self.judged(x, _residual(x))

    def judged(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the same from the images and their noise residuals, both (N, 3, H, W)."""
        # Noise is a few grey levels and edges are many: cut off, and brought to the size of the rest.
        h = torch.cat([x - 0.5, 25 * residual.abs().clamp(0, 0.1)], dim=1)
        h = F.relu(self.conv1(h))
        h = F.relu(self.conv2(h))
        h = F.relu(self.conv3(h))
        h = F.relu(self.conv4(h))
        if self.compare:
            h = torch.cat([h, h - h.mean(dim=(2, 3), keepdim=True)], dim=1)
        logits: Tensor = self.judge2(F.relu(self.judge1(h)))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit per pixel (N, 1, H, W); above 0 means "more likely changed than not"."""
        if (
            x.ndim != 4
            or x.shape[1] != 3
            or len(x) == 0
            or min(x.shape[2:]) < 16
            or x.shape[2] % 2
            or x.shape[3] % 2
        ):
            raise ValueError(
                "x: expected shape (N, 3, H, W), N > 0, H and W even and >= 16; "
                f"got {tuple(x.shape)}"
            )
        return F.interpolate(self.patches(x), scale_factor=2, mode="bilinear", align_corners=False)


def train_patches(
    model: PatchNet,
    x: Tensor,
    masks: Tensor,
    *,
    fabric: Fabric,
    steps: int,
    batch_size: int = 32,
    lr: float = 3e-3,
    seed: int = 0,
) -> Iterator[Step]:
    r"""Teach ``model`` which pixels were changed, one ``Step`` per batch; its accuracy is of pixels.

    Minimises the binary cross-entropy of each patch's logit against the share of its four middle pixels
    that the mask covers, with Adam and a learning rate that falls from ``lr`` to 0 along a cosine.
    ``x``: (N, 3, H, W) in [0, 1], untouched images among them; ``masks``: (N, 1, H, W) in [0, 1], all 0
    for those. ``seed`` orders the batches. With several processes each takes its share of every batch.
    The model is trained in place, and is in evaluation mode once the iterator is exhausted.

    Raises ``ValueError`` for images or masks of wrong shape or range, and for settings below 1.
    """
    check_images(x)
    _check_masks(masks, x)
    if min(steps, batch_size) < 1 or not lr > 0:
        raise ValueError(
            f"steps, batch_size: expected at least 1, lr: above 0; got {steps}, {batch_size}, {lr}"
        )
    order = device.shuffled(len(x), min(batch_size, len(x)), device.generator(seed), fabric)
    return _train(model, x, masks, fabric, steps, order, lr)


def _train(
    model: PatchNet,
    x: Tensor,
    masks: Tensor,
    fabric: Fabric,
    steps: int,
    order: Iterator[Tensor],
    lr: float,
) -> Iterator[Step]:
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    wrapped, optimiser = fabric.setup(model, optimiser)
    wrapped.mark_forward_method("patches")
    for step in range(1, steps + 1):
        batch = next(order)
        images, y = fabric.to_device((x[batch].float(), F.avg_pool2d(masks[batch].float(), 2)))
        wrapped.train()  # here, because the caller may have drawn maps since the last step
        s = wrapped.patches(images)
        loss = F.binary_cross_entropy_with_logits(s, y)
        optimiser.zero_grad()
        fabric.backward(loss)
        optimiser.step()
        schedule.step()
        right = ((s.detach() > 0) == (y > 0.5)).float().mean()
        yield Step(step, steps, float(loss.detach()), float(right))
    model.eval()


@torch.no_grad()
def heat_map(model: nn.Module, x: Tensor, *, batch_size: int = 200) -> Tensor:
    r"""Return each pixel's probability of having been changed, :math:`\sigma(s)`: (N, 1, H, W), CPU.

    ``model``: gives one logit per pixel, as ``PatchNet``; it is left in the mode it was in. ``x``:
    (N, C, H, W) in [0, 1], on any device. Raises ``ValueError`` for another shape or range, or a model
    that does not give one logit per pixel.
    """
    check_images(x)
    where = next((p.device for p in model.parameters()), x.device)
    with evaluating(model):
        s = torch.cat([model(batch.to(where)) for batch in x.split(batch_size)])
    if s.shape != (len(x), 1, *x.shape[2:]):
        raise ValueError(f"model: expected one logit per pixel, got shape {tuple(s.shape)}")
    return torch.sigmoid(s).cpu()


def saliency(
    model: nn.Module,
    x: Tensor,
    method: Literal["gradient", "integrated"] = "gradient",
    *,
    steps: int = 16,
    batch_size: int = 100,
) -> Tensor:
    r"""Return how much each pixel matters to the one logit of an image detector: (N, 1, H, W), >= 0.

    ``gradient``: the largest absolute derivative over the channels. ``integrated``: the derivative
    averaged over ``steps`` points between a mid-grey image and ``x``, times their difference, summed
    over the channels, absolute. Through captum. ``model``: (N, C, H, W) -> (N,); it keeps its mode and
    its gradients. ``x``: (N, C, H, W) in [0, 1], on the model's device.

    Raises ``ValueError`` for another shape or range, an unknown method, steps below 1, or a model that
    does not give one logit per image; ``ImportError`` without captum.
    Source: Simonyan, Vedaldi and Zisserman (2014), section 3; Sundararajan, Taly and Yan (2017),
    equation 1.
    """
    check_images(x)
    if method not in ("gradient", "integrated"):
        raise ValueError(f"method: expected gradient or integrated, got {method!r}")
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    try:
        attr: Any = importlib.import_module("captum.attr")  # it has no types to check against
    except ImportError as error:
        raise ImportError(
            "saliency needs captum, from the extra 'heatmaps' of this package"
        ) from error

    def logit(images: Tensor) -> Tensor:
        s: Tensor = model(images)
        if s.shape != (len(images),):
            raise ValueError(f"model: expected one logit per image, got shape {tuple(s.shape)}")
        return s

    maps = []
    with evaluating(model), torch.enable_grad():
        for batch in x.detach().split(batch_size):
            if method == "gradient":
                slope = attr.Saliency(logit).attribute(batch.clone().requires_grad_(True), abs=True)
                maps.append(slope.amax(dim=1, keepdim=True))
            else:
                share = attr.IntegratedGradients(logit).attribute(
                    batch, torch.full_like(batch, 0.5), n_steps=steps, method="riemann_middle"
                )
                maps.append(share.sum(dim=1, keepdim=True).abs())
    return torch.cat(maps).detach()


def randomised(model: nn.Module, *, seed: int) -> nn.Module:
    """Return a copy of ``model`` that has forgotten everything: random weights of the same spread.

    Each weight is drawn from a normal distribution with the mean and the standard deviation of its
    tensor. A map that explains what the model has learnt has to change. Raises ``ValueError`` for a
    model without weights.
    Source: Adebayo et al. (2018), section 3, the model parameter randomisation test.
    """
    if next(model.parameters(), None) is None:
        raise ValueError("model: expected one with weights, got none")
    forgetful = copy.deepcopy(model)
    generator = device.generator(seed)
    with torch.no_grad():
        for weight in forgetful.parameters():
            drawn = torch.randn(weight.shape, generator=generator).to(weight)
            weight.copy_(weight.mean() + weight.std(unbiased=False) * drawn)
    return forgetful


def iou(maps: Tensor, masks: Tensor, threshold: float) -> Tensor:
    r"""Return each image's intersection over union, (N,) in [0, 1].

    :math:`|A \cap B| / |A \cup B|`, with A the pixels where the map is at or above ``threshold`` and B
    those of the mask. Where both are empty, nothing was changed and nothing is claimed: 1.

    Raises ``ValueError`` for maps or masks of wrong shape, NaN, masks outside [0, 1], or a threshold
    that is NaN.
    Source: Jaccard (1912).
    """
    _check_maps(maps)
    _check_masks(masks, maps)
    if math.isnan(threshold):
        raise ValueError("threshold: expected a number, got nan")
    a, b = (maps >= threshold).flatten(1), (masks.to(maps.device) > 0.5).flatten(1)
    both, either = (a & b).sum(dim=1).double(), (a | b).sum(dim=1).double()
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)


def pixel_auc(maps: Tensor, masks: Tensor, where: Tensor | None = None) -> Tensor:
    """Return for each image the chance that a changed pixel is above an unchanged one: (N,) in [0, 1].

    A tie counts one half. ``where``: (N, 1, H, W), the pixels that count (above one half), or all.
    Raises ``ValueError`` for maps or masks of wrong shape, NaN, masks outside [0, 1], and an image with
    no changed or no unchanged pixel that counts.
    """
    _check_maps(maps)
    _check_masks(masks, maps)
    counted = torch.ones_like(masks) if where is None else where
    _check_masks(counted, maps, "where")
    found = []
    for i in range(len(maps)):
        counts = counted[i] > 0.5
        changed = masks[i][counts] > 0.5
        values = maps[i][counts.to(maps.device)].double().cpu()
        above, below = values[changed.cpu()], values[~changed.cpu()].sort().values
        if min(len(above), len(below)) == 0:
            raise ValueError(
                f"masks: expected changed and unchanged pixels in every image, but image {i} "
                f"has {len(above)} and {len(below)}"
            )
        beaten = torch.searchsorted(below, above) + torch.searchsorted(below, above, right=True)
        found.append(beaten.double().mean() / (2 * len(below)))
    return torch.stack(found)


def same_place_auc(maps: Tensor, untouched: Tensor, masks: Tensor) -> Tensor:
    """Return the AUC of the changed pixels against *the same pixels* of the image before: (N,).

    ``maps``: of the changed images; ``untouched``: of the same ones without the change, saved alike. A
    map that only knows where faces are, or where forgers like to work, has 0.5 here, whatever it gets
    within an image. Raises ``ValueError`` as ``pixel_auc`` does.
    """
    _check_maps(untouched, "untouched")
    if untouched.shape != maps.shape:
        raise ValueError(
            f"untouched: expected the shape of maps, {tuple(maps.shape)}, "
            f"got {tuple(untouched.shape)}"
        )
    _check_masks(masks, maps)
    return pixel_auc(
        torch.cat([maps, untouched], dim=3),
        torch.cat([masks, torch.zeros_like(masks)], dim=3),
        torch.cat([masks, masks], dim=3),
    )


def best_threshold(maps: Tensor, masks: Tensor, *, tried: int = 100) -> tuple[float, float]:
    """Return the threshold of the highest mean IoU, and that IoU: to be used on validation images.

    ``tried``: so many quantiles of the maps are tried. Raises ``ValueError`` as ``iou`` does, and for
    fewer than two.
    """
    _check_maps(maps)
    if tried < 2:
        raise ValueError(f"tried: expected at least 2, got {tried}")
    levels = maps.detach().flatten().double().sort().values
    places = torch.linspace(0, len(levels) - 1, tried).round().long()
    candidates = levels[places.to(levels.device)].unique().tolist()
    scored = [(float(iou(maps, masks, t).mean()), t) for t in candidates]
    best, threshold = max(scored)
    return threshold, best


def over_people(values: Tensor, people: Tensor, *, seed: int = 0, n: int = 500) -> Estimate:
    """Return the mean of ``values`` (N,) with an interval of 95 % over other ``people`` (N,).

    Whole people are resampled ``n`` times, with all their images; the percentiles of the means are the
    interval. Raises ``ValueError`` for no values, other lengths, values that are not finite, or a single
    person. Source: Efron and Tibshirani (1993), chapter 13.
    """
    if values.ndim != 1 or len(values) == 0 or people.shape != values.shape:
        raise ValueError(
            f"values, people: expected one of each per image, (N,), N > 0; "
            f"got {tuple(values.shape)} and {tuple(people.shape)}"
        )
    v = values.detach().cpu().double()
    if not bool(v.isfinite().all()):
        raise ValueError("values: expected finite numbers, got NaN or infinity")
    names, member = people.cpu().unique(return_inverse=True)
    if len(names) < 2 or n < 1:
        raise ValueError(f"people: expected two or more, n: at least 1; got {len(names)} and {n}")
    total = torch.zeros(len(names), dtype=v.dtype).index_add(0, member, v)
    images = torch.zeros(len(names), dtype=v.dtype).index_add(0, member, torch.ones_like(v))
    # Each resample draws as many people as there are; a mean over a person's images needs two sums.
    drawn = torch.randint(len(names), (n, len(names)), generator=device.generator(seed))
    means = total[drawn].sum(dim=1) / images[drawn].sum(dim=1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=v.dtype)).tolist()
    return Estimate(float(v.mean()), low, high)


def _check_maps(maps: Tensor, name: str = "maps") -> None:
    if maps.ndim != 4 or maps.shape[1] != 1 or maps.numel() == 0 or not maps.is_floating_point():
        raise ValueError(
            f"{name}: expected floating-point numbers (N, 1, H, W), N > 0; "
            f"got {maps.dtype} of shape {tuple(maps.shape)}"
        )
    if bool(maps.isnan().any()):
        raise ValueError(f"{name}: expected numbers, got NaN")


def _check_masks(masks: Tensor, like: Tensor, name: str = "masks") -> None:
    expected = (len(like), 1, *like.shape[2:])
    if tuple(masks.shape) != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(masks.shape)}")
    low, high = float(masks.min()), float(masks.max())
    if not (low >= 0 and high <= 1):  # NaN fails both comparisons
        raise ValueError(f"{name}: expected values in [0, 1], got [{low:.3g}, {high:.3g}]")
