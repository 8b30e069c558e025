"""What can be written down for a page, what cannot, and how weights are packed."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from course_lib.figures import CannotRunError, program


@pytest.mark.parametrize(
    ("function", "shape", "named"),
    [
        (nn.Conv2d(1, 2, 3, dilation=2), (1, 9, 9), r"convolution in 2 dimensions with dilation"),
        (nn.Conv2d(4, 4, 3, groups=2), (4, 9, 9), r"2 groups"),
        (nn.Conv1d(1, 2, 3), (1, 9), r"convolution in 1 dimensions"),
        (nn.LayerNorm(6), (6,), r"aten\.native_layer_norm"),
        (lambda x: torch.fft.rfft(x).abs(), (8,), r"aten\._fft_r2c"),
        (lambda x: x.cumsum(dim=1), (8,), r"aten\.cumsum"),
        (lambda x: x @ torch.relu(x.reshape(1, 1)), (1,), r"aten\.mm of two results"),
        (lambda x: x.repeat(2, 1), (3,), r"a result of shape \(2, 3\) in take"),
        (lambda x: x[0], (3,), r"a result of shape \(3,\) in take"),
        (lambda x: x.sum(), (3,), r"aten\.sum"),
        (lambda x: x if x.sum() > 0 else -x, (3,), r"depends on the values of its input"),
        (lambda x: x + torch.rand(1, 3), (3,), r"depends on the values of its input"),
    ],
)
def test_what_a_page_cannot_run_is_named(
    function: program.Function, shape: tuple[int, ...], named: str
) -> None:
    if isinstance(function, nn.Module):
        function.eval()
    with pytest.raises(CannotRunError, match=named):
        program.trace(function, torch.ones(1, *shape))


def test_every_operation_is_known_to_the_page() -> None:
    """Each name that can be written down has its function in js/ops.mjs."""
    from course_lib.figures import bundle

    table = bundle.module().split("const OPS = {")[1].split("\n};")[0]
    source = Path(program.__file__).read_text(encoding="utf-8")
    written = set(re.findall(r'(?:emit|_unary|_arithmetic|_pool)\(\s*"(\w+)"', source))
    written |= {"conv", "convtranspose"}  # chosen between the two
    known = set(re.findall(r"^(\w+):", table, re.MULTILINE))
    assert len(written) > 25
    assert written <= known


def test_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="evaluation mode"):
        program.trace(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), torch.ones(1, 3))
    with pytest.raises(CannotRunError, match="training mode"):
        layer = nn.BatchNorm2d(2).train()
        program.trace(lambda x: layer(x), torch.rand(1, 2, 4, 4))


@pytest.mark.parametrize(
    "example", [torch.ones(2, 3), torch.ones(3), torch.ones(1, 3, dtype=torch.float64)]
)
def test_the_example_is_one_float32_example(example: Tensor) -> None:
    with pytest.raises(ValueError, match="example: expected float32"):
        program.trace(nn.Linear(3, 2).eval(), example)


def test_weights_that_are_not_finite_are_refused() -> None:
    layer = nn.Linear(3, 2).eval()
    with torch.no_grad():
        layer.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="dense that are not finite"):
        program.trace(layer, torch.ones(1, 3))


def test_a_result_that_ignores_the_input_is_refused() -> None:
    with pytest.raises(ValueError, match="depend on its input"):
        program.trace(lambda x: torch.ones(1, 3), torch.ones(1, 3))


def test_tracing_leaves_the_model_as_it_was() -> None:
    layer = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    program.trace(layer, torch.rand(1, 1, 5, 5))
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in layer.parameters())


def test_packed_arrays_come_back() -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([0.5])}
    contents, content = program.pack(arrays, "float32")
    raw = gzip.decompress(content)
    assert [part["shape"] for part in contents] == [[2, 3], [1]]
    assert np.frombuffer(raw, "<f4").tolist() == [0, 1, 2, 3, 4, 5, 0.5]
    assert program.pack(arrays, "float32")[1] == content  # no time stamp


def test_values_beyond_half_precision_are_refused() -> None:
    with pytest.raises(ValueError, match=r"w: values up to 1e\+05 do not fit float16"):
        program.pack({"w": np.float32([1e5])}, "float16")
