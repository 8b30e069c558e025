"""Denoising, sparse and contractive autoencoders: what their formulas are, and what they do."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import pytest
import scipy.special
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from course_lib import checkpoints, data, device
from course_lib.autoencoders import networks, training
from course_lib.autoencoders.contractive import (
    contractive_penalty,
    hutchinson_penalty,
    jacobian,
    tied,
)
from course_lib.autoencoders.denoising import corrupt
from course_lib.autoencoders.sparse import RunningMean, kl, sparse_penalty
from course_lib.recipes import constrained_digits, denoiser_digits

X = torch.rand(6, 2, 3, generator=device.generator(0))
NAN = X.clone().index_put_((torch.tensor(2), torch.tensor(1)), torch.tensor(math.nan))


def trained(model: networks.Autoencoder, x: Tensor, **settings: Any) -> networks.Autoencoder:
    for _ in training.fit(model, x, **settings):
        pass
    return model


# Denoising


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masking_zeroes_a_share_nu_and_leaves_the_rest(dtype: torch.dtype) -> None:
    x = 1 + torch.rand(200, 1, 20, 20, generator=device.generator(0)).to(dtype)
    n = x.numel()
    for nu in (0.0, 0.1, 0.5, 0.9, 1.0):
        noisy = corrupt(x, device.generator(1), nu=nu)
        gone = noisy == 0
        assert noisy.dtype == dtype and noisy.shape == x.shape
        assert torch.equal(noisy[~gone], x[~gone])
        # Five standard deviations of a share among n independent draws.
        assert abs(float(gone.double().mean()) - nu) <= 5 * math.sqrt(nu * (1 - nu) / n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gaussian_noise_has_mean_0_and_deviation_sigma_and_is_not_clipped(
    dtype: torch.dtype,
) -> None:
    x = torch.rand(200, 1, 20, 20, generator=device.generator(0)).to(dtype)
    n = x.numel()
    for sigma in (0.1, 0.5, 2.0):
        noisy = corrupt(x, device.generator(1), sigma=sigma)
        noise = (noisy - x).double() / sigma
        assert noisy.dtype == dtype
        assert abs(float(noise.mean())) < 5 / math.sqrt(n)
        assert abs(float(noise.var()) - 1) < 5 * math.sqrt(2 / n)
        assert abs(float((noise.abs() < 1).double().mean()) - math.erf(1 / math.sqrt(2))) < 0.01
        correlation = torch.corrcoef(torch.stack([noise.flatten(), x.double().flatten()]))[0, 1]
        assert abs(float(correlation)) < 5 / math.sqrt(n)
    assert float(corrupt(x, device.generator(1), sigma=0.5).min()) < 0


def test_noise_comes_from_the_generator_and_never_changes_what_it_is_given() -> None:
    before = X.clone()
    for noise in ({"nu": 0.5}, {"sigma": 0.5}, {"nu": 0.5, "sigma": 0.5}, {}):
        first, again, other = (corrupt(X, device.generator(s), **noise) for s in (1, 1, 2))
        assert torch.equal(first, again)
        assert torch.equal(first, other) == (not noise)
        first.zero_()
        assert torch.equal(X, before)


def test_both_noises_at_once_are_masking_then_gaussian() -> None:
    x = 5 + torch.rand(100, 100, generator=device.generator(0))
    noisy = corrupt(x, device.generator(1), nu=0.3, sigma=0.1)
    gone = noisy < 2.5
    assert abs(float(gone.float().mean()) - 0.3) < 0.03
    assert abs(float(noisy[gone].std()) - 0.1) < 0.01


def test_a_linear_denoiser_is_the_wiener_filter() -> None:
    """Its best map is C (C + sigma^2 I)^-1, which shrinks each axis by lambda / (lambda + sigma^2)."""
    variances = torch.tensor([4.0, 1.0, 0.25])
    x = torch.randn(4000, 3, generator=device.generator(0))
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov(correction=0))).T
    x = x * variances.sqrt()
    model = networks.linear((3,), 5, generator=device.generator(1))
    trained(model, x, steps=400, lr=2e-2, corrupt=partial(corrupt, sigma=1.0), batch_size=400)
    found = torch.func.jacrev(lambda one: model(one[None])[0])(torch.zeros(3)).detach()
    torch.testing.assert_close(found, torch.diag(variances / (variances + 1)), atol=0.06, rtol=0)


# Sparse


@given(st.floats(0.01, 0.99))
def test_kl_is_zero_at_rho_and_grows_away_from_it(rho: float) -> None:
    rho_hat = torch.linspace(0, 1, 41, dtype=torch.float64)
    below, above = rho_hat[rho_hat < rho], rho_hat[rho_hat > rho]
    assert float(kl(rho, torch.tensor(rho, dtype=torch.float64))) == pytest.approx(0, abs=1e-12)
    assert bool((kl(rho, below).diff() < 0).all()) and bool((kl(rho, above).diff() > 0).all())
    apart = rho_hat[(rho_hat - rho).abs() > 1e-3]
    assert bool((kl(rho, apart) > 0).all())


def test_the_penalty_is_what_scipy_says() -> None:
    code = torch.rand(50, 7, generator=device.generator(0), dtype=torch.float64)
    mean = code.mean(0).numpy()
    for rho in (0.05, 0.5, 0.9):
        right = scipy.special.rel_entr(rho, mean) + scipy.special.rel_entr(1 - rho, 1 - mean)
        assert float(sparse_penalty(code, rho)) == pytest.approx(right.sum(), rel=1e-9)
        assert float(sparse_penalty(code.float(), rho)) == pytest.approx(right.sum(), rel=1e-4)


def test_a_unit_of_maps_is_a_map() -> None:
    maps = torch.rand(5, 3, 4, 2, generator=device.generator(0))
    rows = maps.permute(0, 2, 3, 1).reshape(-1, 3)
    torch.testing.assert_close(sparse_penalty(maps, 0.1), sparse_penalty(rows, 0.1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_points_to_rho_and_is_finite_at_the_ends(dtype: torch.dtype) -> None:
    rho = 0.3
    for level in (0.0, 1e-30, 0.1, 0.5, 1.0):
        code = torch.full((4, 2), level, dtype=dtype, requires_grad=True)
        value = sparse_penalty(code, rho)
        (gradient,) = torch.autograd.grad(value, code)
        assert bool(value.isfinite()) and bool(gradient.isfinite().all())
        assert bool((gradient.sign() == math.copysign(1, level - rho)).all())
    with torch.no_grad():
        ends = [float(kl(rho, torch.tensor(at, dtype=dtype))) for at in (0.0, 0.1, 1.0)]
    assert ends[0] > 3 * ends[1] and ends[2] > 3 * ends[1]


def test_the_gradient_is_the_formulas() -> None:
    code = torch.rand(8, 3, generator=device.generator(0), dtype=torch.float64).requires_grad_()
    mean = code.detach().mean(0)
    (found,) = torch.autograd.grad(sparse_penalty(code, 0.1), code)
    slope = -0.1 / mean + 0.9 / (1 - mean)
    torch.testing.assert_close(found, (slope / 8).expand(8, 3), rtol=1e-9, atol=0)


def test_a_running_mean_remembers_the_batches() -> None:
    draw = device.generator(0)
    batches = torch.rand(30, 5, 4, generator=draw, dtype=torch.float64)
    running, decay = RunningMean(0.8), 0.8
    for batch in batches:
        sparse_penalty(batch, 0.2, running=running)
    weights = torch.tensor([decay**i for i in range(29)], dtype=torch.float64).flip(0) * (1 - decay)
    weights = torch.cat([torch.tensor([decay**29]).double(), weights])
    assert running.value is not None
    torch.testing.assert_close(running.value, weights @ batches.mean(1))
    assert float(weights.sum()) == pytest.approx(1)


def test_a_running_mean_sets_the_value_and_the_batch_carries_the_gradient() -> None:
    running = RunningMean(0.9, value=torch.tensor([0.5, 0.1], dtype=torch.float64))
    code = torch.rand(4, 2, generator=device.generator(0), dtype=torch.float64).requires_grad_()
    value = sparse_penalty(code, 0.2, running=running)
    mean = running.value
    assert mean is not None and not mean.requires_grad
    torch.testing.assert_close(value, kl(0.2, mean).sum())
    (found,) = torch.autograd.grad(value, code)
    slope = -0.2 / mean + 0.8 / (1 - mean)
    torch.testing.assert_close(found, (slope / 4).expand(4, 2), rtol=1e-9, atol=0)


def test_one_batch_with_no_memory_is_the_batchs_own_mean() -> None:
    code = torch.rand(9, 4, generator=device.generator(0))
    torch.testing.assert_close(
        sparse_penalty(code, 0.2, running=RunningMean(0.0)), sparse_penalty(code, 0.2)
    )


def test_a_small_batch_punishes_units_that_tell_examples_apart_and_a_running_mean_does_not() -> (
    None
):
    """Units that are fully on for a share rho of examples, and off otherwise: nothing to correct."""
    rho = 0.25
    useful = (torch.rand(4000, 6, generator=device.generator(0)) < rho).float()
    useful = 0.001 + 0.998 * useful
    running = RunningMean(0.99, value=torch.full((6,), rho))
    in_pairs = [float(sparse_penalty(pair, rho)) for pair in useful.split(2)]
    remembered = [float(sparse_penalty(pair, rho, running=running)) for pair in useful.split(2)]
    assert float(sparse_penalty(useful, rho)) < 0.01
    assert sum(in_pairs) / len(in_pairs) > 20 * sum(remembered) / len(remembered)
    assert float(sparse_penalty(torch.full((2, 6), rho), rho)) < 1e-6


def test_training_brings_the_mean_activation_to_rho() -> None:
    x = constrained_digits.small(data.mnist("train").x[:1000])
    for rho in (0.1, 0.3):
        model = networks.dense(
            (1, 14, 14), (), 32, code_activation="sigmoid", generator=device.generator(0)
        )

        def held(model: nn.Module, x: Tensor, code: Tensor, rho: float = rho) -> Tensor:
            return 30 * sparse_penalty(code, rho)

        assert abs(float(model.encode(x).detach().mean()) - rho) > 0.1 * rho
        trained(model, x, steps=300, lr=1e-2, penalty=held)
        assert abs(float(model.encode(x).detach().mean()) - rho) < 0.1 * rho


# Contractive


ENCODERS: dict[str, nn.Module] = {
    "one sigmoid layer": networks.dense(
        (2, 3), (), 9, code_activation="sigmoid", generator=device.generator(1)
    ).encoder,
    "linear": networks.linear((2, 3), 4, generator=device.generator(2)).encoder,
    "two layers": networks.dense(
        (2, 3), (8,), 4, activation="tanh", generator=device.generator(3)
    ).encoder,
    "relu": networks.dense(
        (2, 3), (8,), 4, code_activation="relu", generator=device.generator(4)
    ).encoder,
}


def by_hand(encoder: nn.Module, x: Tensor) -> Tensor:
    """The Jacobian of each example, one output at a time, by plain autograd."""
    found = []
    for one in x:
        matrix = torch.autograd.functional.jacobian(lambda v: encoder(v[None])[0], one)
        assert isinstance(matrix, Tensor)
        found.append(matrix.flatten(1))
    return torch.stack(found)


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_penalty_is_the_squared_norm_of_the_jacobian(
    encoder: nn.Module, dtype: torch.dtype
) -> None:
    encoder, x = copy.deepcopy(encoder).to(dtype), X.to(dtype)
    right = by_hand(encoder, x)
    torch.testing.assert_close(jacobian(encoder, x), right, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        contractive_penalty(encoder, x), right.square().sum((1, 2)).mean(), rtol=1e-5, atol=0
    )


def test_the_closed_form_agrees_with_torch_func() -> None:
    """For one sigmoid layer; a wrapper hides from the function that it is one."""
    for seed in range(5):
        model = tied((1, 5, 5), 40, generator=device.generator(seed)).double()
        x = torch.rand(7, 1, 5, 5, generator=device.generator(seed), dtype=torch.float64)
        closed = contractive_penalty(model.encoder, x)
        hidden = partial(
            torch.func.functional_call, model.encoder, dict(model.encoder.named_parameters())
        )
        general = contractive_penalty(hidden, x)
        assert float((closed - general).detach().abs()) < 1e-5 * float(closed.detach())
        weight = next(model.parameters())
        torch.testing.assert_close(
            torch.autograd.grad(closed, weight)[0], torch.autograd.grad(general, weight)[0]
        )


def test_a_linear_encoder_has_the_norm_of_its_matrix_whatever_the_input() -> None:
    encoder = ENCODERS["linear"]
    layer = encoder[1]  # type: ignore[index]
    norm = float(layer.weight.detach().square().sum())
    for x in (X, 100 * X, torch.zeros_like(X)):
        assert float(contractive_penalty(encoder, x).detach()) == pytest.approx(norm, rel=1e-5)
    singular = torch.linalg.svdvals(jacobian(encoder, X))
    torch.testing.assert_close(singular, torch.linalg.svdvals(layer.weight).expand(6, 4))


def test_the_penalty_of_maps_counts_every_number_of_the_code() -> None:
    encoder = nn.Sequential(nn.Conv2d(1, 3, 2, stride=2), nn.Tanh())
    x = torch.rand(4, 1, 4, 6, generator=device.generator(0))
    flat = nn.Sequential(encoder, nn.Flatten())
    assert jacobian(encoder, x).shape == (4, 3 * 2 * 3, 24)
    torch.testing.assert_close(contractive_penalty(encoder, x), contractive_penalty(flat, x))


def test_the_gradient_of_the_penalty_is_that_of_finite_differences() -> None:
    layer = nn.Linear(3, 4).double()
    x = torch.rand(5, 3, generator=device.generator(0), dtype=torch.float64)
    deep = nn.Linear(4, 2).double()

    def closed(weight: Tensor) -> Tensor:
        moved = nn.Sequential(nn.Linear(3, 4).double(), nn.Sigmoid())
        parts = {"encoder.0.weight": weight, "encoder.0.bias": layer.bias}
        penalty: Tensor = torch.func.functional_call(_Calling(moved, x), parts, ())
        return penalty

    def general(weight: Tensor) -> Tensor:
        return contractive_penalty(lambda v: deep((v @ weight.T + layer.bias).tanh()), x)

    def estimated(weight: Tensor) -> Tensor:
        draw = device.generator(3)
        return hutchinson_penalty(lambda v: deep((v @ weight.T).tanh()), x, draw, draws=2)

    weight = layer.weight.detach().requires_grad_()
    for function in (closed, general, estimated):
        assert torch.autograd.gradcheck(function, (weight,))


class _Calling(nn.Module):
    def __init__(self, encoder: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.encoder, self.x = encoder, x

    def forward(self) -> Tensor:
        return contractive_penalty(self.encoder, self.x)


def test_a_refused_rho_leaves_the_running_mean_alone() -> None:
    running = RunningMean(0.5, value=torch.full((3,), 0.25))
    with pytest.raises(ValueError, match="rho: expected"):
        sparse_penalty(torch.rand(4, 3), 1.5, running=running)
    assert running.value is not None and running.value.tolist() == [0.25] * 3


def test_the_closed_form_counts_each_example_once() -> None:
    """Several codes in one example: their Jacobians' squares add up, as in the general form."""
    encoder = nn.Sequential(nn.Linear(5, 4), nn.Sigmoid())
    x = torch.rand(3, 2, 5)
    torch.testing.assert_close(
        contractive_penalty(encoder, x), jacobian(encoder, x).square().sum((1, 2)).mean()
    )


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_hutchinsons_estimate_is_right_on_average(encoder: nn.Module) -> None:
    draw = device.generator(0)
    with torch.no_grad():
        exact = float(contractive_penalty(encoder, X))
        found = torch.stack([hutchinson_penalty(encoder, X, draw) for _ in range(600)]).double()
    assert float(found.std()) > 0.01 * exact
    assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / math.sqrt(len(found))


def test_hutchinsons_estimate_is_exact_for_one_unit_and_better_with_more_draws() -> None:
    one = networks.linear((2, 3), 1).encoder
    torch.testing.assert_close(
        hutchinson_penalty(one, X, device.generator(0)), contractive_penalty(one, X)
    )
    encoder, draw = ENCODERS["two layers"], device.generator(0)
    spread = [
        torch.stack([hutchinson_penalty(encoder, X, draw, draws=n).detach() for _ in range(60)])
        for n in (1, 16)
    ]
    assert float(spread[1].std()) < 0.5 * float(spread[0].std())


def test_the_estimate_leaves_gradients_and_modes_alone() -> None:
    encoder = ENCODERS["two layers"].train()
    x = X.clone()
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            estimate = hutchinson_penalty(encoder, x, device.generator(0))
            exact = contractive_penalty(encoder, x)
        assert estimate.requires_grad == exact.requires_grad == grad
    assert not x.requires_grad and encoder.training
    assert all(p.grad is None for p in encoder.parameters())


@pytest.mark.parametrize("kind", ["closed form", "general", "hutchinson"])
def test_every_form_trains_and_contracts(kind: str) -> None:
    x = constrained_digits.small(data.mnist("train").x[:400])
    draw = device.generator(5)

    def contract(model: networks.Autoencoder, x: Tensor, code: Tensor) -> Tensor:
        if kind == "hutchinson":
            return 3 * hutchinson_penalty(model.encoder, x, draw)
        if kind == "general":
            return 3 * contractive_penalty(lambda v: model.encoder(v), x[:20])
        return 3 * contractive_penalty(model.encoder, x)

    norms = []
    for penalty in (None, contract):
        model = tied((1, 14, 14), 24, generator=device.generator(0))
        steps = 60
        trained(model, x, steps=steps, lr=1e-2, loss=training.cross_entropy, penalty=penalty)
        norms.append(float(contractive_penalty(model.encoder, x).detach()))
    assert norms[1] < 0.5 * norms[0]


def test_tied_is_one_matrix() -> None:
    model = tied((1, 4, 5), 30, generator=device.generator(0))
    assert sorted(model.state_dict()) == ["decoder.bias", "encoder.1.bias", "encoder.1.weight"]
    x = torch.rand(3, 1, 4, 5, generator=device.generator(0))
    w, b, c = (dict(model.named_parameters())[k] for k in (
        "encoder.1.weight", "encoder.1.bias", "decoder.bias"))  # fmt: skip
    for other in (model, copy.deepcopy(model), copy.deepcopy(model).double()):
        given = x.to(next(other.parameters()).dtype)
        right = F.linear(F.linear(x.flatten(1), w, b).sigmoid(), w.T, c).sigmoid()
        torch.testing.assert_close(other(given).flatten(1).float(), right)
    clone = copy.deepcopy(model)
    with torch.no_grad():
        dict(clone.named_parameters())["encoder.1.weight"].zero_()
    torch.testing.assert_close(clone(x), torch.full_like(x, 0.5))
    assert not torch.allclose(model(x), clone(x))


def test_with_a_decoder_of_its_own_the_penalty_is_dodged() -> None:
    """Why weights are tied: a linear pair scaled to and fro rebuilds the same, at no penalty."""
    model = networks.linear((2, 3), 4, generator=device.generator(0))
    before, norm = model(X).detach(), float(contractive_penalty(model.encoder, X).detach())
    with torch.no_grad():
        for part, by in ((model.encoder[1], 0.01), (model.decoder[0], 100.0)):  # type: ignore[index]
            part.weight.mul_(by)
    torch.testing.assert_close(model(X), before)
    assert float(contractive_penalty(model.encoder, X).detach()) == pytest.approx(
        1e-4 * norm, rel=1e-3
    )


# What they refuse


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: corrupt(X[:0], g), "x: expected a float tensor .* N > 0"),
        (lambda g: corrupt(X.int(), g), "x: expected a float tensor"),
        (lambda g: corrupt(NAN, g, nu=0.5), "x: expected finite values"),
        (lambda g: corrupt(X, g, nu=-0.1), r"nu: expected a probability in \[0, 1\], got -0.1"),
        (lambda g: corrupt(X, g, nu=1.1), "nu: expected a probability"),
        (lambda g: corrupt(X, g, nu=math.nan), "nu: expected a probability .* got nan"),
        (lambda g: corrupt(X, g, sigma=-1), "sigma: expected a standard deviation from 0, got -1"),
        (lambda g: corrupt(X, g, sigma=math.inf), "sigma: expected .* got inf"),
        (lambda g: corrupt(X, g, sigma=math.nan), "sigma: expected .* got nan"),
        (lambda g: kl(0.0, X), r"rho: expected a share in \(0, 1\), got 0.0"),
        (lambda g: kl(1.0, X), "rho: expected a share"),
        (lambda g: kl(0.5, X - 1), r"rho_hat: expected values in \[0, 1\]"),
        (lambda g: sparse_penalty(X, 0.0), "rho: expected a share"),
        (lambda g: sparse_penalty(X, 1.0), "rho: expected a share"),
        (lambda g: sparse_penalty(X, math.nan), "rho: expected a share"),
        (lambda g: sparse_penalty(X + 1, 0.1), r"code: expected values in \[0, 1\], .* got \[1"),
        (lambda g: sparse_penalty(-X, 0.1), "code: expected values in"),
        (lambda g: sparse_penalty(NAN, 0.1), "code: expected values in .* nan"),
        (lambda g: sparse_penalty(X[:0], 0.1), "code: expected a float tensor"),
        (lambda g: sparse_penalty(X[:, :0], 0.1), "code: expected a float tensor"),
        (lambda g: sparse_penalty(X[0, 0], 0.1), "code: expected a float tensor"),
        (lambda g: sparse_penalty(X.int(), 0.1), "code: expected a float tensor"),
        (lambda g: RunningMean(1.0), r"decay: expected a share in \[0, 1\), got 1.0"),
        (lambda g: RunningMean(-0.1), "decay: expected"),
        (lambda g: RunningMean().update(torch.rand(2, 3)), r"mean: expected shape \(k,\)"),
        (lambda g: RunningMean().update(torch.tensor([math.nan])), r"mean: expected values in \[0"),
        (lambda g: kl(0.1, torch.ones(2, dtype=torch.int64)), "rho_hat: expected a float tensor"),
        (
            lambda g: sparse_penalty(X, 0.1, running=RunningMean(value=torch.rand(5))),
            "running: holds the means of 5 units, the code has 2",
        ),
        (lambda g: contractive_penalty(nn.Flatten(), X[:0]), "x: expected a float tensor"),
        (lambda g: contractive_penalty(nn.Flatten(), NAN), "x: expected finite"),
        (lambda g: contractive_penalty(ENCODERS["one sigmoid layer"], NAN), "x: expected finite"),
        (lambda g: jacobian(nn.Flatten(), X.int()), "x: expected a float tensor"),
        (lambda g: jacobian(lambda v: v.sum(), X), r"encoder: expected one code .* got shape \(\)"),
        (lambda g: hutchinson_penalty(nn.Flatten(), X[:0], g), "x: expected a float tensor"),
        (lambda g: hutchinson_penalty(nn.Flatten(), NAN, g), "x: expected finite"),
        (lambda g: hutchinson_penalty(nn.Flatten(), X, g, draws=0), "draws: expected a whole"),
        (lambda g: hutchinson_penalty(lambda v: v[:2], X, g), "encoder: expected 6 codes for 6"),
        (lambda g: tied((), 4), "shape: expected one size or more"),
        (lambda g: tied((4,), 0), "code: expected a whole number from 1, got 0"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(device.generator(0))


# What ships


def test_the_shipped_denoiser_divides_the_noise_by_five() -> None:
    model = checkpoints.load("denoiser-digits", denoiser_digits.denoiser())
    x = data.mnist("test").x[:500]
    draw = device.generator(11)
    for noise in ({"nu": 0.5}, {"sigma": 0.5}):
        noisy = corrupt(x, draw, **noise)
        before = float((noisy - x).square().flatten(1).sum(1).mean())
        assert before > 5 * training.reconstruction_error(model, noisy, target=x)


def test_the_shipped_autoencoders_do_what_they_were_held_to() -> None:
    models = checkpoints.load("constrained-digits", constrained_digits.empty())
    x = constrained_digits.small(data.mnist("test").x)

    def of(name: str) -> networks.Autoencoder:
        model = models.get_submodule(name)
        assert isinstance(model, networks.Autoencoder)
        return model

    for i, rho in enumerate(constrained_digits.RHOS):
        mean = float(of(f"sparse.{i}").encode(x).detach().mean())
        assert abs(mean - rho) < (0.1 if rho >= 0.05 else 0.3) * rho
    norms, errors = [], []
    for i in range(len(constrained_digits.LAMBDAS)):
        model = of(f"contractive.{i}")
        norms.append(float(contractive_penalty(model.encoder, x).detach()))
        errors.append(training.reconstruction_error(model, x))
    assert norms == sorted(norms, reverse=True) and errors == sorted(errors)


def test_noise_of_any_strength_keeps_shape_and_uses_both_kinds() -> None:
    x = torch.full((100, 1, 28, 28), 0.5)
    noisy = denoiser_digits.noise_of_any_strength(x, device.generator(0))
    assert noisy.shape == x.shape
    masked = ((noisy == 0) | (noisy == 0.5)).flatten(1).all(1)
    assert 0 < int(masked.sum()) < 100
