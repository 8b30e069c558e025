"""Deep encoders learned one layer at a time, and how much gradient reaches each layer of a net.

Chapter: book/represent/going_deep.md
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.autoencoders import training
from course_lib.autoencoders.networks import (
    Activation,
    Autoencoder,
    check_shape,
    check_size,
    dense,
)
from course_lib.classifiers import check_labelled, check_logits, evaluating

if TYPE_CHECKING:  # seconds to import, and most trainings here need none
    from lightning_fabric import Fabric

Output = Literal["sigmoid", "linear"]

#: How a layer rebuilds the codes below it: with a range like theirs. ReLU codes get a softplus,
#: which never dies as a ReLU would (Glorot, Bordes and Bengio, 2011, section 3.2).
REBUILDS: dict[str, tuple[Output, type[nn.Module]]] = {
    "sigmoid": ("sigmoid", nn.Identity),
    "relu": ("linear", nn.Softplus),
    "tanh": ("linear", nn.Tanh),
    "linear": ("linear", nn.Identity),
}


class Stack(nn.Module):
    """Autoencoders of one hidden layer, each on the codes of the one below.

    ``shape``: of one example, e.g. (1, 28, 28). ``widths``: the size of each layer's code, from the
    bottom up. ``activation``: of every code. ``output``: of the lowest decoder, ``"sigmoid"`` for
    examples in [0, 1]. Weights start as Glorot and Bengio (2010) draw them, for ``"relu"`` the encoders' as
    He et al. (2015) do; biases start at 0.

    Raises ``ValueError`` for no layer, a size below 1, or an unknown activation or output.
    """

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int],
        *,
        activation: Activation = "sigmoid",
        output: Output = "sigmoid",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_shape(shape)
        if len(widths) == 0:
            raise ValueError("widths: expected one layer or more, got none")
        for width in widths:
            check_size("widths", width)
        if activation not in REBUILDS:
            raise ValueError(
                f"activation: expected one of {', '.join(REBUILDS)}; got {activation!r}"
            )
        self.shape, self.widths = tuple(shape), tuple(widths)
        self.autoencoders = nn.ModuleList()
        code_output, finish = REBUILDS[activation]
        below: tuple[int, ...] = self.shape
        for i, width in enumerate(widths):
            layer = dense(
                below,
                (),
                width,
                code_activation=activation,
                output=output if i == 0 else code_output,
                generator=generator,
            )
            if i > 0:
                layer.decoder = nn.Sequential(layer.decoder, finish())
            if activation == "relu":
                weight = next(layer.encoder.parameters())
                nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
            self.autoencoders.append(layer)
            below = (width,)

    @property
    def layers(self) -> list[Autoencoder]:
        """The autoencoders, from the bottom up."""
        return [layer for layer in self.autoencoders if isinstance(layer, Autoencoder)]

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes (N, widths[-1]) that the highest layer gives ``x`` (N, *shape)."""
        return self.encode(x)

    def encode(self, x: Tensor, depth: int | None = None) -> Tensor:
        """Return the codes (N, widths[depth - 1]) after the ``depth`` lowest layers, all by default.

        Raises ``ValueError`` for another shape, no example, or a depth that there is not.
        """
        depth = len(self.layers) if depth is None else depth
        if not 1 <= depth <= len(self.layers):
            raise ValueError(f"depth: expected 1 to {len(self.layers)}, got {depth}")
        code = x
        for layer in self.layers[:depth]:
            code = layer.encode(code)
        return code

    def unrolled(self) -> Autoencoder:
        """Return the stack as one deep autoencoder: up through all encoders, down all decoders.

        It shares the stack's weights, so that training it fine-tunes the stack.

        Source: Hinton and Salakhutdinov (2006), figure 1.
        """
        down: list[nn.Module] = []
        for layer in self.layers[:0:-1]:
            down += [layer.decoder, nn.Sigmoid() if layer.output == "sigmoid" else nn.Identity()]
        lowest = self.layers[0]
        return Autoencoder(
            nn.Sequential(*(layer.encoder for layer in self.layers)),
            nn.Sequential(*down, lowest.decoder),
            self.shape,
            output="sigmoid" if lowest.output == "sigmoid" else "linear",
        )

    def classifier(self, classes: int, generator: torch.Generator | None = None) -> nn.Sequential:
        """Return the encoders with one dense layer of ``classes`` logits on top.

        It shares the stack's weights: what ``classifiers.fit`` does to it, it does to the stack
        (``copy.deepcopy`` the stack to keep it). The new layer starts as Glorot and Bengio (2010) draw.

        Raises ``ValueError`` for fewer than two classes.
        """
        check_size("classes", classes)
        if classes < 2:
            raise ValueError(f"classes: expected two or more, got {classes}")
        like = next(self.parameters())
        head = nn.Linear(self.widths[-1], classes)
        nn.init.xavier_uniform_(head.weight, generator=generator)
        nn.init.zeros_(head.bias)
        return nn.Sequential(*(layer.encoder for layer in self.layers), head.to(like))


@dataclass(frozen=True)
class LayerStep:
    """One step of the pretraining: which layer of how many, its step, and its own loss there."""

    layer: int
    layers: int
    step: int
    steps: int
    loss: float


def pretrain_stack(
    stack: Stack,
    x: Tensor,
    *,
    steps: int,
    loss: training.Loss = training.squared_error,
    corrupt: training.Corrupt | None = None,
    batch_size: int = 100,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    fabric: Fabric | None = None,
    seed: int = 0,
) -> Iterator[LayerStep]:
    """Train ``stack`` in place, layer by layer from the bottom, each for ``steps`` batches.

    ``x``: examples (N, *shape), with no labels. A layer learns to rebuild the codes that the finished
    layers below give ``x``; those are no longer changed. ``corrupt(codes, generator)`` spoils what
    each layer is given, never what it has to rebuild: that is a stack of denoising autoencoders. The
    other settings are those of ``training.fit``, the seed rising by one from layer to layer. When the
    iterator ends, or is closed, the stack is in evaluation mode.

    Raises ``ValueError`` and ``ArithmeticError`` as ``training.fit`` does, and where the loss asks for
    logits that a layer does not have.

    Source: Bengio et al. (2007), section 3; with noise Vincent et al. (2010), section 3.5.
    """
    if loss.from_logits and any(layer.output != "sigmoid" for layer in stack.layers):
        raise ValueError(
            f"loss: {loss.name} needs a stack with sigmoid codes and a sigmoid output; "
            f"take squared_error"
        )

    def fit(i: int, codes: Tensor) -> Iterator[training.Step]:
        return training.fit(
            stack.layers[i],
            codes,
            steps=steps,
            loss=loss,
            corrupt=corrupt,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            fabric=fabric,
            seed=seed + i,
        )

    # Here, because wrong input should be refused before the first step is asked for.
    first = fit(0, x)

    def train() -> Iterator[LayerStep]:
        codes = x
        try:
            for i, layer in enumerate(stack.layers):
                for step in first if i == 0 else fit(i, codes):
                    yield LayerStep(i + 1, len(stack.layers), step.step, step.steps, step.loss)
                codes = _codes(layer, codes)
        finally:
            stack.eval()

    return train()


@torch.no_grad()
def _codes(layer: Autoencoder, x: Tensor, batch_size: int = 1000) -> Tensor:
    """Return the codes of ``x``, where ``x`` is and in its dtype."""
    weight = next(layer.parameters())
    return torch.cat([layer.encode(part.to(weight)).to(x) for part in x.split(batch_size)])


def gradient_sizes(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return how much gradient reaches each dense layer of a classifier: (L,), from input to output.

    ``x``: (N, ...), ``y``: int64 (N,), where the model is. The size at layer l is the norm of
    dL/da_l, the gradient of one example's cross-entropy with respect to what the layer gives its
    activation, averaged over the examples. The model is left as it was found, its gradients too.

    Raises ``ValueError`` for an empty batch, NaN, labels that do not fit, or a model with no dense
    layer.
    """
    check_labelled(x, y)
    outputs: list[Tensor] = []
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError("model: expected a dense layer or more, got none")
    hooks = [layer.register_forward_hook(lambda *call: outputs.append(call[2])) for layer in layers]
    try:
        with evaluating(model), torch.enable_grad():
            # The input asks for a gradient too, so that frozen weights make no difference.
            logits = model(x.detach().requires_grad_())
            check_logits(logits, y)
            # Summed, not averaged: an example's gradient should not depend on how many there are.
            gradients = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), outputs)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([gradient.flatten(1).norm(dim=1).mean() for gradient in gradients])
