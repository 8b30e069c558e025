"""The face swap: what warping may change, what two people share, and what a swap leaves alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from course_lib import device
from course_lib.autoencoders import swap as swapping
from course_lib.data import actors

NAN = float("nan")


def noise(n: int = 4, *, seed: int = 0, channels: int = 3, side: int = 64) -> Tensor:
    return torch.rand(n, channels, side, side, generator=device.generator(seed))


def network(seed: int = 0) -> swapping.SwapNetwork:
    return swapping.SwapNetwork(8, 4, generator=device.generator(seed))


def weights(module: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


# --- the network --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_frame_becomes_a_code_and_a_code_a_frame(dtype: torch.dtype) -> None:
    model, x = network().to(dtype), noise().to(dtype)
    code = model.encode(x)
    assert code.shape == (4, 8) and code.dtype == dtype
    for who in ("a", "b"):
        y, again = model(x, who)
        assert y.shape == x.shape and y.dtype == dtype
        y = y.detach()
        assert 0 < float(y.min()) and float(y.max()) < 1
        torch.testing.assert_close(again, code)
        torch.testing.assert_close(y, model.decode(code, who).detach())
    assert not torch.allclose(model.decode(code, "a"), model.decode(code, "b"))


def test_one_generator_one_network() -> None:
    torch.testing.assert_close(weights(network(3)), weights(network(3)), rtol=0, atol=0)
    assert not torch.equal(weights(network(3)), weights(network(4)))


def test_the_encoder_is_shared_and_the_decoders_are_not() -> None:
    model, x = network(), noise()
    model(x, "a")[0].sum().backward()
    assert all(p.grad is None for p in model.decoders["b"].parameters())
    assert all(float(p.grad.abs().sum()) > 0 for p in model.encoder.parameters())  # type: ignore[union-attr]

    before = copy.deepcopy(model)
    torch.optim.SGD(model.parameters(), lr=1e-3).step()  # a step of A's loss alone
    torch.testing.assert_close(
        weights(model.decoders["b"]), weights(before.decoders["b"]), rtol=0, atol=0
    )
    shown, earlier = swapping.swap(model, x, "b"), swapping.swap(before, x, "b")
    assert not torch.equal(shown, earlier)  # B's picture moved ...
    before.encoder = model.encoder
    torch.testing.assert_close(swapping.swap(before, x, "b"), shown)  # ... by the encoder alone


def test_he_weights_keep_a_signal_alive_through_the_decoder() -> None:
    model = swapping.SwapNetwork(generator=device.generator(0))
    spread = model.encode(noise(32)).detach().std(0).mean()
    assert 0.05 < float(spread) < 5


# --- swap and blend -----------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_a_swap_leaves_the_model_as_it_found_it(training: bool) -> None:
    model, x = network().train(training), noise()
    model(x, "a")[0].sum().backward()
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    before = weights(model)
    y = swapping.swap(model, x, "b")
    assert not y.requires_grad and all(m.training == training for m in model.modules())
    torch.testing.assert_close(weights(model), before, rtol=0, atol=0)
    for p, grad in zip(model.parameters(), grads, strict=True):
        assert p.requires_grad
        assert (p.grad is None) == (grad is None)
        if grad is not None:
            torch.testing.assert_close(p.grad, grad, rtol=0, atol=0)
    torch.testing.assert_close(y[1:2], swapping.swap(model, x[1:2], "b"))  # frames do not mix


def test_a_blend_is_the_face_where_the_mask_is_one_and_the_frame_where_it_is_zero() -> None:
    face, frame = noise(seed=1), noise(seed=2)
    mask = torch.zeros(4, 1, 64, 64)
    torch.testing.assert_close(swapping.blend(face, frame, mask), frame, rtol=0, atol=0)
    torch.testing.assert_close(swapping.blend(face, frame, mask + 1), face, rtol=0, atol=0)
    torch.testing.assert_close(swapping.blend(face, frame, mask + 0.25), frame.lerp(face, 0.25))
    mask[:, :, :32] = 1
    half = swapping.blend(face, frame, mask)
    torch.testing.assert_close(half, torch.cat([face[:, :, :32], frame[:, :, 32:]], dim=2))


# --- warp ---------------------------------------------------------------------------------------


def test_no_strength_no_warp() -> None:
    x = noise()
    torch.testing.assert_close(
        swapping.warp(x, device.generator(0), strength=0.0), x, rtol=0, atol=2e-5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_warp_of_one_colour_is_that_colour_and_no_warp_leaves_the_range(
    dtype: torch.dtype,
) -> None:
    flat = torch.full((3, 3, 40, 24), 0.3, dtype=dtype)
    bent = swapping.warp(flat, device.generator(0), strength=9.0)
    assert bent.dtype == dtype
    torch.testing.assert_close(bent, flat)
    x = noise(8)
    bent = swapping.warp(x, device.generator(1), strength=20.0)
    assert float(bent.min()) >= float(x.min()) and float(bent.max()) <= float(x.max())
    assert not torch.allclose(bent, x, atol=0.1)


@pytest.mark.parametrize("strength", [0.5, 2.0, 6.0])
def test_no_pixel_comes_from_further_away_than_the_strength(strength: float) -> None:
    # An image of coordinates says of each pixel where it came from.
    height, width = 40, 56
    rows = torch.arange(height).double()[:, None].expand(height, width)
    columns = torch.arange(width).double()[None, :].expand(height, width)
    x = torch.stack([rows, columns]).expand(6, 2, height, width)
    moved = swapping.warp(x, device.generator(0), strength=strength) - x
    assert float(moved.abs().max()) <= strength + 1e-9
    inside = moved[:, :, 8:-8, 8:-8]
    assert float(inside.abs().max()) > 0.4 * strength  # and it does move
    # It is smooth: neighbours differ by what lies between two knots, spread over their distance.
    steepest = 2 * strength * 4 / (height - 1)
    assert float(inside.diff(dim=2).abs().max()) <= steepest + 1e-9


def test_the_same_seed_is_the_same_warp_and_every_image_has_its_own() -> None:
    x = noise(1).expand(2, -1, -1, -1)
    first, again = (swapping.warp(x, device.generator(5)) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first[0], first[1], atol=1e-2)
    assert not torch.allclose(first, swapping.warp(x, device.generator(6)), atol=1e-2)


# --- training -----------------------------------------------------------------------------------


def test_codes_with_one_mean_and_spread_are_aligned_and_scale_does_not_matter() -> None:
    codes = torch.randn(50, 3, generator=device.generator(0)).double()
    assert float(swapping.misaligned(codes, codes.flip(0))) < 1e-12
    shifted = codes + torch.tensor([2.0, 0.0, 0.0])
    expected = float((4 / codes[:, 0].var()) / 3)
    assert float(swapping.misaligned(codes, shifted)) == pytest.approx(expected, rel=1e-5)
    # (s - 2 s)**2 / (s**2 + 4 s**2) * 2 of centred codes, whatever s is
    centred = codes - codes.mean(0)
    assert float(swapping.misaligned(centred, 2 * centred)) == pytest.approx(0.4, rel=1e-5)
    assert float(swapping.misaligned(100 * codes, 100 * shifted)) == pytest.approx(
        expected, rel=1e-4
    )


def two_people(n: int = 12) -> tuple[Tensor, Tensor]:
    """A disc that moves, red on one person and blue on the other."""
    places = torch.rand(2, n, 2, generator=device.generator(0)) * 24 + 20
    grid = torch.stack(torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij"))
    disc = ((grid - places[..., None, None]).square().sum(2) < 150).float()[:, :, None]
    colour = torch.tensor([[0.9, 0.2, 0.2], [0.2, 0.2, 0.9]])[:, None, :, None, None]
    a, b = disc * colour + (1 - disc) * 0.5
    return a, b


def test_training_lowers_both_losses_and_leaves_the_model_ready() -> None:
    a, b = two_people()
    model = network().eval()
    steps = list(swapping.train_swap(model, a, b, steps=60, lr=2e-2, batch_size=3, seed=1))
    assert [s.step for s in steps] == list(range(1, 61)) and {s.steps for s in steps} == {60}
    for losses in ([s.loss_a for s in steps], [s.loss_b for s in steps]):
        assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert not any(m.training for m in model.modules())
    # A's frames come out in B's colour.
    shown = swapping.swap(model, a, "b").mean((0, 2, 3))
    assert float(shown[2]) > float(shown[0])


def test_the_first_loss_is_the_weighted_squared_error_of_the_untouched_frames() -> None:
    a, b = two_people(4)
    mask = torch.zeros(4, 1, 64, 64)
    mask[:, :, 10:30] = 1
    model = network()
    before = copy.deepcopy(model)
    step = next(
        swapping.train_swap(
            model, a, b, steps=1, masks=(mask, 0 * mask), face_weight=2.0, strength=0.0
        )
    )
    with torch.no_grad():
        wrong_a, wrong_b = ((before(x, who)[0] - x).square() for x, who in ((a, "a"), (b, "b")))
    expected = (wrong_a.mean() + 2 * wrong_a[:, :, 10:30].sum() / wrong_a.numel()).item()
    assert step.loss_a == pytest.approx(expected, rel=1e-4)
    assert step.loss_b == pytest.approx(float(wrong_b.mean()), rel=1e-4)


def test_the_same_seed_is_the_same_training_and_an_early_end_leaves_evaluation_mode() -> None:
    a, b = two_people()
    ends = []
    for seed in (1, 1, 2):
        model = network()
        for step in swapping.train_swap(model, a, b, steps=50, batch_size=4, seed=seed):
            assert model.training
            if step.step == 3:
                break
        del step
        ends.append(model)
    torch.testing.assert_close(weights(ends[0]), weights(ends[1]), rtol=0, atol=0)
    assert not torch.equal(weights(ends[0]), weights(ends[2]))
    running = swapping.train_swap(model, a, b, steps=50, batch_size=4)
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert not model.training


def test_fabric_trains_as_the_plain_loop_does() -> None:
    a, b = two_people()
    models = [network(), network()]
    for model, fabric in zip(models, (None, device.launch(accelerator="cpu")), strict=True):
        for _ in swapping.train_swap(model, a, b, steps=3, batch_size=4, fabric=fabric):
            pass
    torch.testing.assert_close(weights(models[0]), weights(models[1]))


# --- the data and the judge ---------------------------------------------------------------------


def test_two_actors_under_one_seed_differ_in_nothing_but_who_they_are() -> None:
    a, b = (swapping.close_ups(actors.identity(who), 3, 7) for who in (5, 52))
    assert a.images.shape == (3, 3, 64, 64) and a.masks.shape == (3, 1, 64, 64)
    for name in swapping.READ:
        torch.testing.assert_close(a.column(name), b.column(name), rtol=0, atol=0)
    assert not torch.equal(a.images, b.images)
    whole = actors.sample(
        3, identity=actors.identity(5), seed=7, size=96, accessories=actors.Accessories()
    )
    assert float(a.masks.sum()) > 0.98 * float(whole.masks.sum())  # the cut keeps the face


def test_what_an_expression_moved_is_found() -> None:
    """Nothing at rest; with closed eyes the eyes alone, which lie in the upper half of the face."""
    frames = swapping.close_ups(actors.identity(5), 6, 7)
    at_rest = {unit: 0.0 for unit in ("smile", "jaw_drop", "lip_stretch", "brow_raise")}
    at_rest |= {unit: 0.0 for unit in ("brow_lower", "eye_closure", "gaze_x", "gaze_y")}
    still = actors.repaint(frames, size=96, **at_rest)
    blink = actors.repaint(frames, size=96, **{**at_rest, "eye_closure": 1.0})
    assert float(swapping.moved(swapping.cut(still)).sum()) == 0
    shut = swapping.moved(swapping.cut(blink))
    assert bool((shut.flatten(1).sum(1) > 0).all())
    assert set(shut.unique().tolist()) == {0.0, 1.0}
    assert float(shut[:, :, :44].sum()) > 0.98 * float(shut.sum())
    # What was not marked is the same in both, to within the threshold.
    differs = (swapping.cut(still).images - swapping.cut(blink).images).abs()
    assert float(((1 - shut) * differs).max()) <= 15 / 255


def test_a_judge_answers_in_the_units_of_its_training() -> None:
    judge, x = swapping.Judge().eval(), noise()
    assert judge(x).shape == (4, len(swapping.READ) + 1)
    plain = judge(x)
    judge.mean[0], judge.spread[0] = 5.0, 2.0
    torch.testing.assert_close(judge(x)[:, 0], 5 + 2 * plain[:, 0])
    torch.testing.assert_close(judge(x)[:, 1:], plain[:, 1:])


# --- wrong input --------------------------------------------------------------------------------

GOOD = noise()
MASK = torch.zeros(4, 1, 64, 64)


def train(**changed: Any) -> None:
    settings: dict[str, Any] = {"model": network(), "a": GOOD, "b": GOOD, "steps": 1} | changed
    list(
        swapping.train_swap(settings.pop("model"), settings.pop("a"), settings.pop("b"), **settings)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: swapping.SwapNetwork(0), "code: expected a whole number from 1, got 0"),
        (lambda: swapping.SwapNetwork(8, 6), "channels: expected"),
        (lambda: network().encode(GOOD[:, :1]), r"x: .*\(4, 1, 64, 64\)"),
        (lambda: network().encode(GOOD[:0]), r"x: .*\(0, 3, 64, 64\)"),
        (lambda: network().encode(GOOD.to(torch.uint8)), "x: .*uint8"),
        (lambda: network()(noise(side=32), "a"), r"x: .*\(4, 3, 32, 32\)"),
        (lambda: network().decode(torch.zeros(2, 9), "a"), r"code: .*\(N, 8\).*\(2, 9\)"),
        (lambda: network().decode(torch.zeros(2, 8), "c"), "who: .*'c'"),  # type: ignore[arg-type]
        (lambda: swapping.swap(network(), GOOD, "c"), "to: .*'c'"),  # type: ignore[arg-type]
        (lambda: swapping.swap(network(), GOOD * 255, "b"), r"x: expected values in \[0, 1\]"),
        (lambda: swapping.swap(network(), GOOD * NAN, "b"), "x: .*NaN"),
        (lambda: swapping.swap(network(), GOOD[:0], "b"), "x: .*N > 0"),
        (lambda: swapping.blend(GOOD, GOOD[:2], MASK), "face: expected the shape of frame"),
        (lambda: swapping.blend(GOOD, GOOD, MASK[:2]), r"mask: expected shape \(4, 1, 64, 64\)"),
        (lambda: swapping.blend(GOOD, GOOD, MASK - 1), r"mask: expected values in \[0, 1\]"),
        (lambda: swapping.blend(GOOD * NAN, GOOD, MASK), "face: .*NaN"),
        (lambda: swapping.blend(GOOD, GOOD[:, :, 0], MASK), "frame: expected a float tensor"),
        (lambda: swapping.warp(GOOD[0], device.generator(0)), "x: expected a float tensor"),
        (lambda: swapping.warp(GOOD[:0], device.generator(0)), "x: .*N > 0"),
        (lambda: swapping.warp(GOOD * NAN, device.generator(0)), "x: .*NaN"),
        (lambda: swapping.warp(GOOD, device.generator(0), strength=-1), "strength: .*-1"),
        (lambda: swapping.warp(GOOD, device.generator(0), strength=NAN), "strength: .*nan"),
        (lambda: swapping.warp(GOOD, device.generator(0), points=1), "points: .*1"),
        (lambda: swapping.misaligned(torch.ones(1, 3), torch.ones(4, 3)), "a: .*two or more"),
        (lambda: swapping.misaligned(torch.ones(4, 3), torch.ones(4, 2)), r"b: .*\(N, 3\)"),
        (lambda: train(a=GOOD * 2), r"a: expected values in \[0, 1\]"),
        (lambda: train(b=GOOD * NAN), "b: .*NaN"),
        (lambda: train(b=GOOD[:0]), "b: .*N > 0"),
        (lambda: train(masks=(MASK, MASK[:1])), r"masks \(b\): expected shape"),
        (lambda: train(masks=(MASK + 2, MASK)), r"masks \(a\): expected values"),
        (lambda: train(steps=0), "steps: expected a whole number from 1, got 0"),
        (lambda: train(batch_size=0), "batch_size: expected a whole number from 1, got 0"),
        (lambda: train(batch_size=1), "batch_size: expected two frames or more"),
        (lambda: swapping.warp(GOOD[..., :1], device.generator(0)), "x: expected two pixels"),
        (
            lambda: swapping.cut(actors.render(actors.identity(0))),
            r"whole: expected frames of 96 x 96 pixels, got \(1, 3, 64, 64\)",
        ),
        (lambda: train(lr=0.0), "lr, .*0.0"),
        (lambda: train(warmup=2), "warmup.* <= 1"),
        (lambda: train(face_weight=-1.0), "face_weight.*-1.0"),
        (lambda: train(align=-1.0), "align.*-1.0"),
        (lambda: train(strength=NAN), "strength, .*nan"),
        (lambda: swapping.close_ups(actors.identity(0), 0, 1), "n: "),
        (lambda: swapping.close_ups(actors.identity(0), 1, -1), "seed: "),
        (lambda: swapping.Judge()(GOOD[:, :2]), r"x: .*\(4, 2, 64, 64\)"),
    ],
)
def test_wrong_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
