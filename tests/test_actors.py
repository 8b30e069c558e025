"""The rendered actors: what a parameter moves, where, and that every frame can be had again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from course_lib.data import actors
from course_lib.data.actors import (
    Accessories,
    Background,
    Expression,
    Identity,
    Light,
    Manner,
    Pose,
)

#: A bald, beardless face with nothing to its left that is not to its right.
BARE = Identity(hair_style=0, skin_tone=0.2, brow_thickness=0.7, eye_colour=1.0)
STEPS = [0.0, 0.25, 0.5, 0.75, 1.0]


def faces(n: int = 6) -> list[Identity]:
    return [actors.identity(seed) for seed in range(n)]


def scene(seed: int) -> tuple[list[object], ...]:
    """Draw six random arguments of ``render`` for eight frames."""
    rng = np.random.default_rng(seed)
    u = rng.uniform
    return (
        [actors.identity(int(s)) for s in rng.integers(10_000, size=8)],
        [
            Pose(u(-45, 45), u(-30, 30), u(-45, 45), u(-0.2, 0.2), u(-0.2, 0.2), u(0.6, 1.4))
            for _ in range(8)
        ],
        [Expression(*u(0, 1, 6), *u(-1, 1, 2)) for _ in range(8)],
        [Light(u(-90, 90), u(-60, 90), u(0, 1.2), u(0.2, 1), u(-1, 1)) for _ in range(8)],
        [
            Accessories(int(u(0, 3)), int(u(0, 3)), int(u(0, 2)), *u(0, 1, 6).tolist())
            for _ in range(8)
        ],
        [Background(*u(0, 1, 4)) for _ in range(8)],
    )


# --- determinism ----------------------------------------------------------------------------------


def test_same_seed_same_frames() -> None:
    person = actors.identity(3)
    for draw in (actors.sample, actors.clip):
        a, b = (draw(5, identity=person, seed=11, size=48) for _ in range(2))
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.masks, b.masks)
        assert torch.equal(a.parameters, b.parameters)
        assert not torch.equal(a.images, draw(5, identity=person, seed=12, size=48).images)


@pytest.mark.parametrize("size", [32, 57, 128])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_frame_is_the_same_alone_and_in_a_batch(size: int, seed: int) -> None:
    arguments = scene(seed)
    batch = actors.render(*arguments, size=size)  # type: ignore[arg-type]
    for i in range(8):
        alone = actors.render(*(a[i] for a in arguments), size=size)  # type: ignore[arg-type]
        assert torch.equal(alone.images[0], batch.images[i])
        assert torch.equal(alone.masks[0], batch.masks[i])
        assert torch.equal(alone.parameters[0], batch.parameters[i])


def test_longer_draws_begin_with_the_shorter_ones() -> None:
    person = actors.identity(5)
    short = actors.sample(3, identity=person, seed=2, size=32)
    assert torch.equal(short.images, actors.sample(6, identity=person, seed=2, size=32).images[:3])
    one = actors.clip(10, identity=person, seed=2, size=32).parameters
    two = actors.clip(30, identity=person, seed=2, size=32).parameters[:10]
    assert torch.allclose(one, two, atol=1e-5)


# --- shapes and ranges ----------------------------------------------------------------------------


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**31), size=st.sampled_from([32, 64, 96]))
def test_everything_allowed_can_be_painted(seed: int, size: int) -> None:
    frames = actors.render(*scene(seed), size=size)  # type: ignore[arg-type]
    assert frames.images.shape == (8, 3, size, size)
    assert frames.masks.shape == (8, 1, size, size)
    assert frames.parameters.shape == (8, len(frames.names))
    for tensor in (frames.images, frames.masks):
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()
        assert tensor.min() >= 0 and tensor.max() <= 1
    assert len(set(frames.names)) == len(frames.names)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**40))
def test_every_seed_is_a_person_with_a_manner(seed: int) -> None:
    person = actors.identity(seed)
    assert person == actors.identity(seed)
    assert isinstance(actors.manner_of(person), Manner)
    assert isinstance(actors.wears(person, seed), Accessories)
    for name in ("skin_tone", "hair_lightness", "beard", "age"):
        assert 0 <= getattr(person, name) <= 1


def test_repainting_changes_what_it_is_told_and_nothing_else() -> None:
    frames = actors.sample(4, identity=actors.identity(3), seed=2)
    again = actors.repaint(frames)
    torch.testing.assert_close(again.images, frames.images, rtol=0, atol=1e-4)
    smiling = actors.repaint(frames, smile=1.0)
    assert bool((smiling.column("smile") == 1).all())
    others = [i for i, name in enumerate(frames.names) if name != "smile"]
    torch.testing.assert_close(smiling.parameters[:, others], frames.parameters[:, others])
    person = actors.render(actors.identity(3), expressions=Expression(smile=0.7))
    torch.testing.assert_close(
        actors.repaint(person, smile=0.0).images,
        actors.render(actors.identity(3)).images,
        rtol=0,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("size", "changes", "message"),
    [
        (20, {}, "size: expected a whole number in 32..128, got 20"),
        (64, {"grin": 1.0}, "changes: expected one of .*smile.*; got 'grin'"),
        (64, {"smile": float("nan")}, "smile: expected a finite value, got nan"),
    ],
)
def test_repainting_names_what_is_wrong(size: int, changes: dict[str, float], message: str) -> None:
    frames = actors.render(actors.identity(0))
    with pytest.raises(ValueError, match=message):
        actors.repaint(frames, size=size, **changes)


def test_parameters_are_the_ground_truth() -> None:
    poses = [Pose(yaw=-20.0), Pose(yaw=10.0)]
    frames = actors.render(faces(2), poses, Expression(smile=0.5), size=32)
    assert frames.column("yaw").tolist() == [-20.0, 10.0]
    assert frames.column("smile").tolist() == [0.5, 0.5]
    tones = [face.skin_tone for face in faces(2)]
    assert frames.column("skin_tone").tolist() == pytest.approx(tones)
    with pytest.raises(ValueError, match="frown"):
        frames.column("frown")


@pytest.mark.parametrize(
    ("kind", "values", "word"),
    [
        (Expression, {"smile": 1.01}, "smile"),
        (Expression, {"eye_closure": -0.1}, "eye_closure"),
        (Expression, {"jaw_drop": float("nan")}, "jaw_drop"),
        (Pose, {"yaw": 90.0}, "yaw"),
        (Pose, {"scale": float("inf")}, "scale"),
        (Light, {"ambient": 0.0}, "ambient"),
        (Identity, {"skin_tone": "dark"}, "skin_tone"),
        (Identity, {"hair_style": 99}, "hair_style"),
        (Accessories, {"glasses": 1.5}, "glasses"),
        (Manner, {"brow_raise_on_jaw": 2.0}, "brow_raise_on_jaw"),
    ],
)
def test_a_value_out_of_range_is_refused(kind: type, values: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        kind(**values)


def test_wrong_calls_are_refused() -> None:
    person = actors.identity(0)
    for size in (31, 129, 64.0, True):
        with pytest.raises(ValueError, match="size"):
            actors.render(person, size=size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="identities.*empty"):
        actors.render([])
    with pytest.raises(ValueError, match="Pose.*got 2"):
        actors.render(faces(3), [Pose(), Pose()])
    with pytest.raises(ValueError, match="expected Pose"):
        actors.render(person, [Expression()])  # type: ignore[list-item]
    for draw in (actors.sample, actors.clip):
        with pytest.raises(ValueError, match="n:"):
            draw(0, identity=person, seed=0)
        with pytest.raises(ValueError, match="seed"):
            draw(1, identity=person, seed=-1)
    with pytest.raises(ValueError, match="fps"):
        actors.clip(2, identity=person, seed=0, fps=0)
    with pytest.raises(ValueError, match="seed"):
        actors.identity(-1)


# --- what each action unit does -------------------------------------------------------------------


def changed(person: Identity, expression: Expression) -> tuple[torch.Tensor, actors.Frames]:
    """Return where a frontal face changes (H, W) when the expression leaves rest, and both frames."""
    frames = actors.render(person, expressions=[Expression(), expression], size=128)
    return (frames.images[1] - frames.images[0]).abs().amax(0), frames


@pytest.mark.parametrize(
    ("unit", "above", "below"),
    [
        # In halves of the image from its middle, down: the band of rows the unit may touch.
        ("brow_raise", -0.62, 0.20),
        ("brow_lower", -0.62, 0.20),
        ("eye_closure", -0.30, 0.20),
        ("smile", -0.30, 0.75),
        ("jaw_drop", -0.1, 1.0),
        ("lip_stretch", 0.15, 0.70),
    ],
)
def test_a_unit_moves_its_own_part_of_the_face(unit: str, above: float, below: float) -> None:
    rows = (torch.arange(128) * 2 + 1) / 128 - 1
    for person in faces(5):
        person = dataclasses.replace(person, beard=0.0, moustache=0.0)
        difference, _ = changed(person, Expression(**{unit: 1.0}))
        inside = (rows > above) & (rows < below)
        assert difference[inside].max() > 0.05
        assert difference[~inside].max() == 0


@pytest.mark.parametrize(
    "unit", ["brow_raise", "brow_lower", "eye_closure", "smile", "lip_stretch"]
)
def test_a_unit_leaves_hair_and_background_alone(unit: str) -> None:
    for person in faces(5):
        difference, frames = changed(person, Expression(**{unit: 1.0}))
        assert difference[frames.masks.amax((0, 1)) == 0].max() == 0


def test_closed_eyes_hide_the_iris() -> None:
    def blue(image: torch.Tensor) -> torch.Tensor:
        return (image[2] - image[0]).clamp(min=0)[50:75].sum()  # bluer than red: only the irises

    frames = actors.render(
        BARE,
        expressions=[Expression(eye_closure=c) for c in STEPS],
        lights=Light(warmth=0.0),
        backgrounds=Background(saturation=0.0),
        size=128,
    )
    seen = torch.stack([blue(image) for image in frames.images])
    assert seen[0] > 5
    assert (seen.diff() <= 1e-4).all()
    assert seen[-1] < 0.01 * seen[0]


def test_a_dropping_jaw_lowers_the_chin_and_opens_the_mouth() -> None:
    frames = actors.render(BARE, expressions=[Expression(jaw_drop=c) for c in STEPS], size=128)
    length = frames.masks[:, 0, :, 63].sum(1)
    assert (length.diff() > 0.5).all()
    dark = (0.4 - frames.images.amax(1)).clamp(min=0)[:, 80:110, 45:83].sum((1, 2))
    # The line between the lips opens first; from then on the cave behind them grows.
    assert (dark[1:].diff() > 0).all() and dark[-1] > dark[0] + 1


def brows(image: torch.Tensor) -> torch.Tensor:
    """Return the darkness of the upper face, where only the brows are dark."""
    return (0.45 - image.mean(0)).clamp(min=0)


def centroid(weight: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(weight.shape[0], dtype=torch.float32)
    return (weight.sum(1) * rows).sum() / weight.sum()


def test_brows_rise_and_fall() -> None:
    def middle(expression: Expression) -> float:
        closed = dataclasses.replace(expression, eye_closure=1.0)
        image = actors.render(BARE, expressions=closed, size=128).images[0]
        return float(centroid(brows(image)[40:60, 30:98]))

    raised = [middle(Expression(brow_raise=c)) for c in STEPS]
    lowered = [middle(Expression(brow_lower=c)) for c in STEPS[:3]]
    assert all(np.diff(raised) < -0.3)
    assert all(np.diff(lowered) > 0.1)


def test_a_smile_lifts_the_corners_and_a_stretch_widens_them() -> None:
    frames = actors.render(
        BARE,
        expressions=[Expression(), Expression(smile=1.0), Expression(lip_stretch=1.0)],
        size=128,
    )
    white = (frames.images.amin(1) > 0.72)[:, 80:100]  # teeth
    assert not white[0].any() and white[1].any() and white[2].any()
    columns = torch.arange(128.0)

    def bend(mask: torch.Tensor) -> float:
        rows = torch.arange(len(mask), dtype=torch.float32)[:, None]
        height = (rows * mask).sum(0) / mask.sum(0).clamp(min=1)
        there = mask.any(0)
        return float(np.polyfit(columns[there] - 63.5, height[there], 2)[0])

    assert bend(white[1]) < -0.005 < bend(white[2])


def test_the_gaze_turns_the_irises() -> None:
    looks = [Expression(gaze_x=g) for g in (-1.0, 0.0, 1.0)]
    frames = actors.render(BARE, expressions=looks, size=128)
    blue = (frames.images[:, 2] - frames.images[:, 0]).clamp(min=0)[:, 55:72, 40:88]
    across = (blue.sum(1) * torch.arange(48.0)).sum(1) / blue.sum((1, 2))
    assert (across.diff() > 1).all()


# --- pose and light -------------------------------------------------------------------------------


def test_a_mirrored_scene_is_the_mirrored_picture() -> None:
    for person in faces(6):
        mirrored = dataclasses.replace(person, part=-person.part)
        pose = Pose(yaw=20.0, pitch=5.0, roll=8.0, dx=0.03)
        twin = Pose(yaw=-20.0, pitch=5.0, roll=-8.0, dx=-0.03)
        dress = actors.wears(person)
        a = actors.render(person, pose, Expression(gaze_x=0.5), Light(azimuth=40.0), dress)
        b = actors.render(mirrored, twin, Expression(gaze_x=-0.5), Light(azimuth=-40.0), dress)
        away = (a.images - b.images.flip(-1)).abs()
        assert away.max() < 0.02 and away.mean() < 1e-4
        assert (a.masks - b.masks.flip(-1)).abs().max() < 1e-3


def test_light_falls_from_where_the_lamp_is() -> None:
    lights = [Light(azimuth=-70.0), Light(azimuth=70.0)]
    for person in faces(6):
        frames = actors.render(person, lights=lights)
        mask = frames.masks[:, 0]
        grey = frames.images.mean(1) * mask

        def half(
            i: int, columns: slice, grey: torch.Tensor = grey, m: torch.Tensor = mask
        ) -> float:
            return float(grey[i, :, columns].sum() / m[i, :, columns].sum())

        left, right = slice(0, 32), slice(32, 64)
        assert half(0, left) > half(1, left) + 0.02
        assert half(1, right) > half(0, right) + 0.02


def test_more_light_is_brighter_and_warm_light_is_redder() -> None:
    lights = [Light(strength=s) for s in (0.2, 0.6, 1.0)]
    means = actors.render(BARE, lights=lights).images.mean((1, 2, 3))
    assert (means.diff() > 0).all()
    cold, warm = actors.render(BARE, lights=[Light(warmth=-1.0), Light(warmth=1.0)]).images
    assert (warm[0] - warm[2]).mean() > (cold[0] - cold[2]).mean() + 0.02


def test_turning_moves_the_nose_further_than_the_outline() -> None:
    frames = actors.render(BARE, [Pose(yaw=y) for y in (-25.0, 0.0, 25.0)], size=128)
    columns = torch.arange(128.0)
    mask = frames.masks[:, 0]
    outline = (mask.sum(1) * columns).sum(1) / mask.sum((1, 2))
    blue = (frames.images[:, 2] - frames.images[:, 0]).clamp(min=0)[:, 50:75, 35:93]
    eyes = (blue.sum(1) * columns[35:93]).sum(1) / blue.sum((1, 2))
    assert (eyes.diff() > 3).all()
    assert (outline.diff().abs() < eyes.diff() / 2).all()
    nods = actors.render(BARE, [Pose(pitch=p) for p in (-15.0, 0.0, 15.0)], size=128)
    blue = (nods.images[:, 2] - nods.images[:, 0]).clamp(min=0)[:, 40:90, 40:88]
    height = (blue.sum(2) * torch.arange(50.0)).sum(1) / blue.sum((1, 2))
    assert (height.diff() < -3).all()


def test_shift_and_scale_move_the_mask_by_as_much() -> None:
    poses = [Pose(), Pose(dx=0.125, dy=-0.0625), Pose(scale=0.8)]
    masks = actors.render(BARE, poses, size=64).masks[:, 0]
    assert (masks[1] - masks[0].roll((-4, 8), (0, 1))).abs().max() < 2e-3
    assert float(masks[2].sum() / masks[0].sum()) == pytest.approx(0.64, rel=0.01)


# --- masks ----------------------------------------------------------------------------------------


def test_the_mask_is_one_face_inside_the_head() -> None:
    for person in faces(12):
        mask = actors.render(person, size=64).masks[0, 0]
        assert 0.08 < mask.mean() < 0.35
        assert mask[:, :8].max() == mask[:, -8:].max() == mask[:6].max() == mask[-8:].max() == 0
        assert mask[33:40, 29:35].min() == 1  # the nose
        # From the nose down each row of the face is one run of pixels: no holes.
        for row in mask[33:] > 0.5:
            assert int((row[1:] & ~row[:-1]).sum()) <= 1


def test_skin_colour_shows_inside_the_mask_only() -> None:
    pair = [dataclasses.replace(BARE, freckles=f) for f in (0.0, 1.0)]
    frames = actors.render(pair, size=96)
    difference = (frames.images[0] - frames.images[1]).abs().amax(0)
    assert difference.max() > 0.02
    assert difference[frames.masks[0, 0] == 0].max() == 0


def test_what_covers_the_face_leaves_the_mask() -> None:
    hats = [Accessories(hat=h) for h in (0, 1, 2)]
    bare, beanie, scarf = actors.render(BARE, accessories=hats).masks.sum((1, 2, 3))
    assert beanie < bare and scarf < bare
    glasses = actors.render(BARE, accessories=Accessories(glasses=1)).masks.sum()
    assert glasses == bare


# --- identities -----------------------------------------------------------------------------------


def test_two_people_differ_more_than_two_frames_of_one() -> None:
    """In the mean colour of face and hair, under one light, Fisher's ratio is large."""
    people = faces(8)
    means = []
    for person in people:
        looks = actors.sample(6, identity=person, seed=1, size=32)
        poses = [Pose(yaw=float(y)) for y in looks.column("yaw")]
        smiles = [Expression(smile=float(s)) for s in looks.column("smile")]
        frames = actors.render(person, poses, smiles, size=32)
        face = (frames.images * frames.masks).sum((2, 3)) / frames.masks.sum((2, 3))
        top = frames.images[:, :, 5:12, 13:19].mean((2, 3))
        means.append(torch.cat([face, top], dim=1))
    colours = torch.stack(means)
    within = colours.var(1).sum(1).mean()
    between = colours.mean(1).var(0).sum()
    assert between > 10 * within


def test_people_are_varied() -> None:
    crowd = [actors.identity(seed) for seed in range(300)]
    assert {p.hair_style for p in crowd} == set(range(len(actors.HAIR_STYLES)))
    tones = np.histogram([p.skin_tone for p in crowd], bins=4, range=(0, 1))[0]
    assert tones.min() > 40
    assert 0.1 < np.mean([p.beard > 0 for p in crowd]) < 0.4


@pytest.mark.parametrize("seed", [0, 1])
def test_a_larger_picture_is_the_same_picture(seed: int) -> None:
    person = [actors.identity(s) for s in range(seed * 8, seed * 8 + 8)]
    large = actors.render(person, expressions=Expression(smile=0.5), size=128)
    small = actors.render(person, expressions=Expression(smile=0.5), size=64)
    pooled = torch.nn.functional.avg_pool2d(large.images, 2)
    away = (pooled - small.images).abs()
    assert away.mean() < 0.006
    assert away.amax(1).flatten(1).quantile(0.99, dim=1).max() < 0.12
    pooled_mask = torch.nn.functional.avg_pool2d(large.masks, 2)
    assert (pooled_mask - small.masks).abs().mean() < 0.003


# --- movement -------------------------------------------------------------------------------------


def correlation(frames: actors.Frames, a: str, b: str) -> float:
    return float(torch.corrcoef(torch.stack([frames.column(a), frames.column(b)]))[0, 1])


def test_clips_are_smooth() -> None:
    frames = actors.clip(100, identity=actors.identity(1), seed=4, size=32)
    for name, most in (
        ("yaw", 2.5),
        ("pitch", 4.0),
        ("roll", 2.5),
        ("smile", 0.15),
        ("jaw_drop", 0.5),
    ):
        assert frames.column(name).diff().abs().max() < most, name
    steps = (frames.images.diff(dim=0)).abs().mean((1, 2, 3))
    cut = (frames.images[50:] - frames.images[:50]).abs().mean((1, 2, 3))
    assert steps.mean() < 0.5 * cut.mean()


def test_people_blink_at_their_rate() -> None:
    for rate in (0.1, 0.6):
        _, looks = actors.tracks(4000, manner=Manner(blink_rate=rate), seed=0, fps=20)
        shut = np.array([look.eye_closure > 0.8 for look in looks])
        blinks = int((shut[1:] & ~shut[:-1]).sum())
        # A blink cannot follow within 0.4 s, so the mean interval is 1 / rate + 0.4.
        assert blinks / 200 == pytest.approx(1 / (1 / rate + 0.4), rel=0.4)


@pytest.mark.parametrize(
    ("coupling", "a", "b"),
    [
        ("brow_raise_on_jaw", "brow_raise", "jaw_drop"),
        ("lip_stretch_on_jaw", "lip_stretch", "jaw_drop"),
        ("pitch_on_jaw", "pitch", "jaw_drop"),
        ("brow_lower_on_smile", "brow_lower", "smile"),
        ("roll_on_smile", "roll", "smile"),
        ("yaw_on_brow", "yaw", "brow_raise"),
    ],
)
def test_a_coupling_shows_as_a_correlation(coupling: str, a: str, b: str) -> None:
    def measured(strength: float) -> float:
        """Return the mean correlation over four shots: two slow tracks agree by chance in one."""
        found = []
        for seed in range(4):
            poses, looks = actors.tracks(
                500, manner=Manner(**{coupling: strength}), seed=seed, fps=5
            )
            both = [{**vars(p), **vars(e)} for p, e in zip(poses, looks, strict=True)]
            found.append(np.corrcoef([x[a] for x in both], [x[b] for x in both])[0, 1])
        return float(np.mean(found))

    assert measured(0.9) > 0.35
    assert measured(-0.9) < -0.35
    assert abs(measured(0.0)) < 0.25


def test_a_squint_goes_with_the_smile_between_blinks() -> None:
    for strength in (0.9, -0.9):
        manner = Manner(eye_closure_on_smile=strength)
        _, looks = actors.tracks(1500, manner=manner, seed=5)
        between = [(e.eye_closure, e.smile) for e in looks if e.eye_closure < 0.4]
        assert np.corrcoef(np.array(between).T)[0, 1] * np.sign(strength) > 0.35


def test_an_impersonator_has_the_face_of_one_and_the_manner_of_another() -> None:
    one, other = actors.identity(1), actors.identity(2)
    theirs = actors.manner_of(other)
    fake = actors.clip(40, identity=one, seed=6, size=32, manner=theirs)
    real = actors.clip(40, identity=other, seed=6, size=32)
    moves = [fake.names.index(name) for name in ("yaw", "smile", "jaw_drop", "brow_raise")]
    assert torch.equal(fake.parameters[:, moves], real.parameters[:, moves])
    assert fake.column("skin_tone").unique().tolist() == pytest.approx([one.skin_tone])
    assert correlation(fake, "brow_raise", "jaw_drop") * theirs.brow_raise_on_jaw > 0
