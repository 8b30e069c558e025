"""Calls of a student's PCA and autoencoder, made in the student's process."""

from __future__ import annotations

import torch


def fit_mean(student, *, x, k):
    """Return the fitted mean."""
    return {"mean": student.pca_fit(x, k)[0]}


def fit_components(student, *, x, k):
    """Return the fitted directions."""
    return {"components": student.pca_fit(x, k)[1]}


def fit_ratio(student, *, x, k):
    """Return the shares of the variance."""
    return {"ratio": student.pca_fit(x, k)[2]}


def transform(student, *, x, mean, components):
    """Return the codes of ``x``."""
    return {"codes": student.pca_transform(x, mean, components)}


def inverse(student, *, codes, mean, components):
    """Return what the codes stand for."""
    return {"rows": student.pca_inverse(codes, mean, components)}


def scattered(student, x, k, seed):
    """Build the autoencoder and give all its parameters other values than it started with."""
    model = student.LinearAutoencoder(x.shape[1], k)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator))
    return model


def autoencode(student, *, x, k, seed):
    """Return codes, what they unfold to, and the result of the whole."""
    model = scattered(student, x, k, seed)
    codes = model.encode(x)
    return {"codes": codes, "unfolded": model.decode(codes), "forward": model(x)}


def whole(student, *, x, k, seed, mix):
    """Return the result of the whole."""
    return {"forward": scattered(student, x, k, seed)(x)}


def at_zero(student, *, x, c, k, seed):
    """Return codes of ``x`` and of zeros, and what codes ``c`` and zeros unfold to, in four models."""
    found = {"codes": [], "codes_of_zero": [], "rows": [], "rows_of_zero": []}
    for i in range(4):
        model = scattered(student, x, k, seed + i)
        found["codes"].append(model.encode(x))
        found["codes_of_zero"].append(model.encode(torch.zeros_like(x)))
        found["rows"].append(model.decode(c))
        found["rows_of_zero"].append(model.decode(torch.zeros_like(c)))
    return found


def train(student, *, x, others, k):
    """Train the autoencoder on ``x``; return its reconstruction before and after, and of others."""
    model = student.LinearAutoencoder(x.shape[1], k)
    before = model(x).detach().clone()
    parameters = [p for p in model.parameters() if p.requires_grad]
    if parameters and model(x).requires_grad:
        optimizer = torch.optim.LBFGS(
            parameters,
            max_iter=60,
            tolerance_grad=1e-5,
            tolerance_change=1e-8,
            line_search_fn="strong_wolfe",
        )

        def closure():
            optimizer.zero_grad()
            loss = (model(x) - x).square().sum(dim=1).mean()
            loss.backward()
            for p in parameters:
                if p.grad is not None:  # LBFGS needs them so
                    p.grad = p.grad.contiguous()
            return loss

        optimizer.step(closure)
    return {"before": before, "after": model(x), "others": model(others)}


def angles(student, *, a, b, count):
    """Return the angle of each pair; ``count`` says how many rows of each pair are in use."""
    found = [
        student.subspace_angle(a[i, :k].clone(), b[i, :k].clone())
        for i, k in enumerate(count.tolist())
    ]
    return {"angle": found}
