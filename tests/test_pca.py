from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import sklearn.decomposition
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import pca

fast = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31 - 1)


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(n: int, d: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return correlated points away from the origin, with well separated variances."""
    g = gen(seed)
    scales = torch.logspace(1, -1, d, dtype=dtype)
    mix, _ = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=dtype))
    return torch.randn(n, d, generator=g, dtype=dtype) * scales @ mix + 5


def random_rows(k: int, d: int, seed: int) -> torch.Tensor:
    """Return k orthonormal rows in d dimensions."""
    return torch.linalg.qr(torch.randn(d, k, generator=gen(seed), dtype=torch.float64)).Q.T


# --- fit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(60, 8), (8, 60), (20, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_scikit_learn_signs_included(n: int, d: int, dtype: torch.dtype) -> None:
    x = cloud(n, d, seed=n, dtype=dtype)
    k = min(n - 1, d)
    ours = pca.fit(x, k)
    theirs = sklearn.decomposition.PCA(n_components=k, svd_solver="full").fit(x.numpy())
    tol = 1e-9 if dtype == torch.float64 else 2e-3
    np.testing.assert_allclose(ours.mean, theirs.mean_, atol=tol)
    np.testing.assert_allclose(ours.components, theirs.components_, atol=tol)
    np.testing.assert_allclose(ours.explained_variance, theirs.explained_variance_, rtol=tol)
    np.testing.assert_allclose(
        ours.explained_variance_ratio, theirs.explained_variance_ratio_, rtol=tol
    )
    np.testing.assert_allclose(ours.transform(x), theirs.transform(x.numpy()), atol=20 * tol)
    assert ours.components.dtype == dtype


@pytest.mark.parametrize(("n", "d"), [(50, 6), (6, 50)])
def test_rows_are_orthonormal_in_falling_order_with_positive_largest_entry(n: int, d: int) -> None:
    fitted = pca.fit(cloud(n, d, seed=1), 5)
    torch.testing.assert_close(
        fitted.components @ fitted.components.T, torch.eye(5, dtype=torch.float64)
    )
    assert bool((fitted.explained_variance.diff() <= 0).all())
    for row in fitted.components:
        assert row[row.abs().argmax()] > 0


@pytest.mark.parametrize(("n", "d"), [(50, 6), (6, 50)])
def test_shares_sum_to_one_at_full_rank_and_nothing_is_lost(n: int, d: int) -> None:
    x = cloud(n, d, seed=2)
    full = pca.fit(x, min(n - 1, d))
    assert float(full.explained_variance_ratio.sum()) == pytest.approx(1)
    torch.testing.assert_close(full.reconstruct(x), x)
    assert pca.reconstruction_error(full, x) == pytest.approx(0, abs=1e-20)


def test_a_known_gaussian_is_recovered() -> None:
    # Standard deviations 3 and 1 along axes turned by 30 degrees, centre (4, -2).
    turn = math.radians(30)
    axes = torch.tensor([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    x = torch.randn(40_000, 2, generator=gen(0)) * torch.tensor([3.0, 1.0]) @ axes
    fitted = pca.fit(x + torch.tensor([4.0, -2.0]), 2)
    torch.testing.assert_close(fitted.mean, torch.tensor([4.0, -2.0]), atol=0.05, rtol=0)
    assert pca.subspace_angle(fitted.components[:1], axes[:1], degrees=True) < 0.5
    torch.testing.assert_close(
        fitted.explained_variance, torch.tensor([9.0, 1.0]), rtol=0.03, atol=0
    )


def test_points_on_a_line_need_one_component() -> None:
    direction = torch.tensor([[3.0, 0.0, -4.0]], dtype=torch.float64)
    x = torch.linspace(-1, 1, 11, dtype=torch.float64)[:, None] * direction + 7
    fitted = pca.fit(x, 2)
    torch.testing.assert_close(fitted.components[0], -direction[0] / 5)
    assert float(fitted.explained_variance_ratio[0]) == pytest.approx(1)
    assert fitted.k_for(1.0) == 1


def test_images_keep_their_shape_and_give_what_their_vectors_give() -> None:
    images = torch.rand(12, 1, 5, 4, generator=gen(3))
    by_image, by_vector = pca.fit(images, 3), pca.fit(images.flatten(1), 3)
    assert torch.equal(by_image.components, by_vector.components)
    assert by_image.shape == (1, 5, 4) and by_vector.shape == (20,)
    assert by_image.reconstruct(images).shape == images.shape
    assert by_image.sample(7, generator=gen(0)).shape == (7, 1, 5, 4)


def test_the_first_components_do_not_depend_on_k() -> None:
    x = cloud(40, 7, seed=4)
    small, large = pca.fit(x, 3), pca.fit(x, 7).first(3)
    for name in ("mean", "components", "explained_variance", "explained_variance_ratio"):
        torch.testing.assert_close(getattr(small, name), getattr(large, name))


def test_the_input_is_left_alone_and_the_fit_repeats() -> None:
    x = cloud(30, 5, seed=5)
    before = x.clone()
    one, two = pca.fit(x, 4), pca.fit(x, 4)
    assert torch.equal(x, before)
    assert torch.equal(one.components, two.components)


# --- what must hold for any data ----------------------------------------------------------------


@fast
@given(seed=seeds, n=st.integers(4, 30), d=st.integers(3, 12), k=st.integers(1, 2))
def test_eckart_young(seed: int, n: int, d: int, k: int) -> None:
    x = cloud(n, d, seed)
    fitted = pca.fit(x, k)
    left_out = pca.fit(x, min(n - 1, d)).explained_variance[k:].sum()
    error = pca.reconstruction_error(fitted, x)
    assert error == pytest.approx(float(left_out) * (n - 1) / n, rel=1e-9, abs=1e-12)
    # No other subspace of that size does better, not even with its own best offset (the mean).
    other = random_rows(k, d, seed)
    centred = x - x.mean(0)
    distance = (centred - centred @ other.T @ other).square().sum(1).mean()
    assert error <= float(distance) + 1e-9


@fast
@given(seed=seeds, scale=st.floats(0.1, 10))
def test_turning_moving_and_scaling_the_data_does_the_same_to_its_pca(
    seed: int, scale: float
) -> None:
    x = cloud(25, 6, seed)
    turn, shift = random_rows(6, 6, seed + 1), torch.arange(6, dtype=torch.float64)
    plain, moved = pca.fit(x, 3), pca.fit(scale * (x @ turn) + shift, 3)
    torch.testing.assert_close(moved.mean, scale * (plain.mean @ turn) + shift)
    torch.testing.assert_close(moved.explained_variance, scale**2 * plain.explained_variance)
    # Each direction turns with the data; its sign follows the rule in the new coordinates.
    for before, after in zip(plain.components, moved.components, strict=True):
        assert pca.subspace_angle((before @ turn)[None], after[None]) < 1e-6


@fast
@given(seed=seeds, k=st.integers(1, 6))
def test_code_to_image_to_code_is_the_identity(seed: int, k: int) -> None:
    fitted = pca.fit(cloud(20, 6, seed), k)
    c = torch.randn(9, k, generator=gen(seed), dtype=torch.float64)
    torch.testing.assert_close(fitted.transform(fitted.inverse(c)), c)


@fast
@given(seed=seeds)
def test_codes_of_the_training_data_are_uncorrelated(seed: int) -> None:
    x = cloud(30, 6, seed)
    fitted = pca.fit(x, 4)
    torch.testing.assert_close(
        torch.cov(fitted.transform(x).T), torch.diag(fitted.explained_variance)
    )
    torch.testing.assert_close(torch.cov(fitted.whiten(x).T), torch.eye(4, dtype=torch.float64))


# --- k_for, sample --------------------------------------------------------------------------------


@fast
@given(seed=seeds, share=st.floats(0.01, 1.0))
def test_k_for_is_the_smallest_that_reaches_the_share(seed: int, share: float) -> None:
    fitted = pca.fit(cloud(30, 8, seed), 8)
    k = fitted.k_for(share)
    reached = fitted.explained_variance_ratio.cumsum(0)
    assert float(reached[k - 1]) >= share - 1e-12
    assert k == 1 or float(reached[k - 2]) < share


def test_k_for_reaches_one_in_float32() -> None:
    x = cloud(40, 12, seed=6, dtype=torch.float32)
    assert pca.fit(x, 12).k_for(1.0) <= 12


def test_samples_have_the_mean_and_covariance_of_the_fit() -> None:
    fitted = pca.fit(cloud(200, 4, seed=7), 4)
    drawn = fitted.sample(60_000, generator=gen(1))
    spread = fitted.components.T @ torch.diag(fitted.explained_variance) @ fitted.components
    top = float(fitted.explained_variance[0])
    torch.testing.assert_close(drawn.mean(0), fitted.mean, atol=0.05 * math.sqrt(top), rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), spread, atol=0.03 * top, rtol=0)


def test_a_seed_decides_the_samples() -> None:
    fitted = pca.fit(cloud(20, 4, seed=8), 2)
    same = fitted.sample(3, generator=gen(5)), fitted.sample(3, generator=gen(5))
    assert torch.equal(*same)
    assert not torch.equal(same[0], fitted.sample(3, generator=gen(6)))


# --- subspace_angle ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "angle", [0.0, 1e-12, 1e-6, 0.3, math.pi / 4, 1.2, math.pi / 2 - 1e-6, math.pi / 2]
)
def test_a_plane_turned_by_an_angle_is_that_angle_away(angle: float) -> None:
    a = torch.eye(5, dtype=torch.float64)[:2]
    b = a.clone()
    b[1, 1], b[1, 3] = math.cos(angle), math.sin(angle)
    assert pca.subspace_angle(a, b) == pytest.approx(angle, rel=1e-9, abs=1e-15)
    assert pca.subspace_angle(a, b, degrees=True) == pytest.approx(
        math.degrees(angle), rel=1e-9, abs=1e-13
    )


@fast
@given(seed=seeds, k=st.integers(1, 4))
def test_subspace_angle_agrees_with_scipy_and_is_symmetric(seed: int, k: int) -> None:
    a, b = random_rows(k, 9, seed), random_rows(k, 9, seed + 1)
    expected = float(scipy.linalg.subspace_angles(a.T.numpy(), b.T.numpy()).max())
    assert pca.subspace_angle(a, b) == pytest.approx(expected, abs=1e-9)
    assert pca.subspace_angle(b, a) == pytest.approx(expected, abs=1e-9)


@fast
@given(seed=seeds)
def test_the_basis_does_not_matter_for_the_angle(seed: int) -> None:
    a = random_rows(3, 8, seed)
    mix = torch.randn(3, 3, generator=gen(seed), dtype=torch.float64) + 4 * torch.eye(3)
    lengths = torch.tensor([[1e-6], [1.0], [1e6]], dtype=torch.float64)
    assert pca.subspace_angle(a, mix @ a) < 1e-9
    assert pca.subspace_angle(a, lengths * a) < 1e-9


def test_subspace_angle_takes_float32_with_gradients() -> None:
    a = torch.eye(4)[:2].requires_grad_()
    assert pca.subspace_angle(a, torch.eye(4)[2:]) == pytest.approx(math.pi / 2)
    assert a.grad is None


# --- wrong input ------------------------------------------------------------------------------


def with_nan() -> torch.Tensor:
    x = torch.rand(5, 3)
    x[2, 1] = math.nan
    return x


@pytest.mark.parametrize(
    ("x", "k", "says"),
    [
        (torch.rand(5, 3), 0, "^k: .* got 0"),
        (torch.rand(5, 3), 4, r"^k: .*min\(N - 1, d\) = 3, got 4"),
        (torch.rand(5, 9), 5, r"^k: .*min\(N - 1, d\) = 4, got 5"),
        (torch.rand(5, 3), True, "^k: .*got True"),
        (torch.rand(5, 3), 1.0, "^k: .*got 1.0"),
        (torch.rand(1, 3), 1, "^x: .*two rows or more, got 1"),
        (torch.rand(0, 3), 1, "^x: .*two rows or more, got 0"),
        (torch.rand(5), 1, r"^x: .*got \(5,\)"),
        (torch.rand(5, 0), 1, "^x: .*one number or more"),
        (torch.randint(0, 255, (5, 3)), 1, "^x: .*float32 or float64, got torch.int64"),
        (torch.rand(5, 3).half(), 1, "^x: .*got torch.float16"),
        (torch.ones(5, 3), 1, "^x: .*all equal"),
        (with_nan(), 1, "^x: .*NaN"),
        (torch.full((5, 3), math.inf), 1, "^x: .*infinity"),
    ],
)
def test_fit_names_what_is_wrong(x: torch.Tensor, k: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pca.fit(x, k)


def test_a_fitted_pca_names_what_is_wrong() -> None:
    fitted = pca.fit(torch.rand(8, 1, 2, 3, generator=gen(9)), 4)
    images, codes = torch.rand(2, 1, 2, 3), torch.rand(2, 4)
    for wrong, says in [
        (torch.rand(2, 1, 3, 2), r"^x: expected shape \(N, 1, 2, 3\).*got \(2, 1, 3, 2\)"),
        (torch.rand(2, 6), "^x: expected shape"),
        (images.double(), "^x: expected torch.float32"),
        (images[:0], "^x: expected one row or more"),
        (images / 0, "^x: .*NaN or infinity"),
    ]:
        for method in (fitted.transform, fitted.reconstruct, fitted.whiten):
            with pytest.raises(ValueError, match=says):
                method(wrong)
    for wrong, says in [
        (torch.rand(2, 3), r"^c: expected codes of shape \(N, 4\), got \(2, 3\)"),
        (codes.double(), "^c: expected torch.float32"),
        (codes * math.nan, "^c: .*NaN"),
    ]:
        with pytest.raises(ValueError, match=says):
            fitted.inverse(wrong)
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"^k: expected 1 <= k <= 4, got {k}"):
            fitted.first(k)
    for share in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"^share: expected a value in"):
            fitted.k_for(share)
    with pytest.raises(ValueError, match=r"^share: 1 components hold"):
        fitted.first(1).k_for(0.999)
    with pytest.raises(ValueError, match=r"^n: expected at least 1, got 0"):
        fitted.sample(0, generator=gen(0))


def test_a_direction_without_variance_cannot_be_whitened() -> None:
    x = torch.linspace(0, 1, 6, dtype=torch.float64)[:, None] * torch.ones(1, 3)
    with pytest.raises(ValueError, match="component 1 of this PCA has no variance"):
        pca.fit(x.double(), 2).whiten(x.double())


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (torch.eye(3)[:2], torch.eye(3)[:1], "^a, b: expected two matrices of one shape"),
        (torch.ones(3), torch.ones(3), "^a, b: "),
        (torch.eye(3)[:0], torch.eye(3)[:0], "^a, b: "),
        (torch.ones(2, 3), torch.eye(3)[:2], "^a: expected 2 linearly independent rows"),
        (torch.eye(3)[:2], torch.zeros(2, 3), "^b: expected 2 linearly independent rows"),
        (torch.eye(3)[:1], torch.full((1, 3), math.nan), "^b: .*NaN"),
        (torch.ones(3, 2), torch.ones(3, 2), "^a: expected at most d = 2 rows, got 3"),
    ],
)
def test_subspace_angle_names_what_is_wrong(a: torch.Tensor, b: torch.Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pca.subspace_angle(a, b)
