"""Autoencoders as such: shapes, what the losses are, and what is known of the linear one."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from course_lib import data, device, pca
from course_lib.autoencoders import networks, training


def trained(model: networks.Autoencoder, x: Tensor, **settings: Any) -> networks.Autoencoder:
    for _ in training.fit(model, x, **settings):
        pass
    return model


def cloud(n: int = 400, d: int = 8, rank: int = 8, seed: int = 0) -> Tensor:
    """Points whose variances fall by a factor from axis to axis, turned at random."""
    draw = device.generator(seed)
    scale = 1.6 ** -torch.arange(d).float() * (torch.arange(d) < rank)
    turn = torch.linalg.qr(torch.randn(d, d, generator=draw)).Q
    return 0.3 + torch.randn(n, d, generator=draw) * scale @ turn


MODELS: dict[str, networks.Autoencoder] = {
    "linear": networks.linear((1, 8, 8), 3),
    "dense": networks.dense((1, 8, 8), (16, 12), 3, code_activation="sigmoid"),
    "no hidden layer": networks.dense((5,), (), 2),
    "convolutional": networks.convolutional((1, 8, 12), 3, channels=4),
    "in colour": networks.convolutional((3, 16, 16), 5, channels=4, output="linear"),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_comes_back_has_the_shape_of_what_went_in(
    model: networks.Autoencoder, dtype: torch.dtype
) -> None:
    model = model.to(dtype)
    x = torch.rand(6, *model.shape, generator=device.generator(0)).to(dtype)
    with torch.no_grad():
        code, back = model.encode(x), model(x)
    assert code.shape[0] == 6 and code.ndim == 2
    assert back.shape == x.shape and back.dtype == dtype
    torch.testing.assert_close(back, model.decode(code))
    if model.output == "sigmoid":
        assert 0 < float(back.min()) and float(back.max()) < 1
        torch.testing.assert_close(model.logits(code).sigmoid(), back)
    else:
        with pytest.raises(ValueError, match="output: expected 'sigmoid'"):
            model.logits(code)


def test_the_layers_are_those_asked_for() -> None:
    model = networks.dense((1, 4, 4), (9, 5), 2, activation="tanh", code_activation="sigmoid")
    sizes = [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]
    assert sizes == [(16, 9), (9, 5), (5, 2), (2, 5), (5, 9), (9, 16)]
    assert sum(isinstance(m, nn.Tanh) for m in model.modules()) == 4
    code = model.encode(torch.rand(3, 1, 4, 4)).detach()
    assert 0 < float(code.min()) and float(code.max()) < 1


def test_the_generator_decides_the_weights() -> None:
    def make(seed: int) -> Tensor:
        model = networks.convolutional((1, 8, 8), 4, generator=device.generator(seed))
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(make(1), make(1))
    assert not torch.equal(make(1), make(2))


def test_losses_are_their_formulas() -> None:
    draw = device.generator(0)
    x, logits = torch.rand(2, 7, 3, 4, generator=draw, dtype=torch.float64)
    x_hat = logits.sigmoid()
    by_hand = [float(sum((a - b) ** 2 for a, b in zip(p.flatten(), q.flatten(), strict=True)))
               for p, q in zip(x, x_hat, strict=True)]  # fmt: skip
    torch.testing.assert_close(
        training.squared_error.per_example(x_hat, x), torch.tensor(by_hand, dtype=torch.float64)
    )
    entropy = -(x * x_hat.log() + (1 - x) * (1 - x_hat).log()).flatten(1).sum(1)
    torch.testing.assert_close(training.cross_entropy.per_example(logits, x), entropy)


def test_cross_entropy_is_least_where_the_reconstruction_is_right_and_finite_everywhere() -> None:
    x = torch.tensor([[0.0, 0.3, 1.0]])
    right = torch.logit(x.clamp(1e-6, 1 - 1e-6))
    least = training.cross_entropy.per_example(right, x)
    for move in (-1.0, 0.5):
        assert float(training.cross_entropy.per_example(right + move, x)) > float(least)
    for extreme in (-1e4, 1e4):
        raw = torch.full((1, 3), extreme, requires_grad=True)
        value = training.cross_entropy.per_example(raw, x)
        value.backward()
        assert bool(value.isfinite().all())
        assert raw.grad is not None and bool(raw.grad.isfinite().all())


def test_a_linear_autoencoder_spans_the_subspace_of_pca() -> None:
    """Baldi and Hornik (1989): no minimum but the global one, and that is PCA's."""
    x = cloud()
    model = networks.linear((8,), 3, generator=device.generator(1))
    trained(model, x, steps=1000, lr=3e-2)
    decoder = model.decoder[0]
    assert isinstance(decoder, nn.Linear)
    fitted = pca.fit(x, k=3)
    assert pca.subspace_angle(decoder.weight.detach().T, fitted.components, degrees=True) < 1
    best = pca.reconstruction_error(fitted, x)
    assert best <= training.reconstruction_error(model, x) * (1 + 1e-6)
    assert training.reconstruction_error(model, x) < 1.01 * best


def test_an_overcomplete_linear_autoencoder_learns_to_copy() -> None:
    """With k >= d the identity costs nothing, and it copies what it has never seen as well."""
    x, other = cloud(), 10 * cloud(seed=5)
    model = networks.linear((8,), 12, generator=device.generator(0))
    trained(model, x, steps=800, lr=3e-2)
    assert training.reconstruction_error(model, x) < 1e-3 * float(
        (x - x.mean(0)).square().sum(1).mean()
    )
    relative = training.reconstruction_error(model, other) / float(other.square().sum(1).mean())
    assert relative < 0.05


def test_each_example_is_seen_once_before_any_again() -> None:
    x = torch.arange(10.0)[:, None]
    seen: list[float] = []

    def spy(batch: Tensor, generator: torch.Generator) -> Tensor:
        seen.extend(batch.flatten().tolist())
        return batch

    trained(networks.linear((1,), 1), x, steps=4, batch_size=5, corrupt=spy)
    assert sorted(seen[:10]) == sorted(seen[10:]) == x.flatten().tolist()
    assert seen[:10] != seen[10:]


def test_the_noise_goes_in_and_the_clean_one_is_asked_for() -> None:
    """Where every input is replaced by 0, the best that can be done is the mean."""
    x = cloud(d=4, rank=4)
    model = networks.linear((4,), 2, generator=device.generator(0))
    trained(model, x, steps=300, lr=3e-2, corrupt=lambda batch, _: torch.zeros_like(batch))
    torch.testing.assert_close(model(torch.zeros(1, 4))[0], x.mean(0), atol=0.05, rtol=0)


def test_a_target_is_what_comes_back() -> None:
    x = cloud(d=4, rank=4)
    model = networks.linear((4,), 4, generator=device.generator(0))
    trained(model, x, target=-2 * x + 1, steps=600, lr=3e-2)
    assert training.reconstruction_error(model, x, target=-2 * x + 1) < 1e-2


def test_a_penalty_is_added_and_told_apart() -> None:
    x = cloud(d=4, rank=4)

    def size_of_code(model: networks.Autoencoder, x: Tensor, code: Tensor) -> Tensor:
        return 50 * code.square().sum(1).mean()

    free, held = (networks.linear((4,), 2, generator=device.generator(0)) for _ in range(2))
    trained(free, x, steps=300, lr=1e-2)
    steps = list(training.fit(held, x, steps=300, lr=1e-2, penalty=size_of_code))
    assert all(step.penalty > 0 for step in steps)
    assert held.encode(x).square().mean() < 0.1 * free.encode(x).square().mean()
    assert [step.step for step in steps] == list(range(1, 301))


def test_one_seed_one_result_and_evaluation_mode_afterwards() -> None:
    x = data.mnist("test").x[:200]

    def run(seed: int) -> list[float]:
        model = networks.dense((1, 28, 28), (32,), 8, generator=device.generator(0))
        steps = training.fit(model, x, steps=5, loss=training.cross_entropy, seed=seed)
        losses = [step.loss for step in steps]
        assert not model.training
        return losses

    assert run(0) == run(0)
    assert run(0) != run(1)


def test_cross_entropy_and_squared_error_learn_digits() -> None:
    """A code of 16 numbers has to be worth more than the mean image, whatever is made small."""
    x = data.mnist("train").x[:2000]
    spread = float((x - x.mean(0)).square().flatten(1).sum(1).mean())
    for loss in (training.squared_error, training.cross_entropy):
        model = networks.dense((1, 28, 28), (64,), 16, generator=device.generator(0))
        trained(model, x, steps=250, loss=loss, lr=5e-3)
        assert training.reconstruction_error(model, x) < 0.65 * spread


def test_fabric_gives_the_same_as_none() -> None:
    x = cloud()
    results = []
    for fabric in (None, device.launch(accelerator="cpu")):
        model = networks.linear((8,), 2, generator=device.generator(0))
        trained(model, x, steps=20, fabric=fabric)
        results.append(model(x))
    torch.testing.assert_close(results[0], results[1])


def test_the_error_leaves_the_model_as_it_was() -> None:
    model = networks.dense((4,), (3,), 2)
    model.train()
    model.encoder.eval()
    training.reconstruction_error(model, torch.rand(5, 4))
    assert model.training and model.decoder.training and not model.encoder.training
    assert all(p.grad is None for p in model.parameters())


X = torch.rand(8, 4)
NAN = X.clone().index_put_((torch.tensor(2), torch.tensor(1)), torch.tensor(math.nan))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"x": X[:0]}, "x: expected a float tensor .* N > 0"),
        ({"x": X.int()}, "x: expected a float tensor"),
        ({"x": NAN}, "x: expected finite values"),
        ({"x": torch.rand(8, 5)}, r"expected shape \(8, 4\)"),
        ({"target": X[:3]}, r"target: expected shape \(8, 4\), .* got \(3, 4\)"),
        ({"target": NAN}, "target: expected finite"),
        ({"target": X + 1, "loss": training.cross_entropy}, r"target: expected values in \[0, 1\]"),
        ({"steps": 0}, "steps: expected a whole number from 1, got 0"),
        ({"steps": 1.5}, "steps: expected a whole number"),
        ({"batch_size": 0}, "batch_size: expected a whole number from 1"),
        ({"lr": 0.0}, "lr > 0"),
        ({"lr": math.nan}, "lr > 0"),
        ({"weight_decay": -1.0}, "weight_decay >= 0"),
    ],
)
def test_fit_names_what_is_wrong(settings: dict[str, Any], message: str) -> None:
    model = networks.dense((4,), (), 2)
    given: dict[str, Any] = {"x": X, "steps": 1, **settings}
    with pytest.raises(ValueError, match=message):
        training.fit(model, given.pop("x"), **given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"x": X[:0]}, "N > 0"),
        ({"x": NAN}, "x: expected finite"),
        ({"x": torch.rand(8, 5)}, "target: expected shape"),
        ({"x": X, "target": NAN}, "target: expected finite"),
        ({"x": X, "batch_size": 0}, "batch_size: expected"),
    ],
)
def test_reconstruction_error_names_what_is_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training.reconstruction_error(networks.dense((4,), (), 2), **settings)


def test_a_training_that_diverges_says_so() -> None:
    model = networks.linear((4,), 2)
    with pytest.raises(ArithmeticError, match="diverged in step 1: loss .* penalty inf"):
        for _ in training.fit(model, X, steps=3, penalty=lambda m, x, c: c.square().sum() / 0):
            pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: networks.linear((), 2), "shape: expected one size or more"),
        (lambda: networks.linear((4, 0), 2), "shape: expected .* each at least 1"),
        (lambda: networks.linear((4,), 0), "code: expected a whole number from 1, got 0"),
        (lambda: networks.linear((4,), True), "code: expected a whole number"),
        (lambda: networks.dense((4,), (3, 0), 2), "widths: expected a whole number from 1, got 0"),
        (lambda: networks.dense((4,), (), 2, activation="gelu"), "activation: expected one of"),
        (lambda: networks.dense((4,), (), 2, code_activation="x"), "code_activation: expected"),
        (lambda: networks.dense((4,), (), 2, output="tanh"), "output: expected 'sigmoid' or"),
        (lambda: networks.convolutional((1, 8), 2), r"shape: expected \(C, H, W\)"),
        (lambda: networks.convolutional((1, 8, 10), 2), "divisible by 4; got"),
        (lambda: networks.convolutional((1, 8, 8), 0), "code: expected"),
        (lambda: networks.convolutional((1, 8, 8), 2, channels=0), "channels: expected"),
        (
            lambda: networks.Autoencoder(nn.Flatten(), nn.Linear(4, 5), (4,))(X),
            r"decoder: expected examples of shape \(4,\), got \(5,\)",
        ),
        (lambda: networks.dense((4,), (), 2).encode(X[:0]), "N > 0"),
        (lambda: networks.dense((4,), (), 2).encode(X[:, :3]), r"x: expected shape \(N, 4\)"),
    ],
)
def test_networks_name_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_shuffled_indices() -> None:
    batches = device.shuffled(7, 3, device.generator(0))
    first = torch.cat([next(batches), next(batches)])
    assert len(first.unique()) == 6 and first.dtype == torch.int64
    again = device.shuffled(7, 3, device.generator(0))
    assert torch.equal(first[:3], next(again))
    for size in (0, 8):
        with pytest.raises(ValueError, match="batch_size: expected 1 <= batch_size <= 7"):
            device.shuffled(7, size, device.generator(0))


def test_two_processes_share_each_batch() -> None:
    def of(rank: int) -> Any:
        return SimpleNamespace(global_rank=rank, world_size=2)

    whole = device.shuffled(9, 4, device.generator(0))
    parts = [device.shuffled(9, 4, device.generator(0), of(rank)) for rank in (0, 1)]
    for _ in range(5):
        mine, other, batch = next(parts[0]), next(parts[1]), next(whole)
        assert len(mine) == len(other) == 2
        assert sorted([*mine.tolist(), *other.tolist()]) == sorted(batch.tolist())
    with pytest.raises(
        ValueError, match="batch_size: expected a multiple of the 2 processes, got 3"
    ):
        device.shuffled(9, 3, device.generator(0), of(0))
