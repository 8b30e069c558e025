"""The variational autoencoder: its divergence in closed form, its noise, and that it learns."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from course_lib import device
from course_lib.autoencoders.training import fit
from course_lib.autoencoders.variational import VariationalAutoencoder, kl_divergence


def small(noise: int = 1) -> VariationalAutoencoder:
    return VariationalAutoencoder(
        1, 3, channels=2, noise=device.generator(noise), generator=device.generator(0)
    )


def test_the_divergence_is_that_of_two_gaussians() -> None:
    g = device.generator(0)
    mu, log_variance = torch.randn(7, 4, generator=g), torch.randn(7, 4, generator=g)
    ours = kl_divergence(small(), mu, torch.cat([mu, log_variance], dim=1), weight=0.5)
    posterior, prior = Normal(mu, (log_variance / 2).exp()), Normal(0.0, 1.0)
    assert float(ours) == pytest.approx(0.5 * float(torch_kl(posterior, prior).sum(1).mean()))
    assert float(kl_divergence(small(), mu, torch.zeros(2, 6))) == 0


def test_noise_is_drawn_in_training_only_and_has_the_codes_spread() -> None:
    model = small()
    code = torch.cat([torch.full((1, 3), 0.4), torch.full((1, 3), -2.0)], dim=1)
    model.eval()
    assert torch.equal(model.decode(code), model.decode(code))
    model.train()
    assert not torch.equal(model.decode(code), model.decode(code))
    # z = mu where the variance vanishes, whatever is drawn.
    certain = torch.cat([torch.full((1, 3), 0.4), torch.full((1, 3), -80.0)], dim=1)
    trained = model.decode(certain)
    assert torch.allclose(trained, model.eval().decode(certain), atol=1e-6)
    drawn: list[torch.Tensor] = []
    model.decoder = torch.nn.Module()
    model.decoder.forward = lambda z: drawn.append(z) or torch.zeros(len(z), 1, 64, 64)  # type: ignore[assignment, func-returns-value]
    model.train().decode(code.expand(4000, 6))
    assert torch.allclose(drawn[0].mean(0), torch.full((3,), 0.4), atol=0.03)
    assert torch.allclose(drawn[0].std(0), torch.tensor(-1.0).exp().expand(3), atol=0.02)


def test_samples_come_from_the_prior_and_repeat() -> None:
    model = small().eval()
    x = model.sample(5, generator=device.generator(3))
    assert x.shape == (5, 1, 64, 64) and 0 <= float(x.min()) and float(x.max()) <= 1
    z = torch.randn(5, 3, generator=device.generator(3))
    assert torch.equal(x, model.decode(torch.cat([z, z], dim=1)))  # in evaluation mode mu alone
    assert torch.equal(x, model.sample(5, generator=device.generator(3)))


def test_samples_like_images_have_the_mean_and_the_spread_of_their_codes() -> None:
    model = small().eval()
    x = torch.rand(40, 1, 64, 64, generator=device.generator(5))
    mu, _ = model.encode(x).detach().chunk(2, dim=1)
    drawn: list[torch.Tensor] = []
    model.decoder = torch.nn.Module()
    model.decoder.forward = lambda z: drawn.append(z) or torch.zeros(len(z), 1, 64, 64)  # type: ignore[assignment, func-returns-value]
    model.sample(20_000, generator=device.generator(0), like=x)
    scale = float(mu.std())
    assert torch.allclose(drawn[0].mean(0), mu.mean(0), atol=0.05 * scale)
    assert torch.allclose(torch.cov(drawn[0].T), torch.cov(mu.T), atol=0.05 * scale**2)
    with pytest.raises(ValueError, match="like: expected two images"):
        model.sample(2, generator=device.generator(0), like=x[:1])


def test_training_lowers_the_loss_and_repeats() -> None:
    x = torch.zeros(16, 1, 64, 64)
    x[:8, :, 16:48] = 1.0
    ends = []
    for _ in range(2):
        model = small()
        steps = list(
            fit(
                model,
                x,
                steps=40,
                penalty=functools.partial(kl_divergence, weight=0.02),
                batch_size=16,
                lr=1e-2,
            )
        )
        assert steps[-1].loss < 0.7 * steps[0].loss
        ends.append(model.sample(3, generator=device.generator(0)))
    assert torch.equal(ends[0], ends[1])


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="k: expected"):
        VariationalAutoencoder(k=0)
    with pytest.raises(ValueError, match="n: expected"):
        small().sample(0, generator=device.generator(0))
    with pytest.raises(ValueError, match="code: expected means"):
        kl_divergence(small(), torch.zeros(1), torch.zeros(2, 3))
