"""Contraction: the code shall hardly move when the input does.

How fast it moves is the encoder's Jacobian, one matrix (k, d) for each example; its squared Frobenius
norm is the penalty.

Chapter: book/represent/constraints.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.autoencoders.networks import (
    Autoencoder,
    check_shape,
    check_size,
    dense,
    initialise,
)
from course_lib.classifiers import check_examples

Encoder = Callable[[Tensor], Tensor]


def contractive_penalty(encoder: Encoder, x: Tensor) -> Tensor:
    """Return ||J_f(x)||_F^2, the squares of all derivatives of the code, mean over the batch.

    ``encoder`` f: examples (N, ...) to codes (N, k) or maps; ``x``: (N, ...). Exact and
    differentiable. For one sigmoid layer it costs no more than the code: its derivatives are
    h_j (1 - h_j) W_ji. For any other encoder the whole Jacobian is written out, N * k * d numbers;
    ``hutchinson_penalty`` is for those that are too large.

    Raises ``ValueError`` as ``jacobian`` does.
    Source: Rifai et al., "Contractive auto-encoders: explicit invariance during feature extraction",
    2011, equation 1 and its closed form for a sigmoid layer.
    """
    layer = _sigmoid_layer(encoder)
    if layer is None:
        return jacobian(encoder, x).square().sum((1, 2)).mean()
    check_examples("x", x)
    h = encoder(x)
    penalty: Tensor = ((h * (1 - h)).square() @ layer.weight.square().sum(1)).sum() / len(x)
    return penalty


def jacobian(encoder: Encoder, x: Tensor) -> Tensor:
    """Return the derivatives of the code by the input: (N, k, d), examples and codes flattened.

    Each example goes through ``encoder`` on its own, so batch normalisation has to be in evaluation
    mode. Gradients flow through the result, to the encoder's weights.

    Raises ``ValueError`` for no example, NaN, or an encoder that does not return a code per example.
    """
    check_examples("x", x)

    def of_one(one: Tensor) -> Tensor:
        code = encoder(one[None])
        if code.ndim < 2 or len(code) != 1:
            raise ValueError(
                f"encoder: expected one code for one example, got shape {tuple(code.shape)}"
            )
        return code.flatten()

    rows: Tensor = torch.func.vmap(torch.func.jacrev(of_one))(x)
    return rows.flatten(2)


def hutchinson_penalty(
    encoder: Encoder, x: Tensor, generator: torch.Generator, *, draws: int = 1
) -> Tensor:
    """Return an estimate of ``contractive_penalty`` that is right on average, one pass per draw.

    For v of independent signs E[v v^T] = 1, so E ||v^T J||^2 = ||J||_F^2, and v^T J is one
    backward pass, however many units the code has. ``draws``: how many v to average over. The signs
    come from ``generator``. Differentiable; the gradient too is right on average.

    Raises ``ValueError`` for no example, NaN, an encoder that does not return a code per example, or
    draws below 1. Batch normalisation has to be in evaluation mode.
    Source: Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian
    smoothing splines", 1989; Hoffman et al., "Robust learning with Jacobian regularization", 2019.
    """
    check_examples("x", x)
    check_size("draws", draws)
    trains = torch.is_grad_enabled()
    total = x.new_zeros(())
    with torch.enable_grad():
        given = x.detach().requires_grad_()
        code = encoder(given)
        if code.ndim < 2 or len(code) != len(x):
            raise ValueError(
                f"encoder: expected {len(x)} codes for {len(x)} examples, "
                f"got shape {tuple(code.shape)}"
            )
        for _ in range(draws):
            bits = torch.randint(0, 2, code.shape, generator=generator, device=generator.device)
            v = 2 * bits.to(code) - 1
            # The graph is kept for the next draw, and made differentiable for a training.
            (row,) = torch.autograd.grad(code, given, v, retain_graph=True, create_graph=trains)
            total = total + row.square().sum() / len(x)
    return total / draws


def tied(
    shape: Sequence[int], code: int, *, generator: torch.Generator | None = None
) -> Autoencoder:
    """Return an autoencoder of one sigmoid layer whose decoder is its matrix, transposed.

    h = sigmoid(W x + b), x_hat = sigmoid(W^T h + b'). With a decoder of its own the penalty
    can be dodged: shrink W, stretch W' as much, and the Jacobian vanishes while the reconstruction
    stays. Weights start as ``networks.initialise`` draws them.

    Raises ``ValueError`` for a size below 1.
    Source: Rifai et al., 2011, whose encoders and decoders share one matrix.
    """
    check_shape(shape)
    encoder = dense(shape, (), code, code_activation="sigmoid").encoder
    layer = _sigmoid_layer(encoder)
    assert layer is not None
    model = Autoencoder(encoder, _Transposed(layer, shape), shape)
    return initialise(model, generator)


class _Transposed(nn.Module):
    """A decoder with no matrix of its own, only a bias: W^T h + b'."""

    def __init__(self, layer: nn.Linear, shape: Sequence[int]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(layer.in_features))
        self.shape = tuple(shape)
        self._shared = (layer,)  # in a tuple, or its weight would be listed and saved twice

    def forward(self, code: Tensor) -> Tensor:
        x: Tensor = F.linear(code, self._shared[0].weight.T, self.bias)
        shaped: Tensor = x.unflatten(1, self.shape)
        return shaped


def _sigmoid_layer(encoder: Encoder) -> nn.Linear | None:
    """Return the dense layer of an encoder that is one dense layer and a sigmoid, else nothing."""
    parts = list(encoder) if isinstance(encoder, nn.Sequential) else []
    parts = [part for part in parts if not isinstance(part, nn.Flatten)]
    if len(parts) == 2 and isinstance(parts[0], nn.Linear) and isinstance(parts[1], nn.Sigmoid):
        return parts[0]
    return None
