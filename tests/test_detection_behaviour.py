"""Behaviour: correlations of tracks, one-class models, the network that follows a face."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_lib import checkpoints, device, experiments, metrics
from course_lib.data import actors
from course_lib.detection import behaviour, compression, evaluate
from course_lib.experiments import impersonators
from course_lib.recipes import action_units


def walk(*shape: int, seed: int = 0) -> Tensor:
    """Random smooth tracks (..., T, K)."""
    return torch.randn(shape, generator=device.generator(seed), dtype=torch.float64).cumsum(-2)


# Correlations


@pytest.mark.parametrize("k", [2, 3, 9])
def test_features_are_numpys_correlations_in_the_order_of_the_pairs(k: int) -> None:
    tracks = walk(50, k)
    r = np.corrcoef(tracks.numpy().T)
    wanted = [r[i, j] for i, j in combinations(range(k), 2)]
    found = behaviour.correlation_features(tracks)
    assert found.shape == (k * (k - 1) // 2,)
    assert np.allclose(found.numpy(), wanted, atol=1e-12)
    assert behaviour.pairs("abc") == [("a", "b"), ("a", "c"), ("b", "c")]
    assert len(behaviour.pairs()) == 36


@settings(max_examples=25, deadline=None)
@given(
    scale=st.lists(st.floats(0.01, 100), min_size=4, max_size=4),
    offset=st.lists(st.floats(-100, 100), min_size=4, max_size=4),
    seed=st.integers(0, 1000),
)
def test_features_ignore_units_and_the_order_of_time(
    scale: list[float], offset: list[float], seed: int
) -> None:
    tracks = walk(40, 4, seed=seed)
    found = behaviour.correlation_features(tracks)
    other = tracks * torch.tensor(scale) + torch.tensor(offset)
    assert torch.allclose(behaviour.correlation_features(other), found, atol=1e-6)
    shuffled = tracks[torch.randperm(40, generator=device.generator(seed))]
    assert torch.allclose(behaviour.correlation_features(shuffled), found, atol=1e-9)


def test_a_mirrored_track_turns_its_correlations_round_and_no_other() -> None:
    tracks = walk(30, 4)
    found = behaviour.correlation_features(tracks)
    turned = behaviour.correlation_features(tracks * torch.tensor([1, -1, 1, 1]))
    sign = torch.tensor([-1.0 if 1 in pair else 1.0 for pair in combinations(range(4), 2)])
    assert torch.allclose(turned, found * sign, atol=1e-9)


def test_tracks_that_move_together_are_1_and_one_that_does_not_move_is_0() -> None:
    t = torch.linspace(0, 6, 60, dtype=torch.float64)
    tracks = torch.stack([t.sin(), 3 - 2 * t.sin(), 5 * t.sin(), torch.full_like(t, 0.3)], dim=1)
    found = behaviour.correlation_features(tracks)
    assert torch.allclose(found, torch.tensor([-1, 1, 0, -1, 0, 0], dtype=torch.float64))
    assert torch.equal(behaviour.correlation_features(torch.full((5, 3), 0.1)), torch.zeros(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_clips_is_what_each_gives_alone(dtype: torch.dtype) -> None:
    clips = walk(2, 3, 25, 5).to(dtype)
    found = behaviour.correlation_features(clips)
    assert found.shape == (2, 3, 10) and found.dtype == dtype
    for i in range(2):
        for j in range(3):
            alone = behaviour.correlation_features(clips[i, j])
            assert torch.allclose(found[i, j], alone, atol=1e-5)


NAN = torch.full((10, 3), math.nan)


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(10),
        torch.zeros(10, 1),
        torch.zeros(0, 3),
        torch.zeros(2, 3),
        torch.zeros(0, 10, 3),
        torch.zeros(10, 3, dtype=torch.int64),
        NAN,
        torch.full((10, 3), math.inf),
    ],
    ids=["one track", "width 1", "no frame", "two frames", "no clip", "whole", "nan", "inf"],
)
def test_features_refuse_what_are_no_tracks(bad: Tensor) -> None:
    with pytest.raises(ValueError, match="tracks: expected"):
        behaviour.correlation_features(bad)
    with pytest.raises(ValueError, match=r"clips\[1\]: expected"):
        behaviour.windows([torch.zeros(10, 3), bad], 3, 1)


# Windows


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(3, 30), min_size=1, max_size=4),
    length=st.integers(3, 12),
    step=st.integers(1, 15),
)
def test_windows_hold_neighbouring_frames_of_one_clip(
    lengths: list[int], length: int, step: int
) -> None:
    # Every frame is named by its clip and its place.
    clips = [
        torch.stack([torch.full((n,), float(i)), torch.arange(float(n))], dim=1)
        for i, n in enumerate(lengths)
    ]
    if max(lengths) < length:
        with pytest.raises(ValueError, match="longest clip"):
            behaviour.windows(clips, length, step)
        return
    cut, member = behaviour.windows(clips, length, step)
    assert cut.shape == (len(member), length, 2)
    assert torch.equal(cut[:, :, 0], member[:, None].expand(-1, length).float())
    assert bool((cut[:, :, 1].diff(dim=1) == 1).all())
    starts = [(i, float(s)) for i, n in enumerate(lengths) for s in range(0, n - length + 1, step)]
    assert list(zip(member.tolist(), cut[:, 0, 1].tolist(), strict=True)) == starts


@pytest.mark.parametrize(
    ("clips", "length", "step", "message"),
    [
        ([], 5, 1, "clips: expected"),
        ([walk(10, 3), walk(10, 4)], 5, 1, r"clips\[1\]"),
        ([walk(2, 10, 3)], 5, 1, r"clips\[0\]"),
        ([walk(10, 3)], 2, 1, "length, step"),
        ([walk(10, 3)], 5, 0, "length, step"),
        ([walk(10, 3), walk(12, 3)], 13, 1, "longest clip has, which is 12"),
    ],
)
def test_windows_refuse(clips: list[Tensor], length: int, step: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        behaviour.windows(clips, length, step)


# One person


def cloud(n: int, *, seed: int, centre: float = 0.0) -> Tensor:
    return centre + 0.1 * torch.randn(n, 6, generator=device.generator(seed), dtype=torch.float64)


def test_the_score_is_that_of_the_svm_and_grows_with_the_distance() -> None:
    from sklearn.svm import OneClassSVM

    own, held = cloud(80, seed=0), cloud(40, seed=1)
    model = behaviour.OneClass(nu=0.1).fit(own, held)
    svm = OneClassSVM(kernel="rbf", gamma=model.gamma, nu=0.1).fit(own.numpy())
    assert np.allclose(model.score(held).numpy(), -svm.decision_function(held.numpy()))
    away = torch.stack([torch.full((6,), d, dtype=torch.float64) for d in (0.0, 0.1, 0.2, 0.4)])
    assert bool((model.score(away).diff() > 0).all())
    # nu bounds the share of the training clips that lie outside from above.
    assert float((model.score(own) > 1e-9).double().mean()) <= 0.1 + 1e-9


def test_the_threshold_lets_no_more_than_the_share_of_her_validation_clips_raise_an_alarm() -> None:
    own, held = cloud(60, seed=0), cloud(40, seed=1)
    for rate in (0.0, 0.05, 0.25):
        model = behaviour.OneClass(false_positive_rate=rate).fit(own, held)
        assert int((model.score(held) >= model.threshold).sum()) == int(rate * 40)


def test_the_kernel_is_the_tightest_that_still_recognises_her() -> None:
    own = cloud(60, seed=0)
    median = float(torch.pdist(own).median())
    tight = behaviour.OneClass().fit(own, own[:20] * 0.5)  # validation clips in the thick of it
    assert tight.gamma == pytest.approx(1 / (behaviour.WIDTHS[0] * median) ** 2)
    wide = behaviour.OneClass().fit(own, cloud(20, seed=1, centre=0.5))  # she has changed
    assert wide.gamma == pytest.approx(1 / (behaviour.WIDTHS[-1] * median) ** 2)


def test_the_person_herself_is_at_chance_and_another_is_not() -> None:
    hers = impersonators.manner(500)
    r = {
        part: behaviour.correlation_features(
            impersonators.clips(hers, impersonators.seeds(500, part, 40))
        )
        for part in ("learn", "choose", "test", "again")
    }
    model = behaviour.OneClass().fit(r["learn"], r["choose"])
    turned = {n: -getattr(hers, n) for n in ("brow_raise_on_jaw", "pitch_on_jaw", "roll_on_smile")}
    other = impersonators.clips(replace(hers, **turned), impersonators.seeds(500, "played", 40))
    labels = (torch.arange(80) >= 40).long()
    own = model.score(r["test"])

    def against(fake: Tensor) -> tuple[float, metrics.detection.Interval]:
        scores = torch.cat([own, model.score(fake)])
        return metrics.auc(scores, labels), metrics.bootstrap_interval(
            metrics.auc, scores, labels, seed=0, n=200
        )

    _, (low, high) = against(r["again"])
    assert low <= 0.5 <= high
    value, (low, _) = against(behaviour.correlation_features(other))
    assert value > 0.9 and low > 0.8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: behaviour.OneClass(nu=0.0), "nu: expected"),
        (lambda: behaviour.OneClass(nu=1.0), "nu: expected"),
        (lambda: behaviour.OneClass(nu=math.nan), "nu: expected"),
        (lambda: behaviour.OneClass(false_positive_rate=1.0), "false_positive_rate: expected"),
        (lambda: behaviour.OneClass().score(cloud(3, seed=0)), "call fit first"),
        (lambda: behaviour.OneClass().fit(cloud(1, seed=0), cloud(5, seed=1)), "own: expected"),
        (lambda: behaviour.OneClass().fit(cloud(5, seed=0)[0], cloud(5, seed=1)), "own: expected"),
        (lambda: behaviour.OneClass().fit(cloud(5, seed=0).long(), cloud(5, seed=1)), "own: expe"),
        (lambda: behaviour.OneClass().fit(cloud(5, seed=0) * math.nan, cloud(5, seed=1)), "NaN"),
        (lambda: behaviour.OneClass().fit(torch.ones(5, 6), cloud(5, seed=1)), "copies of one"),
        (
            lambda: behaviour.OneClass().fit(cloud(5, seed=0), cloud(5, seed=1)[:, :4]),
            "validation: expected",
        ),
        (lambda: fitted().score(cloud(3, seed=0)[:, :5]), "features: expected"),
        (lambda: fitted().score(cloud(0, seed=0)), "features: expected"),
        (lambda: fitted().score(cloud(3, seed=0) * math.inf), "features: expected finite"),
    ],
)
def test_one_class_refuses(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def fitted() -> behaviour.OneClass:
    return behaviour.OneClass().fit(cloud(20, seed=0), cloud(20, seed=1))


# Following a face


class Mean(nn.Module):
    """A net that gives the mean of each channel, so that its tracks can be known."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def test_track_gives_one_row_per_frame_in_order_and_leaves_the_net_as_it_was() -> None:
    frames = torch.rand(7, 3, 16, 16, generator=device.generator(0))
    net = Mean().train()
    found = behaviour.track(net, frames, batch_size=3)
    assert torch.allclose(found, frames.mean(dim=(2, 3))) and net.training


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(0, 3, 64, 64), "video of one frame or more"),
        (torch.zeros(3, 64, 64), "frames: expected shape"),
        (torch.full((2, 3, 64, 64), math.nan), r"frames: expected values in \[0, 1\]"),
        (torch.full((2, 3, 64, 64), 2.0), r"frames: expected values in \[0, 1\]"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), "floating-point"),
        (torch.zeros(2, 1, 64, 64), "x: expected shape"),
        (torch.zeros(2, 3, 32, 32), "x: expected shape"),
    ],
)
def test_track_refuses_what_is_no_video(frames: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        behaviour.track(behaviour.ActionUnitNet(), frames)


def test_track_refuses_a_net_that_gives_no_rows() -> None:
    with pytest.raises(ValueError, match="net: expected one row"):
        behaviour.track(nn.Flatten(0), torch.zeros(2, 3, 8, 8))


def test_training_lowers_the_loss_and_goes_on_where_it_was_cut() -> None:
    g = device.generator(0)
    x, y = torch.rand(16, 3, 64, 64, generator=g), torch.rand(16, 9, generator=g)
    fabric = device.launch(accelerator="cpu")
    settings_ = {
        "fabric": fabric,
        "steps": 4,
        "batch_size": 8,
        "augment": compression.blur_and_jpeg,
    }

    def new() -> behaviour.ActionUnitNet:
        return behaviour.ActionUnitNet(generator=device.generator(1))

    whole = new()
    state = None
    for step in behaviour.train_tracker(whole, x, y, **settings_):
        if step.step == 2:
            state = {
                key: {k: v.clone() if isinstance(v, Tensor) else v for k, v in value.items()}
                if key == "net"
                else torch.load(_saved(value), weights_only=True)
                for key, value in step.state().items()
            }
    cut = new()
    rest = list(behaviour.train_tracker(cut, x, y, state=state, **settings_))
    assert [step.step for step in rest] == [3, 4]
    for a, b in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not whole.training
    with pytest.raises(ValueError, match="state: expected one of 5 steps"):
        behaviour.train_tracker(cut, x, y, state=state, **{**settings_, "steps": 5})

    plain = list(behaviour.train_tracker(new(), x, y, fabric=fabric, steps=12, batch_size=16))
    assert plain[-1].loss < 0.8 * plain[0].loss


def _saved(value: Any) -> Any:
    import io

    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.full((4, 3, 64, 64), 2.0)}, "x: expected"),
        ({"tracks": torch.zeros(4, 8)}, "tracks: expected"),
        ({"tracks": torch.zeros(3, 9)}, "tracks: expected"),
        ({"tracks": torch.full((4, 9), math.nan)}, "tracks: expected"),
        ({"steps": 0}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"lr": 0.0}, "lr"),
    ],
)
def test_training_refuses(changes: dict[str, Any], message: str) -> None:
    given_ = {"x": torch.zeros(4, 3, 64, 64), "tracks": torch.zeros(4, 9), "steps": 1} | changes
    fabric = device.launch(accelerator="cpu")
    with pytest.raises(ValueError, match=message):
        behaviour.train_tracker(behaviour.ActionUnitNet(), fabric=fabric, **given_)


def test_the_checkpoint_follows_people_that_it_has_not_met() -> None:
    net = checkpoints.load("action-units", behaviour.ActionUnitNet())
    x, truth = action_units.frames(range(3100, 3106), 30, fps=5.0)
    estimate = behaviour.track(net, x)
    r = action_units.agreement(estimate, truth, 30).mean(dim=0)
    assert float(r.mean()) > 0.6
    # As its card says, track by track, on other people; the lips' stretch it hardly sees.
    card = checkpoints.card("action-units").measures
    for name, value in zip(behaviour.NAMES, r.tolist(), strict=True):
        assert value == pytest.approx(card[f"r {name}"], abs=0.25)
    # The null: the shot of another person agrees with nothing.
    other = action_units.agreement(estimate.roll(30, 0), truth, 30).mean(dim=0)
    assert float(other.abs().mean()) < 0.3
    assert not {*action_units.LEARN} & {*action_units.MEASURE, *impersonators.PEOPLE}
    assert not {*impersonators.SEEN} & {*impersonators.UNSEEN}


def test_agreement_is_numpys_correlation_shot_by_shot() -> None:
    a, b = walk(20, 3, seed=0), walk(20, 3, seed=1)
    found = action_units.agreement(a, b, 10)
    for shot in range(2):
        rows = slice(10 * shot, 10 * shot + 10)
        for k in range(3):
            wanted = np.corrcoef(a[rows, k].numpy(), b[rows, k].numpy())[0, 1]
            assert float(found[shot, k]) == pytest.approx(wanted)
    moved = action_units.agreement(3 * a + 7, a, 10)
    assert torch.allclose(moved, torch.ones(2, 3).double())


# The experiment


def test_moves_are_those_of_the_rendered_clip_and_a_short_clip_begins_a_long_one() -> None:
    person = actors.identity(500)
    shot = actors.clip(12, identity=person, seed=5, fps=impersonators.FPS)
    found = impersonators.moves(12, manner=actors.manner_of(person), seed=5)
    truth = torch.stack([shot.column(name) for name in behaviour.NAMES], dim=1)
    assert torch.allclose(found, truth, atol=1e-5)
    longer = impersonators.moves(30, manner=actors.manner_of(person), seed=5)
    assert torch.allclose(longer[:12], found)


def test_a_film_is_the_clip_that_the_renderer_makes_itself() -> None:
    person = actors.identity(501)
    poses, faces = actors.tracks(3, manner=actors.manner_of(person), seed=9, fps=impersonators.FPS)
    made = impersonators.film(person, 9, poses, faces)
    shot = actors.clip(3, identity=person, seed=9, fps=impersonators.FPS)
    assert torch.allclose(made.images, shot.images, atol=1e-4)


def test_seeds_of_parts_never_meet_and_a_lip_sync_changes_the_mouth_alone() -> None:
    taken = [
        seed
        for who in impersonators.PEOPLE
        for part in impersonators.PARTS
        for seed in impersonators.seeds(who, part, 60)
    ]
    assert len(taken) == len(set(taken))
    a, b = walk(2, 10, 9, seed=0), walk(2, 10, 9, seed=1)
    mixed = impersonators.lip_sync(a, b)
    for i, name in enumerate(behaviour.NAMES):
        assert torch.equal(mixed[..., i], (b if name in impersonators.MOUTH else a)[..., i])


def test_study_goes_from_him_to_her() -> None:
    his, hers = impersonators.manner(1), impersonators.manner(2)
    assert impersonators.studied(his, hers, 0.0) == his
    for name in ("brow_raise_on_jaw", "speech_rate", "energy"):
        half = getattr(impersonators.studied(his, hers, 0.5), name)
        assert half == pytest.approx((getattr(his, name) + getattr(hers, name)) / 2)
        assert getattr(impersonators.studied(his, hers, 1.0), name) == pytest.approx(
            getattr(hers, name)
        )


def test_no_trace_tells_who_is_played() -> None:
    """The gate: an image detector and every shortcut at chance, not below; the detector sees a trace."""
    rows = {
        row["trace"]: row for row in experiments.load("impersonators") if row["of"] == "texture"
    }
    assert rows[0]["low"] <= 0.5 <= rows[0]["high"]
    names = [key.removesuffix(", low") for key in rows[0] if key.startswith("shortcut ")]
    names = [name for name in names if f"{name}, high" in rows[0]]
    assert set(names) == {f"shortcut {name}" for name in evaluate.SHORTCUTS}
    for name in names:
        assert rows[0][f"{name}, low"] <= 0.5 <= rows[0][f"{name}, high"], name
    assert rows[1]["low"] > 0.8
