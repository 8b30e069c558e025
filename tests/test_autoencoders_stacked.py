"""Stacks: each layer learns on what the finished ones below give it; gradients obey the chain rule."""

from __future__ import annotations

import copy
import functools
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import classifiers, data, device
from course_lib.autoencoders import networks, training
from course_lib.autoencoders.denoising import corrupt
from course_lib.autoencoders.stacked import LayerStep, Stack, gradient_sizes, pretrain_stack

ACTIVATIONS = ["sigmoid", "relu", "tanh", "linear"]


def digits(n: int = 300) -> Tensor:
    return F.avg_pool2d(data.mnist("train").take(n, seed=0).x, 4)


def stack(*widths: int, seed: int = 0, shape: tuple[int, ...] = (1, 7, 7), **kind: Any) -> Stack:
    return Stack(shape, widths, generator=device.generator(seed), **kind)


def trained(model: Stack, x: Tensor, **settings: Any) -> list[LayerStep]:
    return list(pretrain_stack(model, x, **settings))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_of_codes_reconstructions_and_logits(activation: Any, dtype: torch.dtype) -> None:
    model = stack(12, 9, 5, activation=activation).to(dtype)
    x = digits(20).to(dtype)
    assert [tuple(model.encode(x, depth).shape) for depth in (1, 2, 3)] == [
        (20, 12),
        (20, 9),
        (20, 5),
    ]
    torch.testing.assert_close(model(x), model.encode(x))
    back, logits = model.unrolled()(x), model.classifier(4)(x)
    assert back.shape == x.shape and back.dtype == dtype
    assert logits.shape == (20, 4) and logits.dtype == dtype


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_unrolled_stack_goes_up_all_encoders_and_down_all_decoders(activation: Any) -> None:
    model, x = stack(12, 9, 5, activation=activation), digits(20)
    low, middle, high = model.layers
    by_hand = low.decode(middle.decode(high.decode(high.encode(middle.encode(low.encode(x))))))
    torch.testing.assert_close(model.unrolled()(x), by_hand)


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "tanh"])
def test_a_layer_rebuilds_codes_in_the_range_that_they_have(activation: Any) -> None:
    model = stack(12, 9, activation=activation)
    codes = model.encode(digits(50), 1).detach()
    back = model.layers[1](codes).detach()
    low = {"sigmoid": 0, "relu": 0, "tanh": -1}[activation]
    high = {"sigmoid": 1, "relu": math.inf, "tanh": 1}[activation]
    for values in (codes, back):
        assert low <= float(values.min()) and float(values.max()) <= high


def test_the_generator_decides_the_weights_and_relu_gets_those_of_he() -> None:
    assert torch.equal(weights(stack(12, 9)), weights(stack(12, 9)))
    assert not torch.equal(weights(stack(12, 9)), weights(stack(12, 9, seed=1)))
    wide = Stack((400,), (600,), activation="relu", generator=device.generator(0)).layers[0]
    glorot = Stack((400,), (600,), activation="tanh", generator=device.generator(0)).layers[0]
    assert float(next(wide.encoder.parameters()).detach().std()) == pytest.approx(
        math.sqrt(2 / 400), rel=0.01
    )
    assert float(next(glorot.encoder.parameters()).detach().std()) == pytest.approx(
        math.sqrt(2 / 1000), rel=0.01
    )


@pytest.mark.parametrize("loss", [training.squared_error, training.cross_entropy])
@pytest.mark.parametrize("noise", [None, functools.partial(corrupt, nu=0.2)])
def test_pretraining_lowers_the_loss_of_each_layer(loss: training.Loss, noise: Any) -> None:
    x, model = digits(), stack(20, 12, 8)
    before = copy.deepcopy(model)
    steps = trained(model, x, steps=150, lr=1e-2, loss=loss, corrupt=noise)
    assert [(s.layer, s.layers, s.step, s.steps) for s in steps] == [
        (layer, 3, step, 150) for layer in (1, 2, 3) for step in range(1, 151)
    ]
    codes = x
    for layer, first in zip(model.layers, before.layers, strict=True):
        error = training.reconstruction_error(layer, codes)
        assert error < 0.9 * training.reconstruction_error(first, codes)
        codes = layer.encode(codes).detach()
    for number in (1, 2, 3):
        losses = [s.loss for s in steps if s.layer == number]
        assert sum(losses[-10:]) < sum(losses[:10])


def test_the_layers_below_are_finished_before_a_layer_starts_and_stay_as_they_are() -> None:
    x, model = digits(), stack(20, 12, 8)
    seen: dict[int, Tensor] = {}
    untouched = [weights(layer) for layer in stack(20, 12, 8).layers]
    for step in pretrain_stack(model, x, steps=5):
        for i, layer in enumerate(model.layers, start=1):
            if i < step.layer:
                assert torch.equal(weights(layer), seen[i])
            if i > step.layer:
                assert torch.equal(weights(layer), untouched[i - 1])
        seen[step.layer] = weights(model.layers[step.layer - 1])
    assert len(seen) == 3


def test_a_layer_is_trained_on_exactly_the_codes_of_the_finished_layers_below() -> None:
    x, model = digits(200), stack(20, 12, 8)
    given: list[Tensor] = []

    def spy(batch: Tensor, generator: torch.Generator) -> Tensor:
        given.append(batch.clone())
        return batch

    trained(model, x, steps=2, batch_size=100, corrupt=spy)
    for i, expected in enumerate((x, model.encode(x, 1), model.encode(x, 2))):
        seen = torch.cat(given[2 * i : 2 * i + 2]).flatten(1)
        distance = torch.cdist(seen.double(), expected.detach().flatten(1).double())
        assert float(distance.min(1).values.max()) < 1e-6
        assert sorted(distance.argmin(1).tolist()) == list(range(200))


@pytest.mark.parametrize("noise", [None, functools.partial(corrupt, nu=0.3)])
def test_each_layer_is_the_plain_training_loop_on_the_same_autoencoder(noise: Any) -> None:
    x, model = digits(), stack(20, 12)
    alone = copy.deepcopy(model.layers[0])
    above = copy.deepcopy(model.layers[1])
    settings: dict[str, Any] = {"steps": 20, "corrupt": noise, "lr": 3e-3, "weight_decay": 0.1}
    for _ in training.fit(alone, x, seed=7, **settings):
        pass
    steps = trained(model, x, seed=7, **settings)
    assert torch.equal(weights(model.layers[0]), weights(alone))
    with torch.no_grad():
        codes = alone.encode(x)
    losses = [step.loss for step in training.fit(above, codes, seed=8, **settings)]
    assert torch.equal(weights(model.layers[1]), weights(above))
    assert [step.loss for step in steps if step.layer == 2] == losses


def test_a_stack_of_one_layer_is_a_dense_autoencoder() -> None:
    model = stack(20)
    plain = networks.dense(
        (1, 7, 7), (), 20, code_activation="sigmoid", generator=device.generator(0)
    )
    assert torch.equal(weights(model), weights(plain))
    x = digits(50)
    torch.testing.assert_close(model.unrolled()(x), plain(x))


def test_float64_examples_pretrain_a_float64_stack_and_the_mode_is_evaluation_at_the_end() -> None:
    model = stack(8, 4).double()
    steps = pretrain_stack(model, digits(50).double(), steps=3)
    next(steps)
    assert model.layers[0].training
    steps.close()  # type: ignore[attr-defined]
    assert not any(module.training for module in model.modules())


def test_the_unrolled_stack_and_the_classifier_share_the_weights() -> None:
    x, model = digits(), stack(20, 12)
    trained(model, x, steps=50, lr=1e-2)
    error = training.reconstruction_error(model.unrolled(), x)
    for _ in training.fit(model.unrolled(), x, steps=50, lr=3e-3):
        pass
    assert training.reconstruction_error(model.unrolled(), x) < error
    before = weights(model.layers[1].encoder)
    y = torch.arange(len(x)) % 2
    for _ in classifiers.fit(model.classifier(2), x, y, steps=2):
        pass
    assert not torch.equal(weights(model.layers[1].encoder), before)


def test_a_random_and_a_pretrained_start_differ_in_nothing_but_the_stack() -> None:
    pretrained, random = stack(20, 12), stack(20, 12)
    trained(pretrained, digits(), steps=2)
    ours, theirs = (s.classifier(10, device.generator(5)) for s in (pretrained, random))
    assert str(ours) == str(theirs)
    assert torch.equal(weights(ours[-1]), weights(theirs[-1]))
    assert not torch.equal(weights(ours[0]), weights(theirs[0]))


def sigmoid_net(depth: int, width: int, scale: float, seed: int = 0) -> nn.Sequential:
    draw = device.generator(seed)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layer = nn.Linear(width, width, bias=False)
        nn.init.normal_(layer.weight, std=scale / math.sqrt(width), generator=draw)
        layers += [layer, nn.Sigmoid()]
    return nn.Sequential(*layers[:-1]).double()


def test_gradient_sizes_are_those_of_the_chain_rule_by_hand() -> None:
    draw = device.generator(1)
    net = sigmoid_net(4, 6, 2.0)
    x, y = torch.rand(9, 6, generator=draw).double(), torch.randint(0, 6, (9,), generator=draw)
    matrices = [layer.weight.detach() for layer in net if isinstance(layer, nn.Linear)]
    codes = [x]
    for w in matrices:
        a = codes[-1] @ w.T
        codes.append(a.sigmoid())
    delta = a.softmax(1) - F.one_hot(y, 6)
    expected = [delta.norm(dim=1).mean()]
    for w, h in zip(matrices[:0:-1], codes[-2:0:-1], strict=True):
        delta = (delta @ w) * h * (1 - h)
        expected.insert(0, delta.norm(dim=1).mean())
    torch.testing.assert_close(gradient_sizes(net, x, y), torch.stack(expected))


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_a_sigmoid_layer_passes_on_at_most_a_quarter_of_its_weights_norm(scale: float) -> None:
    net = sigmoid_net(8, 16, scale)
    x = torch.rand(1, 16, generator=device.generator(1)).double()
    sizes = gradient_sizes(net, x, torch.tensor([3]))
    above = [torch.linalg.matrix_norm(m.weight, 2) for m in net if isinstance(m, nn.Linear)][1:]
    for (here, there), norm in zip(pairwise(sizes), above, strict=True):
        assert float(here) <= float(there) * float(norm.detach()) / 4 * (1 + 1e-9)


def test_gradients_vanish_in_a_sigmoid_net_and_not_in_a_relu_net_of_he() -> None:
    x, y = digits(100), torch.arange(100) % 10
    share = {}
    for activation in ("sigmoid", "relu"):
        model = stack(*(64,) * 8, activation=activation).classifier(10, device.generator(1))
        sizes = gradient_sizes(model, x, y)
        share[activation] = float(sizes[0] / sizes[-1])
    assert share["sigmoid"] < 1e-3 and 0.1 < share["relu"] < 10


def test_measuring_gradients_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 3)).train()
    model[0].weight.requires_grad_(False)
    model[3].bias.grad = torch.ones(3)
    before = copy.deepcopy(model.state_dict())
    x = torch.rand(5, 4)
    with torch.no_grad():
        sizes = gradient_sizes(model, x, torch.tensor([0, 1, 2, 0, 1]))
    torch.testing.assert_close(sizes, gradient_sizes(model, x, torch.tensor([0, 1, 2, 0, 1])))
    assert len(sizes) == 2 and model.training and not x.requires_grad
    assert not model[0].weight.requires_grad and model[0].weight.grad is None
    assert torch.equal(model[3].bias.grad, torch.ones(3))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


X, Y = torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
NAN = torch.full((6, 4), math.nan)


def net() -> Stack:
    return Stack((4,), (3, 2))


WRONG: dict[str, tuple[Any, str]] = {
    "no layer": (lambda: Stack((4,), ()), "widths: expected one layer or more"),
    "a width of 0": (lambda: Stack((4,), (3, 0)), "widths: expected a whole number from 1, got 0"),
    "half a width": (lambda: Stack((4,), (2.5,)), "widths: expected a whole number"),  # type: ignore[arg-type]
    "no shape": (lambda: Stack((), (3,)), "shape: expected"),
    "a size below 1": (lambda: Stack((1, 0), (3,)), "shape: expected"),
    "an activation": (lambda: Stack((4,), (3,), activation="step"), "activation: expected"),  # type: ignore[arg-type]
    "an output": (lambda: Stack((4,), (3,), output="step"), "output: expected"),  # type: ignore[arg-type]
    "codes of another shape": (lambda: net().encode(torch.rand(6, 5)), "x: expected shape"),
    "codes of nobody": (lambda: net().encode(X[:0]), "x: expected shape"),
    "depth 0": (lambda: net().encode(X, 0), "depth: expected 1 to 2, got 0"),
    "a depth too large": (lambda: net().encode(X, 3), "depth: expected 1 to 2, got 3"),
    "one class": (lambda: net().classifier(1), "classes: expected two or more"),
    "no class": (lambda: net().classifier(0), "classes: expected a whole number"),
    "empty": (lambda: pretrain_stack(net(), X[:0], steps=1), "x: expected a float"),
    "whole numbers": (lambda: pretrain_stack(net(), X.long(), steps=1), "x: expected a float"),
    "NaN": (lambda: pretrain_stack(net(), NAN, steps=1), "x: expected finite"),
    "another shape": (lambda: pretrain_stack(net(), X[:, :3], steps=1), "expected shape"),
    "no step": (lambda: pretrain_stack(net(), X, steps=0), "steps: expected"),
    "no batch": (lambda: pretrain_stack(net(), X, steps=1, batch_size=0), "batch_size: expected"),
    "no rate": (lambda: pretrain_stack(net(), X, steps=1, lr=0.0), "lr, weight_decay: expected"),
    "out of range": (
        lambda: pretrain_stack(net(), X - 1, steps=1, loss=training.cross_entropy),
        "target: expected values in",
    ),
    "no logits": (
        lambda: pretrain_stack(
            Stack((4,), (3, 2), activation="relu"), X, steps=1, loss=training.cross_entropy
        ),
        "loss: cross-entropy needs",
    ),
    "no dense layer": (lambda: gradient_sizes(nn.ReLU(), X, Y), "model: expected a dense layer"),
    "gradients of nobody": (lambda: gradient_sizes(nn.Linear(4, 3), X[:0], Y[:0]), "x: expected"),
    "gradients of NaN": (lambda: gradient_sizes(nn.Linear(4, 3), NAN, Y), "x: expected finite"),
    "labels too few": (lambda: gradient_sizes(nn.Linear(4, 3), X, Y[:3]), "y: expected int64"),
    "labels too high": (lambda: gradient_sizes(nn.Linear(4, 2), X, Y), "y: expected labels 0..1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused_by_name(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()
