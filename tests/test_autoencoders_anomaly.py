"""Anomaly scores: closed forms, what they must not depend on, and how often a normal one alarms."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_lib import device, metrics
from course_lib.autoencoders import networks
from course_lib.autoencoders.anomaly import (
    anomaly_score,
    pointwise_error,
    standardise,
    threshold,
)

DTYPES = [torch.float32, torch.float64]


def signals(n: int = 20, t: int = 32, *, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, t, generator=device.generator(0), dtype=torch.float64).to(dtype)


def projection(k: int = 3, t: int = 32) -> Callable[[Tensor], Tensor]:
    """Return a reconstruction by the first k coordinates: its error is what the others hold."""
    keep = (torch.arange(t) < k).to(torch.float64)
    return lambda x: x * keep.to(x.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_standardised_examples_have_mean_0_and_variance_1(dtype: torch.dtype) -> None:
    z = standardise(5 + 3 * signals(dtype=dtype).reshape(20, 1, 4, 8))
    assert z.dtype == dtype and z.shape == (20, 1, 4, 8)
    flat = z.flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(20, dtype=dtype), atol=1e-6, rtol=0)
    torch.testing.assert_close(flat.var(1, unbiased=False), torch.ones(20, dtype=dtype))


def test_the_score_is_the_mean_square_of_what_is_left_out() -> None:
    x = signals()
    torch.testing.assert_close(anomaly_score(projection(), x), x[:, 3:].square().sum(1) / 32)


def test_the_score_is_the_mean_of_the_error_at_each_point() -> None:
    x = signals().reshape(20, 2, 4, 4)
    model = networks.dense((2, 4, 4), (8,), 2, output="linear", generator=device.generator(0))
    for normalise in (False, True):
        error = pointwise_error(model.double(), x, normalise=normalise)
        assert error.shape == x.shape and bool((error >= 0).all())
        score = anomaly_score(model, x, normalise=normalise)
        torch.testing.assert_close(score, error.mean(dim=(1, 2, 3)))


@settings(deadline=None, max_examples=30)
@given(gain=st.floats(0.01, 100), offset=st.floats(-100, 100))
def test_a_normalised_score_knows_neither_gain_nor_offset(gain: float, offset: float) -> None:
    model = networks.dense((32,), (8,), 3, activation="tanh", generator=device.generator(1))
    x = signals()
    changed = anomaly_score(model.double(), gain * x + offset, normalise=True)
    torch.testing.assert_close(changed, anomaly_score(model, x, normalise=True), rtol=1e-6, atol=0)


def test_gain_and_offset_may_differ_from_example_to_example() -> None:
    gain = torch.linspace(0.1, 10, 20, dtype=torch.float64)[:, None]
    score = anomaly_score(projection(), gain * signals() - gain, normalise=True)
    torch.testing.assert_close(score, anomaly_score(projection(), signals(), normalise=True))


def test_a_signal_turned_upside_down_is_another_signal() -> None:
    model = networks.dense((32,), (8,), 3, generator=device.generator(1)).double()
    x = signals()
    upright, flipped = (anomaly_score(model, s * x, normalise=True) for s in (1, -1))
    assert not torch.allclose(upright, flipped)


@pytest.mark.parametrize("gain", [0.5, 2.0, 7.0])
def test_a_plain_score_grows_with_the_square_of_the_gain(gain: float) -> None:
    model = networks.linear((32,), 3, bias=False, generator=device.generator(2)).double()
    x = signals()
    torch.testing.assert_close(anomaly_score(model, gain * x), gain**2 * anomaly_score(model, x))


def test_a_normalised_score_is_a_share_of_the_examples_own_variance() -> None:
    x = signals()
    assert torch.equal(anomaly_score(lambda z: z, x, normalise=True), torch.zeros(20).double())
    nothing = anomaly_score(torch.zeros_like, x, normalise=True)
    torch.testing.assert_close(nothing, torch.ones(20).double())


def test_a_model_is_left_as_it_was_found() -> None:
    inner = networks.linear((32,), 3, generator=device.generator(0))
    model = nn.Sequential(nn.Dropout(0.5), inner).train()
    x = signals(dtype=torch.float32)
    first = anomaly_score(model, x)
    assert torch.equal(first, anomaly_score(model, x))  # no dropout while scoring
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not first.requires_grad


def test_the_threshold_is_just_above_the_right_order_statistic() -> None:
    scores = torch.arange(1.0, 100.0)[torch.randperm(99, generator=device.generator(0))]
    t = threshold(scores, false_alarms=0.05)  # k = ceil(100 * 0.95) = 95
    assert 95 < t < 95.001
    assert threshold(torch.arange(1.0, 10.0), false_alarms=0.1) > 9  # k = 9 of 9
    assert int((scores >= t).sum()) == 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_example_that_ties_with_the_threshold_raises_no_alarm(dtype: torch.dtype) -> None:
    scores = torch.full((50,), 0.3, dtype=dtype)
    t = threshold(scores)
    assert not bool((scores >= t).any())
    rates = metrics.rates_at(torch.cat([scores, scores + 0.1]), [0] * 50 + [1] * 50, t)
    assert rates == (1.0, 0.0)


@pytest.mark.parametrize(("n", "alpha"), [(19, 0.05), (50, 0.1), (33, 0.25)])
def test_a_fresh_normal_example_alarms_as_rarely_as_promised(n: int, alpha: float) -> None:
    # The expected share is exactly (N + 1 - k) / (N + 1), whatever the distribution.
    draws = 4000
    scores = torch.distributions.LogNormal(0.0, 2.0).sample((draws, n + 1))
    alarms = sum(
        float(row[-1]) >= threshold(row[:-1], false_alarms=alpha) for row in scores.unbind()
    )
    k = math.ceil((n + 1) * (1 - alpha) - 1e-9)
    expected = (n + 1 - k) / (n + 1)
    noise = math.sqrt(expected * (1 - expected) / draws)
    assert expected <= alpha + 1e-12
    assert abs(alarms / draws - expected) < 5 * noise


def test_fewer_false_alarms_need_a_higher_threshold() -> None:
    scores = signals(1, 500)[0].abs()
    values = [threshold(scores, false_alarms=a) for a in (0.2, 0.1, 0.05, 0.01)]
    assert all(low < high for low, high in pairwise(values))


x = torch.rand(4, 6)
same: Callable[[Tensor], Tensor] = lambda value: value  # noqa: E731
flat = torch.cat([torch.rand(2, 6), torch.full((1, 6), 0.7)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: standardise(flat), "x: expected examples that vary, but example 2 is constant"),
        (lambda: standardise(torch.zeros(1, 6)), "x: expected examples that vary"),
        (lambda: standardise(x[0]), r"x: expected a float tensor of shape \(N, \.\.\.\)"),
        (lambda: anomaly_score(same, flat, normalise=True), "example 2 is constant"),
        (lambda: anomaly_score(same, x[:0]), "x: expected a float tensor .* with N > 0"),
        (lambda: anomaly_score(same, x.int()), "x: expected a float tensor"),
        (lambda: anomaly_score(same, x * math.nan), "x: expected finite values"),
        (lambda: pointwise_error(same, x / 0), "x: expected finite values"),
        (
            lambda: anomaly_score(lambda z: z[:, :2], x),
            r"model: expected .* \(4, 6\), got \(4, 2\)",
        ),
        (lambda: threshold(x), r"scores: expected float scores of shape \(N,\)"),
        (lambda: threshold(x[0, :0]), "scores: expected float scores"),
        (lambda: threshold(torch.arange(30)), "scores: expected float scores"),
        (lambda: threshold(x[0] * math.nan), "scores: expected finite values"),
        (lambda: threshold(x[0]), "scores: expected at least 19 for false_alarms = 0.05, got 6"),
        (lambda: threshold(x[0], false_alarms=0.0), "false_alarms: expected a share in"),
        (lambda: threshold(x[0], false_alarms=1.0), "false_alarms: expected a share in"),
        (lambda: threshold(x[0], false_alarms=math.nan), "false_alarms: expected a share in"),
    ],
)
def test_wrong_input_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
