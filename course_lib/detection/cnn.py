"""Convolutional detectors: image in, one logit out, positive for "generated"; and their training.

``DetectorNet`` is the course's smallest, ``Meso4`` and ``SmallXception`` follow two networks by which
detectors of manipulated faces are compared, at sizes that fit 64 x 64 pixels.

Chapter: book/detect/first_detector.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib import device
from course_lib.classifiers import Step, evaluating
from course_lib.detection.processing import check_images, check_pair

if TYPE_CHECKING:  # takes seconds to import, and scoring needs none of it
    from lightning_fabric import Fabric

#: A change made to a training batch: (N, C, H, W) and a CPU generator in, the same shape out.
Augmentation = Callable[[Tensor, torch.Generator], Tensor]


class DetectorNet(nn.Module):
    """Four convolutions, the mean over the image, one linear layer: (N, C, H, W) -> logit (N,).

    The first convolution keeps full resolution, because a generator's traces are small; the mean over
    the image lets the net take any height and width from 8 pixels up. About 60,000 parameters at the
    default ``width``, which is the number of maps of the first layer. ``generator`` seeds the initial
    weights (He et al. 2015).

    Raises ``ValueError`` for other channels than 1 or 3, and in use for images of the wrong shape.
    """

    def __init__(
        self, channels: int = 1, *, width: int = 16, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        _check_channels(channels)
        if width < 1:
            raise ValueError(f"width: expected at least 1, got {width}")
        self.channels = channels
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)
        self.conv4 = nn.Conv2d(4 * width, 4 * width, 3, padding=1)
        self.linear = nn.Linear(4 * width, 1)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", generator=generator)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.linear.weight)  # it starts undecided: every logit is 0
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit per image; above 0 means "more likely generated than real"."""
        _check_input(x, self.channels)
        h = F.relu(self.conv1(x))
        h = F.relu(self.conv2(h))
        h = F.relu(self.conv3(h))
        h = F.relu(self.conv4(h))
        logit: Tensor = self.linear(h.mean(dim=(2, 3)))
        return logit.squeeze(1)


class Meso4(nn.Module):
    """MesoNet's Meso-4 for images of 64 x 64: (N, channels, 64, 64) -> logit (N,).

    Four convolutions of 8, 8, 16 and 16 maps (3x3, then 5x5), each with ReLU, batch norm and max
    pooling, a dense layer of 16, and one logit. About 13,000 parameters; the paper's input has 256
    pixels a side, and dropout of 0.5 before both dense layers, as here. ``generator`` seeds the weights.

    Raises ``ValueError`` for other channels than 1 or 3, and in use for images of another shape.
    Source: Afchar, Nozick, Yamagishi and Echizen 2018, "MesoNet", section III.A and figure 3.
    """

    def __init__(self, channels: int = 3, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        _check_channels(channels)
        self.channels = channels
        layers: list[nn.Module] = []
        before = channels
        for maps, kernel, pool in ((8, 3, 2), (8, 5, 2), (16, 5, 2), (16, 5, 4)):
            layers += [
                nn.Conv2d(before, maps, kernel, padding=kernel // 2),
                nn.ReLU(),
                nn.BatchNorm2d(maps),
                nn.MaxPool2d(pool),
            ]
            before = maps
        self.maps = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(before * 2 * 2, 16),
            nn.LeakyReLU(0.1),
            nn.Dropout(0.5),
            nn.Linear(16, 1),
        )
        _initialise(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit per image; above 0 means "more likely generated than real"."""
        _check_input(x, self.channels, exactly=64)
        logit: Tensor = self.head(self.maps(x))
        return logit.squeeze(1)


class SmallXception(nn.Module):
    """A small Xception: (N, channels, H, W), H and W from 16 pixels -> logit (N,).

    A 3x3 convolution at full resolution, then ``len(widths)`` blocks of two separable convolutions
    (each channel filtered by itself, then mixed by 1x1) with batch norm, max pooling and a 1x1
    shortcut with stride 2, the mean over the image and one logit. About 29,000 parameters, where the
    paper's has 23 million and begins by halving the image twice. ``generator`` seeds the weights.

    Raises ``ValueError`` for other channels than 1 or 3 or a width below 1, and in use for images of
    the wrong shape.
    Source: Chollet 2017, "Xception", section 3 and figure 5 (entry flow).
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        widths: tuple[int, ...] = (24, 48, 96),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_channels(channels)
        if not widths or min(widths) < 1:
            raise ValueError(f"widths: expected numbers of maps from 1, got {widths}")
        self.channels = channels
        self.entry = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        self.blocks = nn.ModuleList()
        self.shortcuts = nn.ModuleList()
        before = widths[0]
        for maps in widths:
            self.blocks.append(
                nn.Sequential(
                    *_separable(before, maps),
                    nn.ReLU(),
                    *_separable(maps, maps),
                    nn.MaxPool2d(3, stride=2, padding=1),
                )
            )
            self.shortcuts.append(
                nn.Sequential(
                    nn.Conv2d(before, maps, 1, stride=2, bias=False), nn.BatchNorm2d(maps)
                )
            )
            before = maps
        self.linear = nn.Linear(before, 1)
        _initialise(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit per image; above 0 means "more likely generated than real"."""
        _check_input(x, self.channels, least=16)
        h = self.entry(x)
        for block, shortcut in zip(self.blocks, self.shortcuts, strict=True):
            h = block(h) + shortcut(h)
        logit: Tensor = self.linear(F.relu(h).mean(dim=(2, 3)))
        return logit.squeeze(1)


def _separable(before: int, maps: int) -> list[nn.Module]:
    return [
        nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False),
        nn.Conv2d(before, maps, 1, bias=False),
        nn.BatchNorm2d(maps),
    ]


def _check_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise ValueError(f"channels: expected 1 or 3, got {channels}")


def _check_input(x: Tensor, channels: int, *, least: int = 8, exactly: int | None = None) -> None:
    fits = x.ndim == 4 and x.shape[1] == channels
    if not fits or (x.shape[2:] != (exactly, exactly) if exactly else min(x.shape[2:]) < least):
        shape = f"(N, {channels}, {exactly}, {exactly})" if exactly else f"(N, {channels}, H, W)"
        limit = "" if exactly else f", H and W >= {least}"
        raise ValueError(f"x: expected shape {shape}{limit}; got {tuple(x.shape)}")


def _initialise(module: nn.Module, generator: torch.Generator | None) -> None:
    """Draw convolutions and dense layers as He et al. 2015 do; the last layer starts undecided."""
    last = None
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            last = layer
    if isinstance(last, nn.Linear):
        nn.init.zeros_(last.weight)  # every logit is 0


def train_detector(
    model: nn.Module,
    real: Tensor,
    fake: Tensor,
    *,
    fabric: Fabric,
    steps: int,
    batch_size: int = 64,
    lr: float = 5e-3,
    augment: Augmentation | None = None,
    seed: int = 0,
) -> Iterator[Step]:
    r"""Train ``model`` to tell ``fake`` (label 1) from ``real`` (label 0), one ``Step`` per batch.

    Minimises the binary cross-entropy of the logits :math:`s`,
    :math:`-y \log \sigma(s) - (1 - y) \log (1 - \sigma(s))`, with Adam and a learning rate that falls
    from ``lr`` to 0 along a cosine. ``real``, ``fake``: (N, C, H, W) in [0, 1], already processed
    alike; their ratio is the base rate that the scores come to assume. ``augment`` is applied to real
    and fake alike, batch by batch. ``seed`` orders the batches and feeds ``augment``; every image is
    seen once before any is seen again, but for those that fill no batch. With several processes each
    takes its share of every batch. The model is trained in place, and is in evaluation mode once the
    iterator is exhausted.

    Raises ``ValueError`` for images of different or wrong shape or range, and for settings below 1.
    """
    check_pair(real, fake)
    if min(steps, batch_size) < 1 or not lr > 0:
        raise ValueError(
            f"steps, batch_size: expected at least 1, lr: above 0; got {steps}, {batch_size}, {lr}"
        )
    # All processes draw the same order and take turns in it, but each changes its images in its way.
    n = len(real) + len(fake)
    order = device.shuffled(n, min(batch_size, n), device.generator(seed), fabric)
    return _train(model, real, fake, fabric, steps, order, lr, augment, seed)


def _train(
    model: nn.Module,
    real: Tensor,
    fake: Tensor,
    fabric: Fabric,
    steps: int,
    order: Iterator[Tensor],
    lr: float,
    augment: Augmentation | None,
    seed: int,
) -> Iterator[Step]:
    x = torch.cat([real, fake]).float().cpu()
    y = torch.cat([torch.zeros(len(real)), torch.ones(len(fake))])
    chance = device.generator(seed + 1 + fabric.global_rank)
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    wrapped, optimiser = fabric.setup(model, optimiser)
    for step in range(1, steps + 1):
        batch = next(order)
        images = x[batch] if augment is None else augment(x[batch], chance)
        images, labels = fabric.to_device((images, y[batch]))
        wrapped.train()  # here, because the caller may have scored the model since the last step
        s = wrapped(images)
        loss = F.binary_cross_entropy_with_logits(s, labels)
        optimiser.zero_grad()
        fabric.backward(loss)
        optimiser.step()
        schedule.step()
        right = ((s.detach() > 0) == (labels > 0.5)).float().mean()
        yield Step(step, steps, float(loss.detach()), float(right))
    model.eval()


@torch.no_grad()
def score(model: nn.Module, x: Tensor, *, batch_size: int = 500) -> Tensor:
    r"""Return each image's score :math:`\sigma(s)`, from 0 (real) to 1 (generated): (N,), on the CPU.

    ``x``: (N, C, H, W) in [0, 1], on any device. The model is left in the mode it was in. Raises
    ``ValueError`` for another shape or range, or a model that does not give one logit per image.
    """
    check_images(x)
    where = next((p.device for p in model.parameters()), x.device)
    with evaluating(model):
        parts = [model(batch.to(where)) for batch in x.split(batch_size)]
    s = torch.cat(parts)
    if s.shape != (len(x),):
        raise ValueError(f"model: expected one logit per image, got shape {tuple(s.shape)}")
    return torch.sigmoid(s.float()).cpu()
