"""Transfer between models, against counts by hand, linear models and closed forms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_lib.attacks import bim, fgsm
from course_lib.attacks.transfer import aligned_directions, boundary_distance, transfer_matrix
from course_lib.classifiers import accuracy

EPS = 0.1


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return fgsm(model, x, y, EPS)


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    model = nn.Linear(weight.shape[1], weight.shape[0]).to(weight.dtype)
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.copy_(torch.zeros(len(weight)) if bias is None else bias)
    return model


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first, last = nn.Linear(12, 16), nn.Linear(16, 3, bias=False)
    with torch.no_grad():
        first.weight.mul_(4)
        first.bias.copy_(-0.5 * first.weight.sum(dim=1))  # grey is undecided: all answers occur
    return nn.Sequential(first, nn.Tanh(), nn.Dropout(0.5), last)


def batch(model: nn.Module, n: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images in [0.2, 0.8] and labels: the model's own answers, but for every seventh."""
    x = 0.2 + 0.6 * torch.rand(n, 12, generator=generator(seed))
    with torch.no_grad():
        y = model.eval()(x).argmax(dim=1)
    y[::7] = (y[::7] + 1) % 3
    return x, y


class Watches(nn.Module):
    """A two-class model that looks at some of the values only, and asks whether their mean is high."""

    def __init__(self, columns: slice) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        score = x[:, self.columns].mean(dim=1) - 0.5
        return torch.stack([-score, score], dim=1)


# ---- the matrix ---------------------------------------------------------------------------------


def test_the_diagonal_is_the_white_box_rate_and_the_rest_is_counted_by_hand() -> None:
    models = [net(0), net(1), net(2)]
    x, y = batch(models[0])
    found = transfer_matrix(models, attack, x, y, batch_size=16)
    assert found.shape == (3, 3) and found.dtype == torch.float64

    def answers(model: nn.Module, images: Tensor) -> list[int]:
        with torch.no_grad():
            return model.eval()(images).argmax(dim=1).tolist()

    labels = y.tolist()
    for i, source in enumerate(models):
        x_adv = attack(source, x, y)
        for j, target in enumerate(models):
            fooled = both = 0
            rows = zip(
                answers(source, x), answers(target, x), answers(target, x_adv), labels, strict=True
            )
            for before_source, before_target, after, label in rows:
                if before_source == label and before_target == label:
                    both += 1
                    fooled += after != label
            assert float(found[i, j]) == pytest.approx(fooled / both, abs=1e-12)
        # FGSM never helps these models, so nothing that was wrong became right.
        clean, attacked = accuracy(source, x, y), accuracy(source, x_adv, y)
        assert float(found[i, i]) == pytest.approx(1 - attacked / clean, abs=1e-9)


@given(seed=st.integers(0, 10**6), size=st.sampled_from([1, 7, 500]))
@settings(max_examples=20)
def test_the_same_model_twice_gives_equal_rows_and_columns(seed: int, size: int) -> None:
    model = net(seed)
    x, y = batch(model, 20, seed)
    found = transfer_matrix([model, net(seed)], attack, x, y, batch_size=size)
    assert torch.equal(found, found[:1, :1].expand(2, 2))


def test_a_linear_model_and_its_copy_scaled_are_one_model() -> None:
    # Scaling two logits by c > 0 changes no answer and no gradient's sign.
    w = torch.randn(2, 12, generator=generator(0), dtype=torch.float64)
    models = [linear(w), linear(3 * w), linear(w / 50)]
    x = 0.2 + 0.6 * torch.rand(60, 12, generator=generator(1), dtype=torch.float64)
    y = (x @ (w[1] - w[0]) > 0).long()
    found = transfer_matrix(models, attack, x, y)
    torch.testing.assert_close(found, found[:1, :1].expand(3, 3), rtol=0, atol=0)
    assert 0 < float(found[0, 0]) < 1


def test_two_classes_transfer_by_the_angle_between_the_weights() -> None:
    # Margins: y (v.x), and FGSM on w moves them by -eps v.sign(w); the count follows from that.
    source = generator(4)
    w, v = torch.randn(2, 12, generator=source, dtype=torch.float64)
    models = [linear(torch.stack([-u, u])) for u in (w, v)]
    x = 0.2 + 0.6 * torch.rand(400, 12, generator=source, dtype=torch.float64)
    y = torch.randint(0, 2, (400,), generator=source)
    found = transfer_matrix(models, attack, x, y)
    side = 2 * y.double() - 1
    both = (side * (x @ w) > 0) & (side * (x @ v) > 0)
    for i, mine in enumerate((w, v)):
        for j, yours in enumerate((w, v)):
            margin = side * (x @ yours) - EPS * (yours @ mine.sign())
            fair = both if i != j else side * (x @ mine) > 0
            expected = float((margin < 0)[fair].double().mean())
            assert float(found[i, j]) == pytest.approx(expected, abs=1e-12)


def test_a_model_that_does_not_look_at_the_changed_pixels_is_never_fooled() -> None:
    left, right = Watches(slice(0, 6)), Watches(slice(6, 12))
    x = 0.2 + 0.6 * torch.rand(200, 12, generator=generator(0))
    x[:, 6:] = x[:, :6]
    y = (x[:, :6].mean(dim=1) > 0.5).long()
    found = transfer_matrix([left, right], attack, x, y)
    assert found[0, 1] == found[1, 0] == 0
    assert found[0, 0] == found[1, 1] > 0.3


def test_images_that_one_of_the_two_misreads_do_not_count() -> None:
    model, blind = net(0), linear(torch.zeros(3, 12), torch.tensor([1.0, 0.0, 0.0]))
    x, y = batch(model)
    assert bool((y == 0).any()) and bool((y != 0).any())
    found = transfer_matrix([model], attack, x, y, targets=[model, blind])
    assert found.shape == (1, 2)
    # It always answers 0: right for the zeros, which are all that count, and no attack changes that.
    assert float(found[0, 1]) == 0.0


def test_targets_need_no_gradient() -> None:
    class Votes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            bright = torch.from_numpy(x.numpy()[:, 0] > 0.5)
            return nn.functional.one_hot(bright.long(), 3)

    model = net(0)
    x, y = batch(model)
    y = (x[:, 0] > 0.5).long()
    assert transfer_matrix([model], attack, x, y, targets=[Votes()]).shape == (1, 1)


def test_the_models_are_left_as_they_were() -> None:
    models = [net(0).train(), net(1).eval()]
    models[0][0].weight.grad = torch.ones(16, 12)  # type: ignore[index, union-attr]
    x, y = batch(net(0))
    before = [{k: v.clone() for k, v in model.state_dict().items()} for model in models]
    state, kept = torch.get_rng_state(), x.clone()
    transfer_matrix(models, attack, x, y)
    assert [m.training for m in models[0].modules()] == [True] * 5
    assert [m.training for m in models[1].modules()] == [False] * 5
    for model, was in zip(models, before, strict=True):
        torch.testing.assert_close(dict(model.state_dict()), was, rtol=0, atol=0)
    assert torch.equal(models[0][0].weight.grad, torch.ones(16, 12))  # type: ignore[index, union-attr, arg-type]
    assert all(p.grad is None for p in models[1].parameters())
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(x, kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_works_in_both_precisions_and_where_gradients_are_off(dtype: torch.dtype) -> None:
    models = [net(0).to(dtype), net(1).to(dtype)]
    x, y = batch(net(0))
    with torch.no_grad():
        found = transfer_matrix(models, lambda m, x, y: bim(m, x, y, EPS, 0.05, 3), x.to(dtype), y)
    assert bool(((found >= 0) & (found <= 1)).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": []}, "models: expected one or more, got none"),
        ({"targets": []}, "targets: expected one or more, got none"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"x": torch.full((4, 12), 1.5)}, r"x: expected values in \[0, 1\]"),
        ({"x": torch.full((4, 12), torch.nan)}, "x: expected finite values"),
        ({"x": torch.zeros(0, 12), "y": torch.zeros(0).long()}, "x: expected a float tensor"),
        ({"y": torch.zeros(3).long()}, "y: expected int64 labels"),
        ({"y": torch.full((4,), 9)}, r"y: expected labels 0\.\.2"),
        ({"attack": lambda m, x, y: x[:1]}, "attack: expected images"),
        ({"attack": lambda m, x, y: x + 1}, "attack: expected images"),
        ({"attack": lambda m, x, y: x * torch.nan}, "attack: expected images"),
        (
            {"targets": [linear(torch.zeros(3, 12), torch.tensor([0.0, 0.0, 9.0]))]},
            "no image right",
        ),
        ({"models": [lambda x: x]}, "model: expected a torch.nn.Module"),
    ],
)
def test_wrong_input_to_the_matrix_is_named(change: dict[str, object], message: str) -> None:
    good = linear(torch.zeros(3, 12), torch.tensor([1.0, 0.0, 0.0]))
    given = {"models": [good], "attack": attack, "x": torch.full((4, 12), 0.5)}
    given |= {"y": torch.zeros(4).long()} | change
    with pytest.raises(ValueError, match=message):
        transfer_matrix(**given)  # type: ignore[arg-type]


# ---- orthogonal directions ----------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), d=st.integers(2, 40), data=st.data())
@settings(max_examples=60)
def test_the_directions_are_orthonormal_and_share_the_gradient_equally(
    seed: int, d: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, d))
    scale = data.draw(st.sampled_from([1e-30, 1e-8, 1.0, 1e8]))
    grad = scale * torch.randn(3, 1, d, generator=generator(seed), dtype=torch.float64)
    r = aligned_directions(grad, k, generator=generator(seed)).flatten(2)
    assert r.shape == (3, k, d)
    torch.testing.assert_close(r @ r.mT, torch.eye(k).double().expand(3, k, k), rtol=0, atol=1e-9)
    g = grad.flatten(1) / grad.flatten(1).norm(dim=1, keepdim=True)
    shares = torch.full((3, k), k**-0.5, dtype=torch.float64)
    torch.testing.assert_close((r @ g[:, :, None])[..., 0], shares, rtol=0, atol=1e-9)


@given(seed=st.integers(0, 10**6), d=st.integers(2, 12), data=st.data())
def test_no_more_orthogonal_directions_can_have_so_large_a_share(
    seed: int, d: int, data: st.DataObject
) -> None:
    # Bessel: the squares of a unit vector's shares of orthonormal directions sum to at most 1, so
    # the smallest of k is at most 1/sqrt(k). Random directions stay below the construction.
    k = data.draw(st.integers(1, d))
    source = generator(seed)
    g = torch.randn(d, generator=source, dtype=torch.float64)
    any_r = torch.linalg.qr(torch.randn(d, k, generator=source, dtype=torch.float64)).Q.T
    ours = aligned_directions(g[None], k)[0] @ g
    assert float((any_r @ g).min()) <= float(ours.min()) + 1e-9


def test_one_direction_is_the_gradient_and_a_full_set_is_a_basis() -> None:
    grad = torch.randn(2, 3, 4, generator=generator(0))
    (one,) = aligned_directions(grad, 1).unbind(dim=1)
    torch.testing.assert_close(one, grad / grad.flatten(1).norm(dim=1)[:, None, None])
    every = aligned_directions(grad, 12).flatten(2)
    torch.testing.assert_close(every.sum(dim=1) / 12**0.5, one.flatten(1), rtol=0, atol=1e-5)


def test_a_linear_loss_rises_by_gamma_along_each_of_floor_eps_g_over_gamma_squared() -> None:
    # The paper's count: k = floor(eps^2 |g|^2 / gamma^2) directions of length eps that all gain gamma.
    g = torch.tensor([[3.0, -4.0, 12.0, 0.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)  # |g| = 13
    eps, gamma = 0.2, 1.0
    k = int((eps * 13 / gamma) ** 2)
    assert k == 6
    gains = eps * aligned_directions(g, k)[0] @ g[0]
    assert bool((gains >= gamma).all())
    assert not bool((eps * aligned_directions(g, k + 1)[0] @ g[0] >= gamma).any())


def test_the_directions_are_drawn_by_the_generator_and_by_nothing_else() -> None:
    grad = torch.randn(2, 9, generator=generator(0))
    state = torch.get_rng_state()
    a, b = (aligned_directions(grad, 4, generator=generator(s)) for s in (1, 1))
    assert torch.equal(a, b) and torch.equal(torch.get_rng_state(), state)
    assert not torch.allclose(a, aligned_directions(grad, 4, generator=generator(2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_directions_keep_the_dtype(dtype: torch.dtype) -> None:
    grad = torch.randn(2, 1, 5, 5, generator=generator(0)).to(dtype)
    found = aligned_directions(grad, 3)
    assert found.dtype == dtype and found.shape == (2, 3, 1, 5, 5)
    torch.testing.assert_close(
        found.flatten(2).float().norm(dim=2), torch.ones(2, 3), rtol=0, atol=0.02
    )


@pytest.mark.parametrize(
    ("grad", "k", "message"),
    [
        (torch.ones(2, 5), 0, "k: expected 1 to 5"),
        (torch.ones(2, 5), 6, "k: expected 1 to 5"),
        (torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 1, "grad: 1 of 2 images have gradient 0"),
        (torch.full((2, 5), torch.inf), 1, "grad: expected finite values"),
        (torch.ones(2, 5).long(), 1, "grad: expected a float tensor"),
        (torch.ones(0, 5), 1, "grad: expected a float tensor"),
    ],
)
def test_wrong_input_to_the_directions_is_named(grad: Tensor, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aligned_directions(grad, k)


# ---- distance to a boundary ---------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), length=st.floats(1e-3, 1e3))
@settings(max_examples=40)
def test_the_distance_on_a_linear_model_is_the_closed_form(seed: int, length: float) -> None:
    source = generator(seed)
    w, direction = torch.randn(2, 6, generator=source, dtype=torch.float64)
    x = torch.rand(20, 6, generator=source, dtype=torch.float64)
    model = linear(torch.stack([-w, w]), torch.tensor([0.25, -0.25]))
    found = boundary_distance(
        model, x, (length * direction).expand(20, 6), reach=4.0, points=40, halvings=30
    )
    score = x @ w - 0.25
    exact = -score / (w @ direction / direction.norm())
    seen = (exact > 1e-6) & (exact < 4 - 1e-6)
    torch.testing.assert_close(found[seen], exact[seen], rtol=0, atol=1e-7)
    outside = (exact < -1e-6) | (exact > 4 + 1e-6)
    assert bool(torch.isinf(found[outside]).all())


class Stripe(nn.Module):
    """Class 1 where the first value is in (0.3, 0.6), class 0 elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        inside = 0.15 - (x[:, 0] - 0.45).abs()
        return torch.stack([-inside, inside], dim=1)


def test_the_first_of_several_changes_is_found() -> None:
    x, along = torch.tensor([[0.1, 0.5], [0.5, 0.5], [0.9, 0.5]]), torch.tensor([[2.0, 0.0]])
    found = boundary_distance(Stripe(), x, along.expand(3, 2), reach=1.0, halvings=20)
    torch.testing.assert_close(found, torch.tensor([0.2, 0.1, torch.inf]), rtol=0, atol=1e-5)


def test_more_halvings_only_refine_and_the_answer_lies_beyond_the_change() -> None:
    x, along = torch.tensor([[0.1, 0.5]]), torch.tensor([[1.0, 0.0]])
    for halvings in (0, 3, 10):
        found = boundary_distance(Stripe(), x, along, reach=1.0, points=20, halvings=halvings)
        assert 0.2 <= float(found) <= 0.2 + 0.05 / 2**halvings + 1e-6
        assert int(Stripe()(x + found * along).argmax()) == 1


def test_a_constant_model_has_no_boundary_and_keeps_its_mode() -> None:
    model = nn.Sequential(nn.Dropout(0.5), linear(torch.zeros(2, 3), torch.tensor([1.0, 0.0])))
    model.train()
    found = boundary_distance(model, torch.rand(4, 3), torch.ones(4, 3), reach=10.0)
    assert bool(torch.isinf(found).all()) and model.training and model[0].training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"direction": torch.ones(2, 4)}, r"direction: expected \(2, 3\), got \(2, 4\)"),
        ({"direction": torch.tensor([[1.0, 0, 0], [0, 0, 0]])}, "direction: 1 of 2 have length 0"),
        ({"direction": torch.full((2, 3), torch.nan)}, "direction: expected finite values"),
        ({"x": torch.full((2, 3), torch.inf)}, "x: expected finite values"),
        ({"x": torch.ones(0, 3)}, "x: expected a float tensor"),
        ({"reach": 0.0}, "reach: expected a finite distance above 0"),
        ({"reach": float("inf")}, "reach: expected a finite distance above 0"),
        ({"reach": float("nan")}, "reach: expected a finite distance above 0"),
        ({"points": 0}, "points, halvings: expected"),
        ({"halvings": -1}, "points, halvings: expected"),
    ],
)
def test_wrong_input_to_the_distance_is_named(change: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"x": torch.ones(2, 3), "direction": torch.ones(2, 3), "reach": 1.0}
    with pytest.raises(ValueError, match=message):
        boundary_distance(linear(torch.ones(2, 3)), **(given | change))  # type: ignore[arg-type]


# ---- the recipe and the real networks -----------------------------------------------------------


def test_the_recipe_goes_on_where_it_was_cut_short_with_the_networks_it_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lightning_fabric import Fabric

    from course_lib import data
    from course_lib.recipes import Progress, transfer_digits

    few = data.mnist("test").take(40, seed=0)
    monkeypatch.setattr(transfer_digits.data, "mnist", lambda split: few)

    def run(state: dict[str, Any] | None = None) -> Iterator[Progress]:
        return transfer_digits.run(Fabric(accelerator="cpu", devices=1), steps=1, state=state)

    *_, whole = run()
    assert whole.module is not None and whole.step == whole.steps == 7
    started = run()
    for _ in range(5):
        progress = next(started)
    assert progress.state is not None
    state = progress.state()
    assert state["done"] == 4  # the fifth is at work
    rest = list(run(state))
    assert [progress.step for progress in rest] == [5, 6, 7, 7]
    assert rest[-1].module is not None and rest[-1].measures == whole.measures
    again = rest[-1].module.state_dict()
    assert all(torch.equal(again[name], value) for name, value in whole.module.state_dict().items())


def test_the_halves_have_no_image_in_common_and_the_checkpoint_keeps_its_card() -> None:
    from course_lib import checkpoints, data
    from course_lib.recipes.transfer_digits import NETWORKS, networks

    train, test = data.mnist("train"), data.mnist("test")
    places = torch.arange(len(train))
    a, b = (set(places[NETWORKS[f"digitnet_half_{h}"][1]].tolist()) for h in "ab")
    assert not a & b and len(a | b) == len(train)
    assert {train.x[i].numpy().tobytes() for i in a}.isdisjoint(
        train.x[i].numpy().tobytes() for i in b
    )
    trained = checkpoints.load("transfer-digits", networks())
    measures = checkpoints.card("transfer-digits").measures
    for name in ("softmax", "mlp"):
        # A tie or two may fall differently on another machine.
        expected = measures[f"test accuracy, {name}"]
        assert accuracy(trained[name], test.x, test.y) == pytest.approx(expected, abs=0.002)
