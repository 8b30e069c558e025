from __future__ import annotations

import pytest
import torch

from course_lib import device


def test_launch_seeds_everything() -> None:
    device.launch(seed=7, accelerator="cpu")
    first = torch.randn(5)
    device.launch(seed=7, accelerator="cpu")
    assert torch.equal(first, torch.randn(5))
    device.launch(seed=8, accelerator="cpu")
    assert not torch.equal(first, torch.randn(5))


def test_describe_names_device_and_precision() -> None:
    fabric = device.launch(accelerator="cpu", precision="bf16-mixed")
    assert device.describe(fabric).startswith("CPU")
    assert device.describe(fabric).endswith("bf16-mixed")


def test_generator_is_seeded_and_apart_from_the_global_one() -> None:
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    a = torch.randn(3, generator=device.generator(5))
    assert torch.equal(a, torch.randn(3, generator=device.generator(5)))
    assert torch.equal(expected, torch.randn(3))


@pytest.mark.parametrize("seed", [-1, 2**32 - 1])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed: .* got {seed}"):
        device.launch(seed=seed)


def test_unknown_precision_and_device() -> None:
    with pytest.raises(ValueError, match="precision: expected one of .* got '8-bit'"):
        device.launch(precision="8-bit")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="accelerator='abacus'"):
        device.launch(accelerator="abacus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU where there is none")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="this machine cannot give that"):
        device.launch(accelerator="cuda")
