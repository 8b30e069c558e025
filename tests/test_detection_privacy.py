"""De-identification: what each treatment does, what k-same promises, and the two instruments."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_lib import data, device
from course_lib.detection import behaviour, privacy
from course_lib.recipes import action_units, deidentifier

BAD = {
    "one image": torch.zeros(3, 64, 64),
    "empty": torch.zeros(0, 3, 64, 64),
    "two channels": torch.zeros(2, 2, 64, 64),
    "bytes": torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
    "above": torch.full((2, 3, 64, 64), 1.5),
    "nan": torch.full((2, 3, 64, 64), math.nan),
}


def noise(n: int, *, seed: int = 0, size: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, 3, size, size, generator=device.generator(seed)).to(dtype)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize(
    "call",
    [
        lambda x: privacy.cover(x, 0.2, 0.4),
        lambda x: privacy.pixelate(x, 2),
        lambda x: privacy.k_same(x, 1, generator=device.generator(0)),
        lambda x: privacy.fisherfaces(x, torch.zeros(len(x), dtype=torch.int64)),
    ],
    ids=["cover", "pixelate", "k_same", "fisherfaces"],
)
def test_what_is_no_image_is_refused(call: object, bad: Tensor) -> None:
    with pytest.raises(ValueError, match="x: expected"):
        call(bad)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: privacy.cover(noise(1), 0.5, 0.5), "top, bottom"),
        (lambda: privacy.cover(noise(1), -0.1, 0.5), "top, bottom"),
        (lambda: privacy.cover(noise(1), 0.5, math.nan), "top, bottom"),
        (lambda: privacy.cover(noise(1), 0.5, 0.501), "top, bottom"),
        (lambda: privacy.pixelate(noise(1), 3), "block"),
        (lambda: privacy.pixelate(noise(1), 0), "block"),
        (lambda: privacy.k_same(noise(3), 4, generator=device.generator(0)), "k"),
        (lambda: privacy.k_same(noise(3), 0, generator=device.generator(0)), "k"),
        (lambda: privacy.Fisherfaces(0), "channels, size, dimensions"),
        (lambda: privacy.Fisherfaces(1, size=2, dimensions=5), "channels, size, dimensions"),
        (lambda: privacy.Fisherfaces()(noise(2, size=8)), "x"),
        (lambda: privacy.Fisherfaces(1)(noise(2)), "x"),
        (lambda: fit(y=torch.zeros(12)), "y"),
        (lambda: fit(y=torch.zeros(12, dtype=torch.int64)), "y"),
        (lambda: fit(y=torch.arange(12)), "y"),
        (lambda: fit(components=12), "components"),
        (lambda: fit(dimensions=3), "dimensions"),
        (lambda: fit(shrinkage=0.0), "shrinkage"),
        (lambda: privacy.identify(torch.zeros(2, 3), torch.zeros(2, 4), torch.arange(2)), "faces, g"),
        (lambda: privacy.identify(torch.zeros(2, 3), torch.zeros(2, 3), torch.arange(3)), "y"),
        (lambda: privacy.identify(torch.full((2, 3), math.nan), torch.zeros(2, 3), torch.arange(2)), "f"),
        (lambda: privacy.kept(torch.zeros(2, 3), torch.zeros(3, 3)), "readings"),
        (lambda: privacy.kept(torch.zeros(1, 3), torch.rand(1, 3)), "readings"),
        (lambda: privacy.kept(torch.full((3, 2), math.nan), torch.rand(3, 2)), "readings"),
        (lambda: privacy.kept(torch.rand(3, 2), torch.ones(3, 2)), "known"),
        (lambda: deidentifier.treat("paint", noise(2), n=1), "name"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(call: object, argument: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument}"):
        call()  # type: ignore[operator]


def fit(**changes: object) -> privacy.Fisherfaces:
    given = {
        "x": noise(12),
        "y": torch.arange(12) // 4,
        "size": 8,
        "components": 8,
        "dimensions": 2,
    }
    return privacy.fisherfaces(**(given | changes))  # type: ignore[arg-type]


def test_a_bar_is_black_and_leaves_the_rest() -> None:
    x = noise(2) * 0.5 + 0.5
    covered = privacy.cover(x, 0.25, 0.5)
    assert bool((covered[:, :, 4:8] == 0).all())
    assert torch.equal(covered[:, :, :4], x[:, :, :4]) and torch.equal(
        covered[:, :, 8:], x[:, :, 8:]
    )
    assert float(x.min()) >= 0.5  # the input was left alone


@given(block=st.sampled_from([1, 2, 4, 8, 16]), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_pixelating_keeps_the_means_and_is_done_once(block: int, seed: int) -> None:
    x = noise(2, seed=seed, dtype=torch.float64)
    once = privacy.pixelate(x, block)
    assert torch.allclose(once.mean(dim=(2, 3)), x.mean(dim=(2, 3)))
    assert torch.allclose(privacy.pixelate(once, block), once)
    assert len(once[0, 0].unique()) <= (16 // block) ** 2
    by_hand = x[:, :, :block, :block].mean(dim=(2, 3))
    assert torch.allclose(once[:, :, block - 1, block - 1], by_hand)


@given(n=st.integers(1, 23), k=st.integers(1, 8), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_k_same_is_k_anonymous_whoever_asks(n: int, k: int, seed: int) -> None:
    k = min(k, n)
    x = noise(n, seed=seed, size=4)
    faces, member = privacy.k_same(x, k, generator=device.generator(seed))
    sizes = torch.bincount(member)
    assert int(sizes.min()) >= k and (int(sizes.max()) < 2 * k)
    for i in range(len(sizes)):
        assert torch.allclose(
            faces[member == i], x[member == i].mean(dim=0).expand_as(x[member == i])
        )
    # An attacker with the original photographs and any rule that looks at the image alone: the rule
    # gives one name per set, so at most one of a set is named rightly.
    named = torch.cdist(faces.flatten(1), x.flatten(1)).argmin(dim=1)
    assert float((named == torch.arange(n)).double().mean()) <= 1 / k + 1e-6
    assert float(faces.mean()) == pytest.approx(
        float(x.mean()), abs=1e-5
    )  # nobody is lost or added


def test_k_same_takes_the_nearest() -> None:
    levels = torch.tensor([0.0, 0.01, 0.02, 0.5, 0.51, 0.52, 0.9, 0.91, 0.92])
    x = levels.reshape(9, 1, 1, 1).expand(9, 1, 4, 4)
    for seed in range(5):
        _, member = privacy.k_same(x, 3, generator=device.generator(seed))
        assert all(len(set(member[i : i + 3].tolist())) == 1 for i in (0, 3, 6))


def test_fisherfaces_agree_with_an_independent_discriminant_analysis() -> None:
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    g = device.generator(0)
    centres = torch.rand(6, 3, 8, 8, generator=g)
    y = torch.arange(6).repeat_interleave(10)
    x = (centres[y] + 0.2 * torch.randn(60, 3, 8, 8, generator=g)).clamp(0, 1).double()
    ours = privacy.fisherfaces(x, y, size=8, components=20, dimensions=5, shrinkage=1e-9)
    z = PCA(20, svd_solver="full").fit_transform(x.flatten(1).numpy())
    lda = LinearDiscriminantAnalysis(solver="eigen", n_components=5).fit(z, y.numpy())
    theirs = lda.transform(z)
    mine = ((x.flatten(1) - ours.mean) @ ours.projection).numpy()
    # The same space, whatever its basis: all canonical correlations are 1.
    qa, _ = np.linalg.qr(mine - mine.mean(axis=0))
    qb, _ = np.linalg.qr(theirs - theirs.mean(axis=0))
    assert np.linalg.svd(qa.T @ qb, compute_uv=False) == pytest.approx(np.ones(5), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_recogniser_gives_unit_vectors_and_ignores_light_that_varies(dtype: torch.dtype) -> None:
    """Two people differ in one pixel; a far stronger change of all pixels says nothing."""
    g = device.generator(3)
    n = 40
    light = 0.5 * torch.rand(n, 1, 1, 1, generator=g, dtype=dtype)
    x = 0.2 + light.expand(n, 1, 4, 4).clone()
    y = torch.arange(n) % 2
    x[:, :, 1, 1] += 0.05 * y[:, None].to(dtype)
    x += 0.001 * torch.rand(n, 1, 4, 4, generator=g, dtype=dtype)
    model = privacy.fisherfaces(x, y, size=4, components=8, dimensions=1, shrinkage=1e-4)
    codes = model(x)
    assert codes.dtype == dtype
    assert torch.allclose(codes.norm(dim=1), torch.ones(n, dtype=dtype))
    assert torch.equal(privacy.identify(codes[20:], codes[:20], y[:20]), y[20:])


def test_treated_images_with_few_different_ones_still_give_finite_vectors() -> None:
    x = noise(4).repeat_interleave(3, dim=0)
    model = privacy.fisherfaces(x, torch.arange(12) // 3, size=8, components=11, dimensions=3)
    assert bool(model(noise(3, seed=1)).isfinite().all())


def test_kept_is_the_correlation() -> None:
    g = device.generator(0)
    known = torch.rand(50, 3, generator=g)
    readings = known + 0.3 * torch.rand(50, 3, generator=g)
    expected = [np.corrcoef(readings[:, j].numpy(), known[:, j].numpy())[0, 1] for j in range(3)]
    assert privacy.kept(readings, known).tolist() == pytest.approx(expected, abs=1e-6)
    assert privacy.kept(-5 * known + 7, known).tolist() == pytest.approx([-1.0] * 3)
    assert privacy.kept(torch.full_like(known, 0.3), known).tolist() == [0.0] * 3


def test_nobody_is_in_two_of_the_sets_of_people() -> None:
    """Nor has the network that reads faces met any of them."""
    sets = [
        {deidentifier.INVENTED},
        *map(set, (deidentifier.RECOGNISED, deidentifier.MEASURED)),
        *map(set, (action_units.LEARN, action_units.MEASURE)),
    ]
    assert len(set.union(*sets)) == sum(map(len, sets))


def test_redrawing_changes_the_person_and_follows_the_face() -> None:
    frames = deidentifier.people([8000, 8001], 2, draw=4)
    truth = deidentifier.known(frames)
    drawn = deidentifier.redraw(truth)
    assert torch.equal(drawn, deidentifier.redraw(truth)) and drawn.shape == frames.images.shape
    # One person, whoever was filmed: the same numbers give the same image.
    assert torch.equal(deidentifier.redraw(truth[:1].expand(2, -1))[0], drawn[0])
    assert not torch.equal(deidentifier.redraw(truth, who=8000), drawn)
    other = truth.clone()
    other[:, deidentifier.READ.index("jaw_drop")] = (
        1 - other[:, deidentifier.READ.index("jaw_drop")]
    )
    assert not torch.equal(deidentifier.redraw(other), drawn)
    # Readings beyond the ranges are moved to them, not refused.
    assert bool(deidentifier.redraw(100 * truth).isfinite().all())


def test_a_person_s_frames_stay_together() -> None:
    frames = deidentifier.people([8000, 8001], 3, draw=4)
    alone = deidentifier.people([8001], 3, draw=4)
    assert torch.equal(frames.images[3:], alone.images)


def test_k_same_on_photographs_keeps_its_promise_and_neighbours_means_do_not() -> None:
    """The tempting short cut, each face the mean of its own k nearest, hides nobody."""
    x = data.portraits("test").x[:60]
    k = 5
    flat = x.flatten(1)
    nearest = torch.cdist(flat, flat).topk(k, largest=False).indices
    own = flat[nearest].mean(dim=1)
    repeated = flat[nearest].mean(dim=1)  # whoever has the photographs can do the same
    named = torch.cdist(own, repeated).argmin(dim=1)
    assert float((named == torch.arange(60)).double().mean()) > 0.9
    faces, _ = privacy.k_same(x, k, generator=device.generator(0))
    named = torch.cdist(faces.flatten(1), flat).argmin(dim=1)
    assert float((named == torch.arange(60)).double().mean()) <= 1 / k


def test_the_checkpoint_does_what_the_chapter_says() -> None:
    """On a third of the people: looks deceive, k-same holds, and only redrawing keeps expression."""
    recognisers = deidentifier.load()
    some = list(deidentifier.MEASURED)[:14]
    gallery, probes = (deidentifier.people(some, 2, draw=draw) for draw in (3, 4))
    who = torch.arange(14).repeat_interleave(2)
    rate, follows = {}, {}
    for name in deidentifier.TREATMENTS:
        treated = deidentifier.treat(name, probes.images, n=2, seed=1)
        theirs = deidentifier.treat(name, gallery.images, n=2, seed=2)
        model = recognisers[name]
        named = privacy.identify(model(treated), model(theirs), who)
        rate[name] = float((named == who).float().mean())
        readings = behaviour.track(deidentifier.reader(), treated)
        follows[name] = float(privacy.kept(readings, deidentifier.known(probes))[3:].mean())
    assert rate["k-same"] <= 1 / deidentifier.K
    assert min(rate[name] for name in ("untreated", "bar", "blur", "pixels")) > 0.6
    assert rate["redrawn"] < 0.4
    assert follows["redrawn"] > follows["k-same"] + 0.2
