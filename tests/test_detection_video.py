"""Video for the detector: real H.264, clips with swapped faces, and what the judges refuse."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from course_lib import checkpoints, metrics
from course_lib.autoencoders import swap
from course_lib.data import actors
from course_lib.detection import cnn, compression, evaluate, processing, spectrum
from course_lib.recipes import detector_actors, face_swap

PEOPLE = 24


def waves(frames: int = 9, height: int = 32, width: int = 48) -> Tensor:
    """Smooth coloured waves that travel: (frames, 3, height, width) in [0, 1]."""
    t = torch.arange(frames).view(-1, 1, 1, 1) / 6
    tint = torch.tensor([0.0, 1.5, 3.0]).view(1, 3, 1, 1)
    y = torch.arange(height).view(1, 1, -1, 1) / 5
    x = torch.arange(width).view(1, 1, 1, -1) / 7
    return 0.5 + 0.3 * torch.sin(x + y + t + tint)


def psnr(x: Tensor, y: Tensor) -> float:
    return -10 * math.log10(float((x - y).square().mean()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 3, 32, 48), (2, 3, 2, 2), (40, 3, 64, 64)])
def test_h264_keeps_count_size_type_and_input_and_repeats(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = x.clone()
    once = compression.h264(x, 30, fps=29.97)
    assert once.shape == x.shape and once.dtype == dtype
    assert torch.equal(processing.quantise(once), once)  # what a file holds
    assert torch.equal(compression.h264(x, 30, fps=29.97), once)
    assert torch.equal(x, before) and not torch.equal(once, x)


def test_h264_loses_more_with_every_step_of_the_rate_factor() -> None:
    x = waves(20)
    noisy = compression.noise(x, 0.05, seed=0)
    found = [psnr(compression.h264(noisy, crf), noisy) for crf in (0, 10, 23, 40, 51)]
    assert found == sorted(found, reverse=True)
    assert found[0] - found[-1] > 8
    # At 0 the brightness survives to the rounding of 8-bit video; only colours lose resolution.
    grey = x[:, :1].expand(-1, 3, -1, -1)
    assert float((compression.h264(grey, 0) - grey).abs().max()) < 2.5 / 255
    assert psnr(compression.h264(x, 0), x) > 30


@pytest.mark.parametrize("crf", [0, 23, 40, 51])
def test_h264_leaves_a_flat_video_flat(crf: int) -> None:
    flat = torch.tensor([0.8, 0.2, 0.4]).view(1, 3, 1, 1).expand(12, 3, 32, 32)
    out = compression.h264(flat, crf)
    assert float((out - flat).abs().max()) < 9 / 255
    assert float((out.amax(dim=(0, 2, 3)) - out.amin(dim=(0, 2, 3))).max()) < 3.5 / 255


def test_h264_keeps_the_frames_in_their_order() -> None:
    """A dot goes from left to right; files hold their frames in another order than they are shown."""
    x = torch.full((14, 3, 32, 64), 0.1)
    for t in range(14):
        x[t, :, 12:20, 4 * t : 4 * t + 8] = 0.9
    out = compression.h264(x, 23).mean(dim=(1, 2))
    middle = (out * torch.arange(64)).sum(1) / out.sum(1)
    assert bool((middle.diff() > 0).all())
    assert bool(((out - x.mean(dim=(1, 2))).abs() < 0.05).all())


@pytest.mark.parametrize(
    ("frames", "settings", "message"),
    [
        (torch.zeros(0, 3, 32, 32), {}, r"frames: expected .* N > 0"),
        (torch.zeros(4, 1, 32, 32), {}, r"frames: expected colour frames .*\(4, 1, 32, 32\)"),
        (torch.zeros(3, 32, 32), {}, "frames: expected shape"),
        (torch.zeros(4, 3, 33, 32), {}, "even height and width, got 33 x 32"),
        (torch.zeros(4, 3, 32, 31), {}, "even height and width, got 32 x 31"),
        (torch.full((4, 3, 32, 32), math.nan), {}, "frames: expected values"),
        (torch.full((4, 3, 32, 32), 2.0), {}, "frames: expected values"),
        (torch.zeros(4, 3, 32, 32, dtype=torch.uint8), {}, "frames: expected floating"),
        (waves(), {"crf": -1}, "crf: expected 0 to 51"),
        (waves(), {"crf": 52}, "crf: expected 0 to 51"),
        (waves(), {"crf": math.nan}, "crf: expected 0 to 51"),
        (waves(), {"fps": 0}, "fps: expected 1 to 240"),
        (waves(), {"fps": math.nan}, "fps: expected"),
    ],
)
def test_h264_refuses(frames: Tensor, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compression.h264(frames, **({"crf": 23} | settings))


def test_h264_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"course-lib\[video\]"):
        compression.h264(waves(), 23)


@pytest.fixture(scope="module")
def clips() -> detector_actors.Clips:
    """Three frames of each of the first test people, their own and with another's face."""
    frames, detector_actors.FRAMES = detector_actors.FRAMES, 3
    try:
        return detector_actors.part("test", people=PEOPLE)
    finally:
        detector_actors.FRAMES = frames


def test_nobody_is_in_two_parts() -> None:
    parts = [set(seeds) for seeds in detector_actors.PEOPLE.values()]
    parts.append({face_swap.A, face_swap.B})
    assert sum(len(p) for p in parts) == len(set().union(*parts))


def test_a_fake_is_the_same_clip_but_for_the_face(clips: detector_actors.Clips) -> None:
    seed = detector_actors.PEOPLE["test"][0]
    own = swap.cut(actors.clip(3, identity=actors.identity(seed), seed=seed, size=96))
    real, fake = clips[0]
    assert torch.equal(real, own.images)
    changed = (fake - real).abs().amax(dim=1, keepdim=True)
    assert float(changed[own.masks == 0].max()) == 0
    assert float(changed[own.masks == 1].mean()) > 0.02
    for real, fake in clips:  # the new face has the old one's mean colour
        assert float((fake - real).mean(dim=(2, 3)).abs().max()) < 0.02
        assert 0 <= float(fake.min()) and float(fake.max()) <= 1


def test_the_unseen_method_changes_the_face_and_nothing_else() -> None:
    both = nn.ModuleDict({"swap": swap.SwapNetwork(), "judge": swap.Judge()})
    model = checkpoints.load("face-swap", both)["swap"]
    assert isinstance(model, swap.SwapNetwork)
    found = [detector_actors.swapped(model, who, 3, seed=1) for who in ("a", "b")]
    for real, fake in found:
        assert real.shape == fake.shape == (3, 3, 64, 64)
        assert torch.equal(real[..., :3, :], fake[..., :3, :])
        assert float((fake - real).abs().mean()) > 0.002
    assert not torch.equal(found[0][0], found[1][0])


@pytest.mark.parametrize("quality", detector_actors.QUALITIES)
def test_no_strong_shortcut_tells_swapped_clips_from_real_ones(
    clips: detector_actors.Clips, quality: str
) -> None:
    """Clip and fake stay together, so that few clips suffice; the whites are a weak shortcut."""
    real, fake = (torch.cat(kind) for kind in detector_actors.saved(clips, quality))
    groups = torch.arange(PEOPLE).repeat_interleave(3).repeat(2)
    gate = evaluate.shortcut_auc(real, fake, seed=0, groups=groups)
    assert all(gate[name].low <= 0.5 for name in ("grid", "level", "frame")), gate
    assert all(estimate.value < 0.8 for estimate in gate.values()), gate
    spoiled = evaluate.shortcut_auc(real, fake * 0.999, seed=0, groups=groups)
    assert spoiled["grid"].low > 0.9  # the gate can fail


def test_the_shipped_detector_sees_the_swaps_until_they_are_compressed(
    clips: detector_actors.Clips,
) -> None:
    model = checkpoints.load("detector-actors", cnn.Meso4())
    claim = checkpoints.card("detector-actors").measures
    found = {}
    for quality in detector_actors.QUALITIES:
        s, y, video = detector_actors.scores(model, clips, quality)
        assert len(s) == 2 * PEOPLE * 3 and y.float().mean() == 0.5
        found[quality] = metrics.auc(s, y)
        assert found[quality] == pytest.approx(claim[f"frame AUC, pasted, {quality}"], abs=0.1)
        assert len(video.unique()) == 2 * PEOPLE
    assert found["raw"] > 0.97
    assert found["CRF 40"] < found["CRF 23"] <= found["raw"] + 0.01
    whole = detector_actors.judge(model, clips, "raw", videos=True)
    assert whole.n_real == whole.n_fake == PEOPLE


def test_clips_refuse(clips: detector_actors.Clips) -> None:
    with pytest.raises(ValueError, match="name: expected one of train, validation, test"):
        detector_actors.part("holdout")
    with pytest.raises(ValueError, match="quality: expected one of raw, CRF 23, CRF 40"):
        detector_actors.saved(clips, "c23")


IMAGE_DETECTORS: dict[str, Callable[[], nn.Module]] = {
    "DetectorNet": lambda: cnn.DetectorNet(3),
    "Meso4": cnn.Meso4,
    "SmallXception": cnn.SmallXception,
}


@pytest.mark.parametrize("name", IMAGE_DETECTORS)
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 1, 64, 64), "x: expected shape"),
        (torch.zeros(2, 3, 6, 6), "x: expected shape"),
        (torch.zeros(0, 3, 64, 64), "x: expected shape"),
        (torch.full((2, 3, 64, 64), math.nan), "x: expected values"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), "x: expected floating"),
    ],
    ids=["grey", "small", "none", "nan", "bytes"],
)
def test_no_detector_scores_what_it_was_not_made_for(name: str, x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cnn.score(IMAGE_DETECTORS[name](), x)


@pytest.mark.parametrize("model", [spectrum.SpectrumDetector(), spectrum.DCTDetector()])
@pytest.mark.parametrize(
    "x",
    [torch.zeros(2, 3, 64, 60), torch.zeros(0, 3, 64, 64), torch.full((2, 3, 64, 64), math.nan)],
)
def test_spectrum_detectors_refuse_other_sizes_nothing_and_nan(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(ValueError, match="expected"):
        cnn.score(model, x)


@pytest.mark.parametrize("how", ["mean", "median", "max"])
def test_no_verdict_on_no_frames_or_on_nan(how: str) -> None:
    none = torch.zeros(0)
    with pytest.raises(ValueError, match="frame_scores: expected .* N > 0"):
        evaluate.aggregate(none, none.long(), how)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="frame_scores: expected finite"):
        evaluate.aggregate(torch.tensor([0.2, math.nan]), torch.tensor([0, 0]), how)  # type: ignore[arg-type]


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize(
    "judge",
    [
        evaluate.report,
        lambda s, y: evaluate.operating_points(s, y, threshold=0.5),
        lambda s, y: evaluate.by_group(s, y, torch.zeros_like(y)),
        metrics.auc,
        metrics.roc,
        metrics.equal_error_rate,
    ],
    ids=["report", "operating points", "by group", "auc", "roc", "eer"],
)
def test_labels_of_one_class_and_nan_scores_are_refused(
    judge: Callable[[Tensor, Tensor], object], label: int
) -> None:
    with pytest.raises(ValueError, match="labels"):
        judge(torch.rand(8), torch.full((8,), label))
    spoiled = torch.rand(8)
    spoiled[3] = math.nan
    with pytest.raises(ValueError, match="scores"):
        judge(spoiled, torch.arange(8) % 2)
