"""A page's operations give what torch gives, forward and backward, to 1e-5."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Page
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.classifiers import DigitNet
from course_lib.figures import program
from course_lib.gans.networks import DCGANDiscriminator, DCGANGenerator

RUN = """([spec, arrays, x, slope]) => {
  const floats = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const typed = Object.fromEntries(Object.entries(arrays).map(([k, v]) => [k, floats(v)]));
  const network = new course.Network(spec, typed);
  const y = Array.from(network.forward(Float32Array.from(x)));
  return [y, Array.from(network.backward(Float32Array.from(slope)))];
}"""


def in_the_page(page: Page, found: program.Program, x: Tensor, slope: Tensor) -> list[Tensor]:
    # As text: number by number, weights take longer to send than to use.
    arrays = {
        name: base64.b64encode(array.astype(np.float32).tobytes()).decode()
        for name, array in found.arrays.items()
    }
    result = page.evaluate(
        RUN, [found.spec, arrays, x.flatten().tolist(), slope.flatten().tolist()]
    )
    return [torch.tensor(values, dtype=torch.float64) for values in result]


def compare(page: Page, function: Any, x: Tensor, seed: int) -> None:
    """Compare one example with torch in double precision, so that the error is the page's own."""
    found = program.trace(function, x)
    double = function.double() if isinstance(function, nn.Module) else function
    point = x.double().requires_grad_()
    y = double(point)
    slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).float()
    (gradient,) = torch.autograd.grad((y * slope).sum(), point)
    if isinstance(function, nn.Module):
        function.float()
    for ours, theirs in zip(
        in_the_page(page, found, x, slope), (y.detach(), gradient), strict=True
    ):
        size = max(1.0, float(theirs.abs().max()))
        assert float((ours - theirs.flatten()).abs().max()) <= 1e-5 * size


def randomised(module: nn.Module, seed: int) -> nn.Module:
    """Weights and running statistics as a training may leave them."""
    torch.manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.2, 3)
            if layer.affine:
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)
        elif isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.reset_parameters()
    return module.eval()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = x + torch.tanh(self.first(x))
        return torch.cat([1 - self.second(h), 0.5 * h * h, h / 3 - x], dim=1)


NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "dense": (lambda: nn.Sequential(nn.Linear(7, 11), nn.Tanh(), nn.Linear(11, 3)), (7,)),
    "dense without bias": (lambda: nn.Linear(5, 4, bias=False), (5,)),
    "convolution": (lambda: nn.Conv2d(3, 5, 3), (3, 9, 8)),
    "convolution, strided, padded": (lambda: nn.Conv2d(2, 4, 5, stride=2, padding=2), (2, 11, 14)),
    "convolution, stride beyond kernel": (lambda: nn.Conv2d(2, 3, 1, stride=3), (2, 8, 7)),
    "convolution, oblong": (
        lambda: nn.Conv2d(2, 3, (3, 5), stride=(1, 2), padding=(2, 1)),
        (2, 6, 9),
    ),
    "transposed": (lambda: nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1), (4, 5, 6)),
    "transposed, from one pixel": (lambda: nn.ConvTranspose2d(6, 3, 7, bias=False), (6, 1, 1)),
    "transposed, with output padding": (
        lambda: nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1),
        (3, 4, 5),
    ),
    "batch norm": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)), (2, 6, 6)),
    "batch norm, plain, 1-D": (
        lambda: nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6, affine=False)),
        (5,),
    ),
    **{
        name: (lambda layer=layer: nn.Sequential(nn.Linear(12, 12), layer), (12,))
        for name, layer in {
            "relu": nn.ReLU(),
            "leaky relu": nn.LeakyReLU(0.2),
            "elu": nn.ELU(),
            "sigmoid": nn.Sigmoid(),
            "tanh": nn.Tanh(),
            "softplus": nn.Softplus(),
            "silu": nn.SiLU(),
            "gelu": nn.GELU(),
            "softmax": nn.Softmax(dim=1),
            "hardtanh": nn.Hardtanh(),
            "dropout": nn.Dropout(),
        }.items()
    },
    "max pool": (lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.MaxPool2d(2)), (1, 9, 10)),
    "max pool, padded, overlapping": (lambda: nn.MaxPool2d(3, stride=2, padding=1), (2, 7, 8)),
    "average pool": (lambda: nn.AvgPool2d(2, stride=1, padding=1), (3, 6, 5)),
    "global mean": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        (1, 8, 8),
    ),
    "upsample": (lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(2, 3, 3)), (2, 4, 5)),
    "residual, concatenated": (Residual, (3, 5, 5)),
    "digit network": (DigitNet, (1, 28, 28)),
    "generator": (lambda: DCGANGenerator(16, 8), (16,)),
    "discriminator": (lambda: DCGANDiscriminator(8), (1, 28, 28)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_torch(page: Page, name: str) -> None:
    make, shape = NETWORKS[name]
    for seed in range(4):
        network = randomised(make(), seed)
        x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
        compare(page, network, x, seed)


def test_agrees_with_torch_on_expressions(page: Page) -> None:
    """A figure's function need not be a module: PCA's way back is an expression with constants."""
    g = torch.Generator().manual_seed(0)
    mean, components = torch.randn(12, generator=g), torch.randn(3, 12, generator=g)

    def inverse(c: Tensor) -> Tensor:
        like = components.to(c.dtype)
        return (mean.to(c.dtype) + c @ like).reshape(-1, 1, 3, 4).clamp(-1, 1).exp()

    for seed in range(4):
        compare(page, inverse, torch.randn(1, 3, generator=g), seed)


MOVES = {
    "two sliders": (lambda x: torch.cat([x[:, :1] * x[:, 1:2], x[:, 2:] ** 3], dim=1), (4,)),
    "turned": (lambda x: x.transpose(1, 3).flip(2).permute(0, 2, 1, 3), (2, 3, 4)),
    "widened": (lambda x: x[:, :1].expand(1, 5) * torch.arange(5.0), (2,)),
    "repeated": (lambda x: x.reshape(1, 1, 2, 2).repeat(1, 3, 1, 2), (4,)),
    "functions": (lambda x: (x.sin() + x.cos().abs() + 1.5).log() / (x * x + 1).sqrt(), (9,)),
    "split": (lambda x: torch.cat([part.exp() for part in x.split(2, dim=1)], dim=1), (6,)),
    "times a picture": (lambda x: (1 - x[:, :1]) * torch.arange(12.0).reshape(1, 1, 3, 4), (2,)),
    "of two shapes": (lambda x: x.reshape(1, 3, 1) * x.reshape(1, 1, 3) - x, (3,)),
    "one over": (lambda x: 1 / (x * x + 0.5), (5,)),
}


@pytest.mark.parametrize("name", MOVES)
def test_moving_and_shaping_agree_with_torch(page: Page, name: str) -> None:
    function, shape = MOVES[name]
    for seed in range(3):
        compare(
            page,
            function,
            torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)),
            seed,
        )


def test_random_stacks_agree_with_torch(page: Page) -> None:
    """Layers in random order and of random sizes, so that no shape is special."""
    rng = np.random.default_rng(0)
    for seed in range(25):
        layers: list[nn.Module] = []
        channels, size = int(rng.integers(1, 4)), int(rng.integers(6, 12))
        shape = (channels, size, size)
        for _ in range(int(rng.integers(2, 5))):
            out, kernel = int(rng.integers(1, 6)), int(rng.integers(1, 4))
            stride, padding = int(rng.integers(1, 3)), int(rng.integers(0, kernel))
            kind = nn.ConvTranspose2d if rng.random() < 0.5 else nn.Conv2d
            layers.append(kind(channels, out, kernel, stride=stride, padding=padding))
            x = torch.zeros(1, *shape)
            try:
                nn.Sequential(*layers).eval()(x)
            except RuntimeError:  # the image has become too small
                layers.pop()
                break
            channels = out
            layers.append(
                [nn.ReLU(), nn.LeakyReLU(0.1), nn.Tanh(), nn.BatchNorm2d(out)][rng.integers(4)]
            )
        if not layers:
            continue
        network = randomised(nn.Sequential(*layers, nn.Flatten()), seed)
        compare(page, network, torch.randn(1, *shape), seed)


def test_gradient_of_the_loss_is_torchs(page: Page) -> None:
    """softmax minus one-hot, sent backwards: what FGSM in the page takes the sign of."""
    network = randomised(DigitNet(), 3)
    x = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    point = x.clone().requires_grad_()
    logits = network(point)
    (expected,) = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([4])), point)
    slope = logits.softmax(dim=1).detach()
    slope[0, 4] -= 1
    _, found = in_the_page(page, program.trace(network, x), x, slope)
    assert torch.allclose(found.float(), expected.flatten(), rtol=1e-4, atol=1e-7)
    assert float((found.float().sign() == expected.flatten().sign()).float().mean()) == 1.0
