"""Measures of generators against closed forms, brute force, torchmetrics and SciPy."""

from __future__ import annotations

import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu, norm
from torch import Tensor, nn
from torchmetrics.image.inception import InceptionScore

from course_lib import metrics

DTYPES = (torch.float32, torch.float64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, f: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(n, f, generator=rng(seed), dtype=torch.float64) + shift


# --- Inception score ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [2, 10, 1008])
def test_inception_score_at_its_ends(dtype: torch.dtype, classes: int) -> None:
    undecided = torch.full((30, classes), 1 / classes, dtype=dtype)
    assert metrics.inception_score(undecided) == pytest.approx(1, abs=1e-6)
    one_class = torch.eye(classes, dtype=dtype)[:1].repeat(30, 1)
    assert metrics.inception_score(one_class) == pytest.approx(1, abs=1e-9)
    every_class = torch.eye(classes, dtype=dtype).repeat(3, 1)
    assert metrics.inception_score(every_class) == pytest.approx(classes, rel=1e-6)


def test_inception_score_in_closed_form() -> None:
    # Sure of class 0 with probability a, of class 1 otherwise, half each: exp(ln 2 - H(a)).
    a = 0.9
    entropy = -a * math.log(a) - (1 - a) * math.log(1 - a)
    p = torch.tensor([[a, 1 - a], [1 - a, a]]).repeat(5, 1)
    assert metrics.inception_score(p) == pytest.approx(2 * math.exp(-entropy), rel=1e-6)
    # Sure each time, but of class 0 three times in four: exp of the entropy of (3/4, 1/4).
    uneven = torch.eye(2)[[0, 0, 0, 1]]
    expected = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert metrics.inception_score(uneven) == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torchmetrics warns of its memory
def test_inception_score_agrees_with_torchmetrics() -> None:
    logits = 3 * torch.randn(200, 7, generator=rng(), dtype=torch.float32)
    theirs = InceptionScore(feature=nn.Identity(), splits=1)
    theirs.update(logits)
    mean, _deviation = theirs.compute()
    assert metrics.inception_score(logits.softmax(1)) == pytest.approx(float(mean), rel=1e-5)


def test_splits_are_scored_apart() -> None:
    p = (2 * torch.randn(100, 5, generator=rng())).softmax(1)
    parts = [metrics.inception_score(part) for part in p.split(25)]
    assert metrics.inception_score(p, splits=4) == pytest.approx(np.mean(parts))
    assert metrics.inception_score(p, splits=100) == pytest.approx(1)  # each row is its own mean


# --- Fréchet distance and its bias ----------------------------------------------------------------


def test_the_distance_of_equal_gaussians_shrinks_with_n_and_its_limit_does_not() -> None:
    a, b = normal(4000, 10, 1), normal(4000, 10, 2)
    small = metrics.frechet_distance(a[:200], b[:200])
    large = metrics.frechet_distance(a, b)
    assert small > 10 * large > 0
    found = metrics.frechet_limit(a[:1000], b[:1000], rng())
    assert abs(found.limit) < 0.25 * metrics.frechet_distance(a[:1000], b[:1000])
    assert found.distances[0] > found.distances[-1]
    assert found.distances[-1] == pytest.approx(metrics.frechet_distance(a[:1000], b[:1000]))


def test_the_limit_is_nearer_to_the_truth() -> None:
    # N(0, I) and N(1/2, I) in ten dimensions: the distance is 10 / 4.
    pairs = [(normal(300, 10, s), normal(400, 10, 100 + s, shift=0.5)) for s in range(12)]
    plain = np.mean([metrics.frechet_distance(a, b) for a, b in pairs])
    limit = np.mean([metrics.frechet_limit(a, b, rng()).limit for a, b in pairs])
    assert plain > 2.6
    assert abs(limit - 2.5) < 0.5 * (plain - 2.5)


def test_the_limit_repeats_with_its_seed() -> None:
    a, b = normal(100, 3, 1), normal(100, 3, 2)
    one, two, other = (metrics.frechet_limit(a, b, rng(seed)) for seed in (5, 5, 6))
    assert one == two != other


# --- precision, recall, density, coverage -----------------------------------------------------


def by_hand(real: Tensor, fake: Tensor, k: int) -> tuple[float, float, float, float]:
    """The four measures straight from their definitions, one pair at a time."""
    r, f = real.double().numpy(), fake.double().numpy()

    def radii(x: np.ndarray) -> np.ndarray:
        found = []
        for i in range(len(x)):
            others = np.delete(x, i, axis=0)
            found.append(np.sort(np.linalg.norm(others - x[i], axis=1))[k - 1])
        return np.array(found)

    distance, real_radii, fake_radii = cdist(r, f), radii(r), radii(f)
    in_real = distance <= real_radii[:, None]
    precision = np.mean([in_real[:, j].any() for j in range(len(f))])
    recall = np.mean([(distance[i] <= fake_radii).any() for i in range(len(r))])
    density = in_real.sum() / (k * len(f))
    coverage = np.mean([distance[i].min() <= real_radii[i] for i in range(len(r))])
    return float(precision), float(recall), float(density), float(coverage)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_neighbourhoods_by_brute_force(dtype: torch.dtype, k: int, shift: float) -> None:
    real, fake = normal(60, 4, 0).to(dtype), normal(45, 4, 1, shift).to(dtype)
    found = (*metrics.precision_recall(real, fake, k=k), *metrics.density_coverage(real, fake, k=k))
    assert found == pytest.approx(by_hand(real, fake, k), abs=1e-12)


def test_more_rows_than_one_part_of_the_distance_matrix() -> None:
    real, fake = normal(1101, 2, 0), normal(1203, 2, 1, 0.5)
    found = (*metrics.precision_recall(real, fake), *metrics.density_coverage(real, fake, k=3))
    assert found == pytest.approx(by_hand(real, fake, 3), abs=1e-12)


def test_equal_sets_and_sets_far_apart() -> None:
    real = normal(50, 3, 0).float()
    assert metrics.precision_recall(real, real.flip(0)) == (1, 1)
    assert metrics.precision_recall(real, real + 100) == (0, 0)
    assert metrics.density_coverage(real, real + 100) == (0, 0)
    # Each fake lies in its own ball and in those of the real ones that count it among their nearest
    # k: every ball holds k others and its centre, so that density is (k + 1) / k.
    assert metrics.density_coverage(real, real, k=4) == pytest.approx((1.25, 1))
    # Balls of radius 0 hold the copies of their centres, though sums of squares are rounded.
    many = (100 + real[:5]).repeat(8, 1)
    assert metrics.precision_recall(many, many, k=3) == (1, 1)


def test_a_part_of_the_modes_is_precise_and_misses_the_others() -> None:
    spread = 0.1
    modes = torch.tensor([0.0, 10.0, 20.0, 30.0], dtype=torch.float64)
    real = spread * normal(400, 2, 0) + modes.repeat(100)[:, None]
    fake = spread * normal(200, 2, 1) + modes[:2].repeat(100)[:, None]
    precision, recall = metrics.precision_recall(real, fake)
    assert precision > 0.9 and 0.4 < recall <= 0.5
    # Recall is precision with the roles exchanged.
    assert metrics.precision_recall(fake, real) == (recall, precision)
    assert metrics.density_coverage(real, fake).coverage <= 0.5


def test_few_outliers_buy_recall_but_not_coverage() -> None:
    real, clump = normal(200, 2, 0), 0.01 * normal(200, 2, 1)
    with_outliers = torch.cat([clump, 30 * normal(8, 2, 2)])
    assert metrics.precision_recall(real, clump).recall < 0.1
    assert metrics.precision_recall(real, with_outliers).recall > 0.9
    assert metrics.density_coverage(real, with_outliers).coverage < 0.2


# --- nearest neighbours and copies ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_nearest_is_cdists_smallest(dtype: torch.dtype) -> None:
    x, reference = (
        torch.rand(12_000, 3, 4, generator=rng(0)),
        torch.rand(90, 3, 4, generator=rng(1)),
    )
    found = metrics.nearest(x.to(dtype), reference.to(dtype))
    smallest = torch.cdist(x.double().flatten(1), reference.double().flatten(1)).min(dim=1)
    assert torch.equal(found.indices, smallest.indices)
    assert torch.allclose(found.distances, smallest.values, rtol=1e-10)
    assert found.distances.dtype == torch.float64


def test_a_copy_is_at_distance_zero_wherever_it_lies() -> None:
    reference = 1e4 + torch.rand(40, 5, generator=rng())
    found = metrics.nearest(reference.flip(0), reference)
    assert torch.equal(found.distances, torch.zeros(40, dtype=torch.float64))
    assert torch.equal(found.indices, torch.arange(40).flip(0))


def test_copying_is_the_mann_whitney_test() -> None:
    fake, held_out, train = normal(80, 3, 0, 0.2), normal(120, 3, 1), normal(300, 3, 2)
    ours, theirs = (cdist(a, train).min(axis=1) for a in (fake.numpy(), held_out.numpy()))
    found = metrics.copying(fake, held_out, train)
    assert found.share == pytest.approx(np.mean(ours[:, None] < theirs[None, :]))
    test = mannwhitneyu(ours, theirs, alternative="less", method="asymptotic", use_continuity=False)
    assert norm.cdf(found.z) == pytest.approx(test.pvalue, rel=1e-9)


def test_copies_novelties_and_strangers() -> None:
    train, held_out = normal(500, 4, 0), normal(200, 4, 1)
    copies = metrics.copying(train[:100] + 1e-6, held_out, train)
    assert copies.share == 1 and copies.z < -10
    fresh = metrics.copying(normal(200, 4, 2), held_out, train)
    assert abs(fresh.z) < 3 and abs(fresh.share - 0.5) < 0.1
    strangers = metrics.copying(normal(100, 4, 3, shift=50), held_out, train)
    assert strangers.share == 0 and strangers.z > 10
    # Every pair a tie: no one is nearer.
    assert metrics.copying(train[:9], train[9:30], train) == (0.5, 0.0)


def test_modes_on_a_ring_of_eight() -> None:
    angles = torch.arange(8) * (2 * math.pi / 8)
    ring = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert metrics.modes_kept(ring.repeat(10, 1), ring, 0.05) == (8, 1.0)
    half = torch.cat([ring[:3].repeat(10, 1), torch.zeros(30, 2)])
    assert metrics.modes_kept(half, ring, 0.05) == (3, 0.5)
    # 80 points: an equal share is 10, and one point is a tenth of that.
    few = torch.cat([ring[:1].repeat(79, 1), ring[1:2]])
    assert metrics.modes_kept(few, ring, 0.05) == (2, 1.0)
    many = torch.cat([ring[:1].repeat(99, 1), ring[1:2]])
    assert metrics.modes_kept(many, ring, 0.05) == (1, 1.0)


# --- judges ---------------------------------------------------------------------------------------


class Small(nn.Module):
    """Features that show whether the network was in evaluation mode, and how large its batches are."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)
        self.sizes: list[int] = []

    def body(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        features: Tensor = self.drop(x.flatten(1))
        return features


def test_a_judge_looks_in_batches_and_leaves_its_network_alone() -> None:
    network = Small().train()
    judge = metrics.Judge("small", network, network.body, network.head, batch_size=3)
    x = torch.rand(7, 1, 2, 2, generator=rng())
    features = judge.features(x)
    assert torch.equal(features, x.flatten(1)) and network.sizes == [3, 3, 1]
    p = judge.probabilities(features)
    assert not p.requires_grad
    assert torch.allclose(p, network.head(x.flatten(1)).softmax(1))
    assert network.training and network.drop.training


def test_only_inceptions_numbers_go_without_a_qualifier() -> None:
    network = Small()
    judge = metrics.Judge("digit", network, network.body)
    assert judge.named("Fréchet distance") == "Fréchet distance, digit features"
    assert judge.named("Inception score") == "Inception score, digit network"
    assert metrics.digit_judge().named("Precision") == "Precision, digit features"


def test_the_digit_judge_reads_digits() -> None:
    from course_lib import data

    test = data.mnist("test")
    judge = metrics.digit_judge()
    features = judge.features(test.x[:300])
    assert features.shape == (300, 64)
    read = judge.probabilities(features).argmax(dim=1)
    assert float((read == test.y[:300]).float().mean()) > 0.95


def test_static_has_the_features_of_digits() -> None:
    from course_lib import checkpoints, data
    from course_lib.recipes.static_digits import Static

    judge, static = metrics.digit_judge(), checkpoints.load("static-digits", Static())()
    reference = judge.features(data.mnist("test").x)
    noise = torch.rand(500, 1, 28, 28, generator=rng())
    found = metrics.frechet_distance(judge.features(static), reference)
    assert found < 0.05 * metrics.frechet_distance(judge.features(noise), reference)
    card = checkpoints.card("static-digits").measures
    assert found == pytest.approx(card["Fréchet distance, digit features, to test"], rel=1e-3)


def test_static_is_made_step_by_step() -> None:
    from course_lib import device
    from course_lib.recipes import static_digits

    # Nothing that is the same, or rises evenly, over five pixels is left.
    even = torch.linspace(-1, 1, 28).expand(1, 1, 28, 28)
    for coarse in (torch.ones(1, 1, 28, 28), even, even.transpose(2, 3)):
        inside = static_digits.image(coarse)[..., 2:-2, 2:-2]
        assert torch.allclose(inside, torch.full_like(inside, static_digits.GREY), atol=1e-6)
    fabric = device.launch(accelerator="cpu")
    *way, last = static_digits.run(fabric, seed=1, steps=2)
    assert [progress.step for progress in way] == [1, 2]
    assert last.module is not None and last.measures is not None
    images = last.module()
    assert images.shape == (500, 1, 28, 28) and 0 <= float(images.min()) < float(images.max()) <= 1


class FakeInception(nn.Module):
    """Stands for torchmetrics' class: it loads the file, and wants three channels of 256 levels."""

    def __init__(self, name: str, features_list: list[str], weights_path: str) -> None:
        super().__init__()
        assert features_list == ["2048"]
        self.fc = nn.Linear(3, 5)
        self.load_state_dict(torch.load(weights_path, weights_only=True))

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        return x.float().mean(dim=(2, 3))


@pytest.fixture
def inception_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchmetrics.image.fid

    monkeypatch.setattr(torchmetrics.image.fid, "NoTrainInceptionV3", FakeInception)
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))


@pytest.mark.usefixtures("inception_installed")
@pytest.mark.parametrize("channels", [1, 3])
def test_inception_from_a_file_of_weights(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "weights.pth"
    weights = {"fc.weight": torch.randn(5, 3, generator=rng()), "fc.bias": torch.ones(5)}
    torch.save(weights, path)
    judge = metrics.inception_judge(path, batch_size=2)
    x = torch.rand(5, channels, 6, 6, generator=rng())
    features = judge.features(x)
    levels = (255 * x).round().mean(dim=(2, 3)).expand(5, 3)
    assert torch.allclose(features, levels)
    expected = (levels / 100 @ weights["fc.weight"].T).softmax(1)  # no bias
    assert torch.allclose(judge.probabilities(features / 100), expected, atol=1e-6)
    assert judge.named("Fréchet distance") == "FID"
    assert judge.named("Inception score") == "Inception score"
    assert judge.named("Recall") == "Recall, Inception features"


@pytest.mark.usefixtures("inception_installed")
def test_inception_is_looked_for_in_torchs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=r"^weights: no file .*; download https://.*\.pth"):
        metrics.inception_judge()
    path = tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    path.parent.mkdir()
    torch.save(nn.Linear(3, 5).state_dict(prefix="fc."), path)
    assert metrics.inception_judge().name == "Inception"


@pytest.mark.usefixtures("inception_installed")
@pytest.mark.parametrize("content", ["empty", "text", "other", "code"])
def test_a_file_that_holds_no_such_weights_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "weights.pth"
    if content == "other":
        torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    elif content == "code":
        torch.save(Small(), path)  # a pickled object, which may do anything when it is opened
    else:
        path.write_text("" if content == "empty" else "weights, honestly")
    with pytest.raises(ValueError, match=r"^weights: .* does not hold the weights of this Inc"):
        metrics.inception_judge(path)


@pytest.mark.parametrize("missing", ["torch_fidelity", "torchmetrics.image.fid"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match="pip install torchmetrics torch-fidelity"):
        metrics.inception_judge()


# --- wrong input ------------------------------------------------------------------------------

GOOD = torch.rand(10, 3, generator=rng())
NAN = GOOD.clone().fill_(math.nan)


@pytest.mark.parametrize(
    ("probabilities", "splits", "says"),
    [
        (torch.randn(10, 4, generator=rng()), 1, "^probabilities: .*if these are logits"),
        (4 * torch.rand(10, 4, generator=rng()), 1, "^probabilities: .*if these are logits"),
        (torch.rand(10), 1, r"^probabilities: expected a float tensor of shape \(N, F\)"),
        (torch.eye(3)[:0], 1, "^probabilities: .*N >= 1"),
        (torch.eye(3, dtype=torch.int64), 1, "^probabilities: expected a float tensor"),
        (NAN, 1, "^probabilities: .*NaN"),
        (torch.eye(3), 0, "^splits: expected 1 to 3"),
        (torch.eye(3), 4, "^splits: expected 1 to 3.*got 4"),
    ],
)
def test_inception_score_refuses(probabilities: Tensor, splits: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        metrics.inception_score(probabilities, splits=splits)


@pytest.mark.parametrize("measure", [metrics.precision_recall, metrics.density_coverage])
def test_neighbourhoods_refuse(measure) -> None:
    for real, fake, k, says in [
        (GOOD, GOOD, 0, "^k: expected at least 1, got 0"),
        (GOOD, GOOD, 10, "^real: .*N >= 11"),
        (GOOD[:3], GOOD, 3, "^real: .*N >= 4"),
        (GOOD, GOOD[:0], 3, "^fake: "),
        (GOOD, GOOD[:, :2], 3, "^fake: expected 3 features like real, got 2"),
        (GOOD[:, 0], GOOD, 3, "^real: expected a float tensor"),
        (NAN, GOOD, 3, "^real: .*NaN"),
        (GOOD, NAN, 3, "^fake: .*NaN"),
    ]:
        with pytest.raises(ValueError, match=says):
            measure(real, fake, k=k)


def test_recall_needs_enough_fakes_and_coverage_does_not() -> None:
    with pytest.raises(ValueError, match="^fake: .*N >= 4"):
        metrics.precision_recall(GOOD, GOOD[:3])
    assert metrics.density_coverage(GOOD, GOOD[:1]).coverage > 0


def test_nearest_and_copying_refuse() -> None:
    for x, reference, says in [
        (GOOD, GOOD[:, :2], r"^reference: expected shape \(M, 3\) like x, got \(10, 2\)"),
        (GOOD.reshape(10, 1, 3), GOOD, r"^reference: expected shape \(M, 1, 3\)"),
        (GOOD[:0], GOOD, "^x: "),
        (GOOD, GOOD[:0], "^reference: "),
        (GOOD[:, 0], GOOD[:, 0], "^x: expected a float tensor"),
        (GOOD.long(), GOOD, "^x: expected a float tensor"),
        (NAN, GOOD, "^x: .*NaN"),
        (GOOD, NAN, "^reference: .*NaN"),
    ]:
        with pytest.raises(ValueError, match=says):
            metrics.nearest(x, reference)
        with pytest.raises(ValueError, match="expected"):
            metrics.copying(x, GOOD, reference)


@pytest.mark.parametrize("shares", [(0.5,), (0.5, 0.5), (0.0, 1.0), (0.5, 1.1), (0.1, 1.0)])
def test_limit_refuses_shares(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="^shares: expected two or more"):
        metrics.frechet_limit(GOOD, GOOD, rng(), shares=shares)


def test_limit_refuses_features() -> None:
    with pytest.raises(ValueError, match="^features_a: .*NaN"):
        metrics.frechet_limit(NAN, GOOD, rng())
    with pytest.raises(ValueError, match="^features_b: .*N >= 2"):
        metrics.frechet_limit(GOOD, GOOD[:1], rng())
    with pytest.raises(ValueError, match="expected one shape"):
        metrics.frechet_limit(GOOD, GOOD[:, :2], rng())


@pytest.mark.parametrize(
    ("points", "centres", "spread"),
    [
        (GOOD[:0], GOOD, 0.1),
        (GOOD, GOOD[:0], 0.1),
        (GOOD[:, 0], GOOD, 0.1),
        (GOOD, GOOD[:, :2], 0.1),
        (GOOD, GOOD, 0.0),
        (GOOD, GOOD, math.nan),
    ],
)
def test_modes_refuse(points: Tensor, centres: Tensor, spread: float) -> None:
    with pytest.raises(ValueError, match=r"^expected points \(N, F\), centres"):
        metrics.modes_kept(points, centres, spread)


def test_modes_refuse_nan() -> None:
    with pytest.raises(ValueError, match="^points: .*NaN"):
        metrics.modes_kept(NAN, GOOD, 0.1)
    with pytest.raises(ValueError, match="^centres: .*NaN"):
        metrics.modes_kept(GOOD, NAN, 0.1)


def test_judges_refuse() -> None:
    network = Small()
    judge = metrics.Judge("small", network, network.body)
    for x, says in [
        (torch.rand(4, 2, 2), r"^x: expected images \(N, C, H, W\)"),
        (torch.rand(4, 1, 2, 2) + 1, r"^x: expected images .* in \[0, 1\]"),
        (-torch.rand(4, 1, 2, 2), r"^x: expected images .* in \[0, 1\]"),
        (torch.rand(0, 1, 2, 2), "^x: "),
        (torch.full((2, 1, 2, 2), math.nan), "^x: .*NaN"),
    ]:
        with pytest.raises(ValueError, match=says):
            judge.features(x)
    with pytest.raises(ValueError, match="^features: the small network has no classes"):
        judge.probabilities(GOOD)
    with pytest.raises(ValueError, match="^features: .*NaN"):
        judge.probabilities(NAN)
    with pytest.raises(ValueError, match="^batch_size: expected at least 1, got 0"):
        metrics.Judge("small", network, network.body, batch_size=0)
