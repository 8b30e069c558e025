"""The measurements of a GAN's step and its learning: the same work is counted, and the peer is the peer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from benchmarks import gan_step
from course_lib import data
from course_lib.experiments import dcgan_curves

PLAIN = torch.contiguous_format


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts the passes of each player of the benchmark, forwards and backwards."""
    seen = {"G": 0, "G back": 0, "D": 0, "D back": 0, "images": 0}
    make = gan_step.players

    def counted(layout: torch.memory_format) -> tuple[nn.Module, nn.Module]:
        nets = make(layout)
        for name, net in zip("GD", nets, strict=True):

            def forwards(_: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
                seen[name] += 1
                seen["images"] += len(inputs[0])

            def backwards(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
                if output.requires_grad:
                    output.register_hook(
                        lambda _: seen.update({f"{name} back": seen[f"{name} back"] + 1})
                    )

            net.register_forward_pre_hook(forwards)
            net.register_forward_hook(backwards)
        return nets

    monkeypatch.setattr(gan_step, "players", counted)
    return seen


def test_the_bare_passes_are_those_of_train_gan(passes: dict[str, int]) -> None:
    x = data.mnist("train").x[:256]
    counts = []
    for work in (
        gan_step.bare(x[:64], PLAIN),
        gan_step.bare(x[:64], PLAIN, update=True),
        gan_step.ours(x, PLAIN),
    ):
        passes.update(dict.fromkeys(passes, 0))
        work()
        counts.append(dict(passes))
    # Fakes twice; real, fake and fake again to the discriminator; and back from each of its scores.
    assert counts[0] == {"G": 2, "G back": 1, "D": 3, "D back": 3, "images": 5 * 64}
    assert counts[1] == counts[0]
    assert counts[2] == counts[0]


def test_the_passes_of_the_peers_loop_are_counted_for_it(passes: dict[str, int]) -> None:
    x = data.mnist("train").x[:256]
    counts = []
    for work in (
        gan_step.bare_in_their_order(x[:64], PLAIN),
        gan_step.theirs_on_our_networks(x, PLAIN),
    ):
        passes.update(dict.fromkeys(passes, 0))
        work()
        counts.append(dict(passes))
    assert counts[0] == {"G": 1, "G back": 1, "D": 3, "D back": 3, "images": 4 * 64}
    assert counts[1] == counts[0]


def test_only_updates_move_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    nets = gan_step.players(PLAIN)
    monkeypatch.setattr(gan_step, "players", lambda layout: nets)
    before = [p.clone() for net in nets for p in net.parameters()]
    real = data.mnist("train").x[:8]
    gan_step.bare(real, PLAIN)()
    assert all(
        torch.equal(p, old)
        for p, old in zip((p for net in nets for p in net.parameters()), before, strict=True)
    )
    gan_step.bare(real, PLAIN, update=True)()
    assert not any(
        torch.equal(p, old)
        for p, old in zip((p for net in nets for p in net.parameters()), before, strict=True)
    )


def test_the_peers_networks_have_its_sizes() -> None:
    """Counted by hand from the layers of its dcgan.py at 32 pixels, one channel and 100 numbers."""
    convolutions = (128 * 128 * 9 + 128) + (128 * 64 * 9 + 64) + (64 * 9 + 1)
    generator = 100 * 8192 + 8192 + 2 * (128 + 128 + 64) + convolutions
    convolutions = (9 * 16 + 16) + (16 * 32 * 9 + 32) + (32 * 64 * 9 + 64) + (64 * 128 * 9 + 128)
    discriminator = convolutions + 2 * (32 + 64 + 128) + 512 + 1
    G, D = dcgan_curves.PeerGenerator(), dcgan_curves.PeerDiscriminator()
    assert sum(p.numel() for p in G.parameters()) == generator
    assert sum(p.numel() for p in D.parameters()) == discriminator
    images = G(torch.randn(3, 100))
    assert images.shape == (3, 1, 32, 32) and bool((images.abs() <= 1).all())
    probability = D(images)
    assert probability.shape == (3, 1) and bool(((probability > 0) & (probability < 1)).all())
    assert sorted(
        {n.eps for n in (*G.modules(), *D.modules()) if isinstance(n, nn.BatchNorm2d)}
    ) == [
        1e-5,
        0.8,
    ]


def test_the_peers_generator_moves_first_and_the_same_fakes_go_to_both() -> None:
    seen: list[Tensor] = []
    G, D = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())
    D.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    start = [p.clone() for p in (*G.parameters(), *D.parameters())]
    real = torch.rand(5, 3)
    torch.manual_seed(0)
    assert len(list(dcgan_curves.peer_rounds(G, D, [real], 2))) == 1
    torch.manual_seed(0)
    z = torch.randn(5, 2)
    fake = z @ start[0].T + start[1]  # by the generator as it was
    for came, expected in zip(seen, (fake, real, fake), strict=True):
        torch.testing.assert_close(came, expected)
    assert seen[0].requires_grad and not seen[2].requires_grad
    # Adam's first step is its rate, along the sign of the gradient.
    logit = fake @ start[2].T + start[3]
    slope = (logit.sigmoid() - 1) / 5 @ start[2]
    torch.testing.assert_close(
        G.bias.detach(), start[1] - 2e-4 * slope.sum(dim=0).sign(), atol=1e-6, rtol=0
    )


def test_digits_survive_the_way_to_the_peer_and_back() -> None:
    x = data.mnist("test").x[:64]
    there = dcgan_curves.to_peer(x)
    assert there.shape == (64, 1, 32, 32)
    assert float(there.min()) >= -1 and float(there.max()) <= 1
    back = dcgan_curves.from_peer(there)
    assert back.shape == x.shape
    assert float((back - x).abs().mean()) < 0.025
    assert float(back.min()) >= 0 and float(back.max()) <= 1
    level = torch.full((1, 1, 28, 28), 0.3)
    torch.testing.assert_close(dcgan_curves.from_peer(dcgan_curves.to_peer(level)), level)


def test_the_marks_are_seconds_of_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which a step takes 2 s and drawing takes 1,000 s."""
    now = 0.0
    digits = data.mnist("test").x

    def training(_: int) -> Iterator[dcgan_curves.Draw]:
        def draw(batch_statistics: bool) -> Tensor:
            nonlocal now
            now += 1000
            return digits if batch_statistics else digits[:1000]

        nonlocal now
        while True:
            now += 2
            yield draw

    def features(_: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        return nn.functional.avg_pool2d(images, 7).flatten(1), torch.full((10,), 0.1)

    monkeypatch.setattr(dcgan_curves, "_features", features)  # the judge takes its time
    monkeypatch.setattr(dcgan_curves.time, "process_time", lambda: now)
    monkeypatch.setattr(dcgan_curves, "_peer", training)
    monkeypatch.setattr(dcgan_curves, "MARKS", {dcgan_curves.PEER: (5, 20, 60, 120)})
    result = dcgan_curves.measure(dcgan_curves.PEER, seed=0, seconds=60)
    # 5 s are over after the third step.
    assert {k: v for k, v in result.items() if k.startswith("steps")} == {
        "steps at 5 s": 3,
        "steps at 20 s": 10,
        "steps at 60 s": 30,
    }
    assert result["digits at 5 s"] == 10
    # The test digits are at no distance from themselves; half of them are, and so are others.
    assert result["distance at 5 s"] == pytest.approx(0, abs=1e-6)
    assert result["distance in evaluation mode"] > 1e-4
    assert result["distance of real digits, there and back"] > 1e-4


def test_every_run_ends_at_a_mark() -> None:
    for cell in dcgan_curves.cells():
        assert cell["seconds"] in dcgan_curves.MARKS[str(cell["who"])]
