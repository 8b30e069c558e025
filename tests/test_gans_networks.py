"""DCGAN's networks: an independent restatement, counts by formula, and what each pixel depends on."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from course_lib import checkpoints, device
from course_lib.gans.networks import DCGANDiscriminator, DCGANGenerator

FORMATS = [(28, 1, None), (28, 3, None), (32, 1, None), (32, 2, 8), (64, 3, None), (64, 3, 12)]


def widths(size: int, channels: int, most: int | None) -> list[int]:
    doublings = {28: 2, 32: 3, 64: 4}[size]
    return [min(channels * 2**i, most or 10**9) for i in range(doublings)]


def digits_generator(latent: int, channels: int) -> nn.Sequential:
    """The 28-pixel generator, written out layer by layer."""
    return nn.Sequential(
        nn.ConvTranspose2d(latent, 2 * channels, 7, bias=False),
        nn.BatchNorm2d(2 * channels),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * channels, channels, 4, 2, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.ConvTranspose2d(channels, 1, 4, 2, 1),
        nn.Tanh(),
    )


def test_the_shipped_generator_of_digits_gives_what_its_layers_written_out_give() -> None:
    G = checkpoints.load("dcgan-digits", DCGANGenerator(32, 32))
    by_hand = digits_generator(32, 32)
    by_hand.load_state_dict({k.removeprefix("layers."): v for k, v in G.state_dict().items()})
    z = torch.randn(6, 32, generator=device.generator(1))
    assert torch.equal(G(z), (by_hand.eval()(z[:, :, None, None]) + 1) / 2)


def test_the_discriminator_of_digits_gives_what_its_layers_written_out_give() -> None:
    D = DCGANDiscriminator(8, generator=device.generator(0)).eval()
    by_hand = nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 16, 4, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 1, 7),
    ).eval()
    by_hand.load_state_dict({k.removeprefix("layers."): v for k, v in D.state_dict().items()})
    x = torch.rand(4, 1, 28, 28, generator=device.generator(1))
    assert torch.equal(D(x), by_hand(2 * x - 1).flatten())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("size", "colours", "most"), FORMATS)
def test_shapes_ranges_and_dtypes(
    size: int, colours: int, most: int | None, dtype: torch.dtype
) -> None:
    shape = {"size": size, "image_channels": colours, "max_channels": most}
    G = DCGANGenerator(5, 4, **shape, generator=device.generator(0)).to(dtype)
    D = DCGANDiscriminator(4, **shape, generator=device.generator(1)).to(dtype)
    x = G(3 * torch.randn(3, 5, dtype=dtype, generator=device.generator(2)))
    assert x.shape == (3, colours, size, size) and x.dtype == dtype
    low, high = x.detach().aminmax()
    assert 0 <= float(low) < float(high) <= 1
    assert D(x).shape == (3,) and D(x).dtype == dtype


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize(("size", "colours", "most"), FORMATS)
def test_parameters_by_the_formula(
    size: int, colours: int, most: int | None, batch_norm: bool
) -> None:
    k, c = 5, 4
    shape = {"size": size, "image_channels": colours, "max_channels": most}
    w = widths(size, c, most)
    side = {28: 7, 32: 4, 64: 4}[size]
    between = sum(16 * a * b for a, b in pairwise(w))
    G = DCGANGenerator(k, c, **shape, batch_norm=batch_norm)
    D = DCGANDiscriminator(c, **shape, batch_norm=batch_norm)
    # Batch norm has a scale and a shift for each map; without it each map has a bias.
    per_map = 2 if batch_norm else 1
    in_g = k * w[-1] * side**2 + between + 16 * w[0] * colours + per_map * sum(w) + colours
    in_d = 16 * colours * w[0] + w[0] + between + per_map * sum(w[1:]) + w[-1] * side**2 + 1
    assert sum(p.numel() for p in G.parameters()) == in_g
    assert sum(p.numel() for p in D.parameters()) == in_d


@pytest.mark.parametrize("size", [28, 32, 64])
def test_guidelines(size: int) -> None:
    """Strided, no pooling, no dense layer; where batch norm is and where a bias; which activations."""
    G, D = DCGANGenerator(8, 4, size=size), DCGANDiscriminator(4, size=size)
    kinds = (nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU, nn.Tanh)
    assert all(isinstance(layer, kinds) for layer in G.layers)
    assert all(isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.LeakyReLU) for m in D.layers)
    for net in (G, D):
        for layer, after in pairwise(net.layers):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                assert (layer.bias is None) == isinstance(after, nn.BatchNorm2d)
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.eps == 1e-5 and layer.momentum == 0.1
    assert isinstance(G.layers[-1], nn.Tanh)
    assert all(layer.negative_slope == 0.2 for layer in D.layers if isinstance(layer, nn.LeakyReLU))
    # None after G's last convolution, none after D's first.
    assert isinstance(G.layers[-2], nn.ConvTranspose2d) and isinstance(D.layers[1], nn.LeakyReLU)
    for net in (DCGANGenerator(8, 4, batch_norm=False), DCGANDiscriminator(4, batch_norm=False)):
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())
        convolutions = [m for m in net.layers if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        assert all(layer.bias is not None for layer in convolutions)


def test_weights_start_as_the_paper_says() -> None:
    for net in (
        DCGANGenerator(100, 32, size=64, generator=device.generator(0)),
        DCGANDiscriminator(32, size=64, generator=device.generator(0)),
    ):
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                n = layer.weight.numel()
                # Five standard errors, of the mean and of the standard deviation.
                weight = layer.weight.detach()
                assert float(weight.mean().abs()) < 5 * 0.02 / n**0.5
                assert abs(float(weight.std()) - 0.02) < 5 * 0.02 / (2 * n) ** 0.5
                assert layer.bias is None or not layer.bias.any()
            if isinstance(layer, nn.BatchNorm2d):
                assert float((layer.weight.detach() - 1).abs().max()) < 0.12
                assert not layer.bias.any()


def test_one_seed_one_network() -> None:
    for make in (DCGANGenerator, DCGANDiscriminator):
        one, same, other = (make(generator=device.generator(s)).state_dict() for s in (3, 3, 4))
        assert all(torch.equal(one[key], same[key]) for key in one)
        assert not torch.equal(one["layers.0.weight"], other["layers.0.weight"])


@pytest.mark.parametrize(("size", "side", "reach"), [(28, 7, 10), (32, 4, 22), (64, 4, 46)])
def test_how_far_one_place_of_the_smallest_maps_reaches(size: int, side: int, reach: int) -> None:
    """Each doubling adds: reach r becomes 2 r + 2, for both players, from 1."""
    G = DCGANGenerator(3, 4, size=size, batch_norm=False, generator=device.generator(0)).double()
    D = DCGANDiscriminator(4, size=size, batch_norm=False, generator=device.generator(0)).double()
    middle = side // 2
    first = G.layers[0](torch.randn(1, 3, 1, 1, generator=device.generator(1)).double())
    moved = first.clone()
    moved[:, :, middle, middle] += 5
    changed = (G.layers[1:](moved) != G.layers[1:](first)).any(1)[0]
    x = torch.rand(1, 1, size, size, dtype=torch.float64, generator=device.generator(2))
    seen = x.requires_grad_()
    features = D.features(seen).unflatten(1, (-1, side, side))
    (slope,) = torch.autograd.grad(features[0, :, middle, middle].sum(), seen)
    # Where the image ends, so does the reach: count from the place's own middle.
    centre = (middle + 0.5) * size / side
    low, high = max(0, int(centre - reach / 2)), min(size, int(centre + reach / 2))
    for found in (changed, slope[0, 0] != 0):
        rows, columns = found.any(1).nonzero(), found.any(0).nonzero()
        for places in (rows, columns):
            assert (int(places[0]), int(places[-1])) == (low, high - 1)


@pytest.mark.parametrize(("size", "most"), [(28, None), (32, None), (64, 12)])
def test_the_last_layer_weighs_up_the_features(size: int, most: int | None) -> None:
    D = DCGANDiscriminator(4, size=size, max_channels=most, generator=device.generator(0)).eval()
    x = torch.rand(3, 1, size, size, generator=device.generator(1))
    features = D.features(x)
    last = D.layers[-1]
    assert features.shape == (3, widths(size, 4, most)[-1] * {28: 7, 32: 4, 64: 4}[size] ** 2)
    assert torch.allclose(features @ last.weight.flatten() + last.bias, D(x), atol=1e-6)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(D.features(x).sum(), x)
    assert bool((slope != 0).any())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DCGANGenerator(size=48), "size: expected one of 28, 32, 64, got 48"),
        (lambda: DCGANDiscriminator(size=0), "size: expected one of 28, 32, 64, got 0"),
        (lambda: DCGANGenerator(0), "latent: expected at least 1, got 0"),
        (lambda: DCGANGenerator(8, 0), "channels: expected at least 1, got 0"),
        (lambda: DCGANDiscriminator(0), "channels: expected at least 1, got 0"),
        (lambda: DCGANGenerator(image_channels=0), "image_channels: expected at least 1, got 0"),
        (lambda: DCGANDiscriminator(image_channels=-1), "image_channels: expected at least 1"),
        (lambda: DCGANGenerator(8, 32, max_channels=16), "max_channels: expected at least"),
        (lambda: DCGANDiscriminator(32, max_channels=16), "max_channels: expected at least"),
        (lambda: DCGANGenerator(8, 4)(torch.zeros(2, 9)), r"z: expected shape \(N, 8\)"),
        (lambda: DCGANGenerator(8, 4)(torch.zeros(8)), r"z: expected shape \(N, 8\)"),
        (
            lambda: DCGANDiscriminator(4, size=64, image_channels=3)(torch.zeros(2, 3, 28, 28)),
            r"x: expected shape \(N, 3, 64, 64\), got \(2, 3, 28, 28\)",
        ),
        (
            lambda: DCGANDiscriminator(4).features(torch.zeros(2, 784)),
            r"x: expected shape \(N, 1, 28, 28\), got \(2, 784\)",
        ),
    ],
)
def test_refuses(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
def test_a_generator_that_enlarges_gives_what_its_layers_written_out_give(upsampling: str) -> None:
    G = DCGANGenerator(5, 4, upsampling=upsampling, generator=device.generator(0)).eval()  # type: ignore[arg-type]
    z = torch.randn(3, 5, generator=device.generator(1))
    state = {k.removeprefix("layers."): v for k, v in G.state_dict().items()}
    h = torch.relu(torch.nn.functional.conv_transpose2d(z[:, :, None, None], state["0.weight"]))
    h = (
        h / (1 + 1e-5) ** 0.5 * state["1.weight"][None, :, None, None]
    )  # batch norm, running 0 and 1
    for weight, bias, norm in (("4.weight", None, "5.weight"), ("8.weight", "8.bias", None)):
        h = torch.nn.functional.interpolate(h, scale_factor=2, mode=upsampling)
        h = torch.nn.functional.conv2d(
            h, state[weight], None if bias is None else state[bias], padding=1
        )
        if norm is not None:
            h = torch.relu(h / (1 + 1e-5) ** 0.5 * state[norm][None, :, None, None])
    assert torch.allclose(G(z), (torch.tanh(h) + 1) / 2, atol=1e-5)


def test_an_unknown_upsampling_is_named() -> None:
    with pytest.raises(ValueError, match="upsampling: expected transposed, nearest or bilinear"):
        DCGANGenerator(5, 4, upsampling="cubic")  # type: ignore[arg-type]
