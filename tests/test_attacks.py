"""The attacks against closed forms, and the promise that they leave no trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_lib.attacks import accuracy_curve, bim, fgsm, pgd
from course_lib.attacks.gradient import input_gradient
from course_lib.classifiers import DigitNet, accuracy

ATTACKS: dict[str, Callable[..., Tensor]] = {
    "fgsm": fgsm,
    "bim": lambda model, x, y, eps, **more: bim(model, x, y, eps, 0.02, 4, **more),
    "pgd": lambda model, x, y, eps, **more: pgd(
        model, x, y, eps, 0.02, 4, random_start=False, **more
    ),
    "pgd-l2": lambda model, x, y, eps, **more: pgd(
        model, x, y, eps, 0.05, 4, norm="l2", random_start=False, **more
    ),
}
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_net(seed: int, activation: nn.Module | None = None) -> nn.Module:
    """A random network on (N, 1, 6, 6) with 5 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), activation or nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
        ).eval()


def batch(n: int = 7, seed: int = 0, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Images away from 0 and 1, so that only what a test means to clip is clipped."""
    source = generator(seed)
    x = 0.3 + 0.4 * torch.rand(n, 1, 6, 6, generator=source)
    return x, torch.randint(0, classes, (n,), generator=source)


class Trained(nn.Module):
    """Batch normalisation, dropout and a frozen layer: all that an attack could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(64, 5)
        self.fails_in = 10**9

    def forward(self, x: Tensor) -> Tensor:
        self.fails_in -= 1
        if self.fails_in < 0:
            raise RuntimeError("out of memory")
        return self.head(self.drop(F.relu(self.norm(self.conv(x)))).flatten(1))


def state(model: nn.Module) -> tuple[object, ...]:
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        torch.get_rng_state(),
    )


def assert_same(before: tuple[object, ...], after: tuple[object, ...]) -> None:
    torch.testing.assert_close(before[0], after[0], rtol=0, atol=0)
    assert before[1:3] == after[1:3]
    for old, new in zip(before[3], after[3], strict=True):  # type: ignore[call-overload]
        assert (old is None) == (new is None)
        assert old is None or torch.equal(old, new)
    assert torch.equal(before[4], after[4])  # type: ignore[arg-type]


# ---- closed forms -------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), n=st.integers(2, 200), eps=st.floats(1e-4, 0.25))
def test_fgsm_is_the_exact_optimum_on_a_logistic_model(seed: int, n: int, eps: float) -> None:
    # With logits (0, w.x + b) the margin falls by eps * |w|_1, and no point of the box does better.
    source = generator(seed)
    w = torch.randn(n, generator=source, dtype=torch.float64)
    b = torch.randn(1, generator=source, dtype=torch.float64)
    model = nn.Linear(n, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.stack([torch.zeros_like(w), w]))
        model.bias.copy_(torch.cat([torch.zeros_like(b), b]))
    x = 0.3 + 0.4 * torch.rand(6, n, generator=source, dtype=torch.float64)
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    side = (2.0 * y - 1).double()  # the margin of the true class is side * (w.x + b)
    x_adv = fgsm(model, x, y, eps)

    def margin(points: Tensor) -> Tensor:
        return side * (points @ w + b)

    expected = margin(x) - eps * w.abs().sum()
    torch.testing.assert_close(margin(x_adv), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        F.cross_entropy(model(x_adv), y, reduction="none"),
        F.softplus(-expected),
        rtol=1e-9,
        atol=1e-9,
    )
    elsewhere = x + eps * (2 * torch.rand(x.shape, generator=source, dtype=x.dtype) - 1)
    assert bool((margin(elsewhere) >= margin(x_adv) - 1e-9).all())


def test_the_margin_loss_rises_by_exactly_eps_times_the_l1_norm() -> None:
    # A loss that is linear in x: then FGSM's gain is eps * |w|_1.
    w = torch.tensor([[1.0, -2.0, 0.0, 0.5]], dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(w)
    x, y = torch.full((3, 4), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    x_adv = fgsm(model, x, y, 0.125, loss=lambda logits, _: logits[:, 0])
    torch.testing.assert_close(model(x_adv) - model(x), torch.full((3, 1), 0.125 * 3.5).double())
    assert torch.equal(x_adv[:, 2], x[:, 2])  # w = 0 there: sign(0) = 0 and the pixel stays


@given(seed=st.integers(0, 10**6), eps=st.floats(0, 1.5), targeted=st.booleans())
def test_bim_with_one_full_step_is_fgsm(seed: int, eps: float, targeted: bool) -> None:
    model, (x, y) = small_net(seed), batch(seed=seed)
    one = bim(model, x, y, eps, eps, 1, targeted=targeted)
    assert torch.equal(one, fgsm(model, x, y, eps, targeted=targeted))


@given(seed=st.integers(0, 10**6))
def test_a_small_step_raises_the_loss_of_a_smooth_network_and_a_targeted_one_lowers_it(
    seed: int,
) -> None:
    model, (x, y) = small_net(seed, nn.Tanh()).double(), batch(seed=seed)
    x = x.double()

    def loss(images: Tensor) -> Tensor:
        return F.cross_entropy(model(images), y, reduction="none")

    grad = input_gradient(model, x, y).flatten(1).abs().sum(dim=1)
    eps = 1e-5
    rise = (loss(fgsm(model, x, y, eps)) - loss(x)).detach()
    fall = (loss(fgsm(model, x, y, eps, targeted=True)) - loss(x)).detach()
    # First order: the loss changes by eps * |grad|_1; the curvature's share is of order eps.
    torch.testing.assert_close(rise, eps * grad, rtol=0.02, atol=1e-9)
    torch.testing.assert_close(fall, -eps * grad, rtol=0.02, atol=1e-9)


def test_bim_finds_what_one_step_misses() -> None:
    # Minimise |x - 0.6| from 0.5 with eps 0.3: one full step overshoots to 0.8, small ones arrive.
    class Valley(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([torch.zeros_like(x), (x - 0.6).abs()], dim=1)

    x, y = torch.full((1, 1), 0.5), torch.tensor([0])
    far = fgsm(Valley(), x, y, 0.3, targeted=True)
    near = bim(Valley(), x, y, 0.3, 0.05, 8, targeted=True)
    # Target 0 wants logit 1 small.
    assert float(far) == pytest.approx(0.8)
    assert abs(float(near) - 0.6) <= 0.05 + 1e-6


# ---- the box ------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    eps=st.floats(0, 0.6),
    alpha=st.floats(0, 0.6),
    steps=st.integers(1, 6),
    targeted=st.booleans(),
    edge=st.booleans(),
)
def test_the_clip_holds_at_every_pixel_after_every_step(
    seed: int, eps: float, alpha: float, steps: int, targeted: bool, edge: bool
) -> None:
    model, (x, y) = small_net(seed), batch(seed=seed)
    if edge:
        x = x.round()  # all black or white
    seen: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    x_adv = bim(model, x, y, eps, alpha, steps, targeted=targeted)
    handle.remove()
    assert len(seen) == steps
    assert torch.equal(seen[0], x)
    previous = x
    for visited in [*seen, x_adv]:
        assert bool((visited >= 0).all()) and bool((visited <= 1).all())
        assert float((visited - x).abs().max()) <= eps + 1e-6
        assert float((visited - previous).abs().max()) <= alpha + 1e-6
        previous = visited


@given(seed=st.integers(0, 10**6), eps=st.floats(0, 1.5))
def test_fgsm_moves_each_pixel_by_eps_or_to_the_wall_or_not_at_all(seed: int, eps: float) -> None:
    model, (x, y) = small_net(seed), batch(seed=seed)
    sign = input_gradient(model, x, y).sign()
    expected = torch.minimum(torch.maximum(x + eps * sign, torch.zeros(())), torch.ones(()))
    assert torch.equal(fgsm(model, x, y, eps), expected)


@each_attack
def test_eps_zero_returns_the_images_exactly(attack: Callable[..., Tensor]) -> None:
    x, y = batch()
    x[0, 0, 0] = torch.tensor([0.0, 1.0, 1e-8, 1 - 1e-7, 0.1, 1 / 3])
    assert torch.equal(attack(small_net(0), x, y, 0.0), x)


@each_attack
def test_one_eps_per_image(attack: Callable[..., Tensor]) -> None:
    model, (x, y) = small_net(0), batch(3)
    sizes = torch.tensor([0.0, 0.01, 0.05])
    together = attack(model, x, y, sizes)
    for i, eps in enumerate(sizes.tolist()):
        torch.testing.assert_close(
            together[i : i + 1], attack(model, x[i : i + 1], y[i : i + 1], eps)
        )


def test_one_eps_per_pixel_moves_only_where_it_may() -> None:
    model, (x, y) = small_net(0), batch(3)
    sticker = torch.zeros_like(x)
    sticker[:, :, 2:4, 1:5] = 1.0
    moves: list[Callable[..., Tensor]] = [fgsm, ATTACKS["bim"], ATTACKS["pgd"]]
    for attack in moves:
        x_adv = attack(model, x, y, 0.05 * sticker)
        assert torch.equal(x_adv[sticker == 0], x[sticker == 0])
        assert not torch.equal(x_adv, x)
        assert float((x_adv - x).abs().max()) <= 0.05 + 1e-6
        everywhere = attack(model, x, y, torch.full_like(x, 0.05))
        assert torch.equal(everywhere, attack(model, x, y, 0.05))


@each_attack
def test_a_batch_is_its_images_one_by_one(attack: Callable[..., Tensor]) -> None:
    model, (x, y) = small_net(3, nn.Tanh()).double(), batch(5)
    x = x.double()
    alone = [attack(model, x[i : i + 1], y[i : i + 1], 0.03) for i in range(len(x))]
    torch.testing.assert_close(attack(model, x, y, 0.03), torch.cat(alone), rtol=0, atol=1e-12)


# ---- no trace -----------------------------------------------------------------------------------


@each_attack
@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_its_inputs_are_left_as_they_were(
    attack: Callable[..., Tensor], training: bool
) -> None:
    torch.manual_seed(0)
    model = Trained().train(training)
    model.drop.train(not training)  # a mixed state is kept too
    model.conv.weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    x, y = batch()
    x.requires_grad_()
    kept, before = x.detach().clone(), state(model)
    x_adv = attack(model, x, y, 0.05)
    assert_same(before, state(model))
    assert x.grad is None and torch.equal(x.detach(), kept)
    assert x_adv.grad_fn is None and not x_adv.requires_grad
    assert x_adv.data_ptr() != x.data_ptr()
    # In evaluation mode an image's attack does not depend on its neighbours.
    torch.testing.assert_close(x_adv[:1], attack(model, x[:1], y[:1], 0.05))


@each_attack
def test_a_model_that_raises_is_left_as_it_was(attack: Callable[..., Tensor]) -> None:
    model = Trained().train()
    x, y = batch()
    before = state(model)
    model.fails_in = 0
    with pytest.raises(RuntimeError, match="out of memory"):
        attack(model, x, y, 0.05)
    assert_same(before, state(model))
    assert torch.is_grad_enabled()


@each_attack
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(
    attack: Callable[..., Tensor], context: Callable[[], object]
) -> None:
    model, (x, y) = small_net(0), batch()
    expected = attack(model, x, y, 0.05)
    with context():  # type: ignore[attr-defined]
        assert torch.equal(attack(model, x * 1, y * 1, 0.05), expected)
    frozen = small_net(0).requires_grad_(False)
    assert torch.equal(attack(frozen, x, y, 0.05), expected)


@each_attack
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_keeps_dtype_shape_and_memory_layout(
    attack: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    model, (x, y) = small_net(0).to(dtype), batch()
    x = x.to(dtype)
    x_adv = attack(model, x, y, 0.0625)
    assert x_adv.dtype == dtype and x_adv.shape == x.shape and x_adv.device == x.device
    assert bool((x_adv >= 0).all()) and bool((x_adv <= 1).all())
    # A sum is rounded to the dtype, so the step may miss eps by half its spacing near 1.
    assert float((x_adv.double() - x.double()).abs().max()) <= 0.0625 + torch.finfo(dtype).eps
    assert not torch.equal(x_adv, x)


# ---- models that give little --------------------------------------------------------------------


class Scaled(nn.Module):
    def __init__(self, model: nn.Module, by: float) -> None:
        super().__init__()
        self.model, self.by = model, by

    def forward(self, x: Tensor) -> Tensor:
        return self.by * self.model(x)


@each_attack
@pytest.mark.parametrize("by", [0.0, 1e3, 1e30])
def test_a_constant_or_saturated_model_gives_no_nan(
    attack: Callable[..., Tensor], by: float
) -> None:
    x, _ = batch()
    model = Scaled(small_net(0), by)
    x_adv = attack(model, x, model(x).argmax(dim=1), 0.1)
    assert bool(torch.isfinite(x_adv).all())
    if by == 0:  # no pixel matters, so no pixel moves
        assert torch.equal(x_adv, x)


def test_saturated_logits_hide_the_gradient_from_cross_entropy_and_not_from_the_margin() -> None:
    x, _ = batch()
    plain = small_net(0)
    loud = Scaled(plain, 1e5)
    y = plain(x).argmax(dim=1)

    def margin(logits: Tensor, labels: Tensor) -> Tensor:
        true = logits.gather(1, labels[:, None])[:, 0]
        others = logits.scatter(1, labels[:, None], float("-inf"))
        return others.amax(dim=1) - true

    assert torch.equal(fgsm(loud, x, y, 0.1), x)
    assert torch.equal(fgsm(loud, x, y, 0.1, loss=margin), fgsm(plain, x, y, 0.1, loss=margin))
    assert not torch.equal(fgsm(plain, x, y, 0.1), x)


def test_the_scale_of_the_loss_does_not_matter() -> None:
    model, (x, y) = small_net(0), batch()
    expected = fgsm(model, x, y, 0.05)
    assert torch.equal(fgsm(model, x, y, 0.05, loss=F.cross_entropy), expected)


# ---- accuracy against eps -----------------------------------------------------------------------


def test_the_curve_starts_at_the_accuracy_and_follows_the_closed_form() -> None:
    # One pixel, margin x - 0.5 for class 1: an image at distance d falls once eps > d.
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model.bias.copy_(torch.tensor([0.5, -0.5]))
    x = torch.tensor([[0.45], [0.35], [0.2], [0.6], [0.8], [0.95]])
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    curve = accuracy_curve(model, fgsm, x, y, [0.0, 0.07, 0.12, 0.17, 0.32, 0.4, 0.5], batch_size=4)
    assert curve == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 1 / 6, 1 / 6, 0])
    assert curve[0] == accuracy(model, x, y)


def test_the_curve_refuses_an_attack_that_leaves_the_range() -> None:
    model, (x, y) = small_net(0), batch()
    with pytest.raises(ValueError, match=r"attack: expected images .* in \[0, 1\] at eps 2"):
        accuracy_curve(model, lambda m, x, y, eps: x + eps, x, y, [0.0, 2.0])
    with pytest.raises(ValueError, match="attack"):
        accuracy_curve(model, lambda m, x, y, eps: x * float("nan"), x, y, [0.1])
    with pytest.raises(ValueError, match="attack"):
        accuracy_curve(model, lambda m, x, y, eps: x[:1], x, y, [0.1])
    with pytest.raises(ValueError, match="epsilons"):
        accuracy_curve(model, fgsm, x, y, [])
    with pytest.raises(ValueError, match="batch_size"):
        accuracy_curve(model, fgsm, x, y, [0.1], batch_size=0)


# ---- wrong input --------------------------------------------------------------------------------


@each_attack
def test_wrong_input_is_named(attack: Callable[..., Tensor]) -> None:
    model, (x, y) = small_net(0), batch()

    def refused(match: str, images: Tensor = x, labels: Tensor = y, eps: object = 0.1) -> None:
        with pytest.raises(ValueError, match=match):
            attack(model, images, labels, eps)

    refused(r"x: expected values in \[0, 1\], got \[.*255\]", images=x * 0 + 255)
    refused("x: expected values in", images=x - 1)
    refused("x: expected finite values", images=x * float("nan"))
    refused("x: expected a float tensor", images=(x * 255).to(torch.uint8))
    refused("x: .* with N > 0", images=x[:0], labels=y[:0])
    refused("y: expected int64", labels=y.float())
    refused("y: expected int64", labels=y.to(torch.int32))
    refused("y: expected int64", labels=F.one_hot(y, 5))
    refused("y: .* one per image", labels=y[:2])
    refused(r"y: expected labels 0..4 for 5 logits, got .*5", labels=y * 0 + 5)
    refused("y: expected labels 0..4", labels=y * 0 - 1)
    refused("eps: expected finite sizes >= 0", eps=-0.1)
    refused("eps: expected finite sizes >= 0", eps=float("nan"))
    refused("eps: expected finite sizes >= 0", eps=float("inf"))
    refused("eps: expected one number, one per image", eps=torch.zeros(2))
    refused("eps: expected one number, one per image", eps=torch.zeros(7, 1))


def test_wrong_steps_and_alpha_are_named() -> None:
    model, (x, y) = small_net(0), batch()
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        bim(model, x, y, 0.1, 0.01, 0)
    with pytest.raises(ValueError, match="alpha: expected finite sizes >= 0"):
        bim(model, x, y, 0.1, -0.01, 3)


def test_a_model_without_a_gradient_is_refused_and_not_called_robust() -> None:
    x, y = batch()

    class Silent(nn.Module):
        def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.how = how
            self.head = nn.Linear(36, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.how(x).flatten(1))

    for how in (Tensor.detach, torch.zeros_like):
        with pytest.raises(ValueError, match="no gradient in x"):
            fgsm(Silent(how), x, y, 0.1)
    with pytest.raises(ValueError, match="gradient of 7 of 7 images is NaN"):
        fgsm(Scaled(small_net(0), float("nan")), x, y, 0.1)
    with pytest.raises(ValueError, match=r"model: expected logits of shape \(7, K\)"):
        fgsm(nn.Flatten(0), x, y, 0.1)
    with pytest.raises(ValueError, match=r"model: expected a torch.nn.Module"):
        fgsm(lambda x: x, x, y, 0.1)  # type: ignore[arg-type]


# ---- a real network -----------------------------------------------------------------------------


def test_a_step_along_the_gradient_fools_the_digit_network_and_noise_of_its_size_does_not() -> None:
    from course_lib import checkpoints, data

    model = checkpoints.load("digit-net", DigitNet())
    test = data.mnist("test")
    x, y = test.x[:200], test.y[:200]
    signs = torch.randint(0, 2, x.shape, generator=generator(0)).float() * 2 - 1

    def noise(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        return (x + eps * signs).clamp(0, 1)

    (stepped,) = accuracy_curve(model, fgsm, x, y, [0.1])
    (small_steps,) = accuracy_curve(
        model, lambda m, x, y, eps: bim(m, x, y, eps, eps / 4, 10), x, y, [0.1]
    )
    (noisy,) = accuracy_curve(model, noise, x, y, [0.1])
    assert small_steps < stepped < noisy - 0.3
