"""The fakes: every generator's images, the frames beside the face swap's, and what both are made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from course_lib import checkpoints, data, forge
from course_lib.autoencoders import swap
from course_lib.detection.processing import quantise
from course_lib.recipes import dcgan_portraits


@pytest.mark.parametrize("generator", forge.GENERATORS)
def test_each_generator_has_its_images_in_8_bits_and_in_two_parts(generator: str) -> None:
    train, test = forge.fakes(generator), forge.fakes(generator, "test")
    everything = forge.fakes(generator, "all")
    if generator != "diffusion":  # a person's look-alikes stay together there
        assert torch.equal(everything.x, torch.cat([train.x, test.x]))
        assert (len(train), len(test)) == (forge.COUNT["train"], forge.COUNT["test"])
    for part in (train, test):
        assert part.x.shape[1:] == (3, 64, 64) and set(part.y.tolist()) == {1}
        assert torch.allclose(quantise(part.x), part.x, atol=1e-6)
        original = forge.originals(generator, "train" if part is train else "test")
        assert set(original.y.tolist()) == {0} and original.x.shape[1:] == (3, 64, 64)
    assert len({x.numpy().tobytes() for x in everything.x}) == len(everything)


def test_generators_are_unlike_each_other_and_what_is_handed_out_is_a_copy() -> None:
    first = forge.fakes("dcgan", "test").x
    assert not torch.equal(first, forge.fakes("dcgan-again", "test").x)
    first.zero_()
    assert float(forge.fakes("dcgan", "test").x.mean()) > 0.1


def test_the_dcgans_fakes_are_its_checkpoints_images() -> None:
    network = checkpoints.load("dcgan-portraits", dcgan_portraits.portrait_generator())
    z = torch.randn(575, 32, generator=torch.Generator().manual_seed(800))
    with torch.no_grad():
        by_hand = network(z[400:408])
    fakes = forge.fakes("dcgan", "test").x[:8]
    assert float((fakes - by_hand).abs().max()) <= 0.5 / 255 + 1e-4


def test_a_swap_keeps_its_moments_surroundings_and_changes_the_face() -> None:
    fake, real = forge.fakes("face-swap", "test"), forge.originals("face-swap", "test")
    assert torch.equal(fake.group, real.group)
    changed = (fake.x - real.x).abs().amax(dim=1)
    corner = changed[:, :6, :6]
    assert float(corner.max()) == 0  # the wall behind the head
    assert float((changed > 0.05).float().mean()) > 0.1
    # A judge that learned to tell the two goes by the hair as well, but moves towards the other actor.
    judge = checkpoints.load(
        "face-swap", nn.ModuleDict({"swap": swap.SwapNetwork(), "judge": swap.Judge()})
    )["judge"]
    assert isinstance(judge, swap.Judge)
    with torch.no_grad():
        before, after = (judge(x)[:, -1] for x in (real.x, fake.x))
    assert float((after.abs() < before.abs()).float().mean()) > 0.8


@pytest.mark.parametrize("load", [forge.fakes, forge.originals])
def test_what_is_not_there_is_named(load: object) -> None:
    with pytest.raises(ValueError, match="generator: expected one of dcgan, "):
        load("stylegan")  # type: ignore[operator]
    with pytest.raises(ValueError, match="split: expected"):
        load("dcgan", "valid")  # type: ignore[operator]
    assert data.card("fakes").licence
