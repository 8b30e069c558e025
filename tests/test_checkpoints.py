from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from course_lib import checkpoints, device, recipes

ABOUT: dict[str, Any] = {
    "summary": "a line",
    "architecture": "one linear layer",
    "data": "none",
    "recipe": "here",
    "seed": 0,
    "steps": 1,
    "seconds": 0.1,
    "machine": "CPU",
    "measures": {"loss": 0.5},
    "licence": "MIT",
    "limits": "a test",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COURSE_CHECKPOINTS", str(tmp_path))
    return tmp_path


def linear(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 2)


def test_round_trip(folder: Path) -> None:
    saved = linear()
    card = checkpoints.save(folder, "line", saved, ABOUT)
    loaded = checkpoints.load("line", linear(seed=1))
    assert all(
        torch.equal(a, b) for a, b in zip(saved.parameters(), loaded.parameters(), strict=True)
    )
    assert not loaded.training
    assert checkpoints.card("line") == card
    assert card.parameters == 8
    assert "line" in checkpoints.names()
    assert "course train line" in card.to_markdown()


def test_unknown_name_lists_what_there_is(folder: Path) -> None:
    checkpoints.save(folder, "line", linear(), ABOUT)
    with pytest.raises(ValueError, match="no checkpoint 'curve'; there are .*line"):
        checkpoints.load("curve", linear())


@pytest.mark.parametrize("keep", [0, 10, 60])
def test_truncated_weights_are_refused_and_the_module_is_untouched(folder: Path, keep: int) -> None:
    checkpoints.save(folder, "line", linear(), ABOUT)
    path = folder / "line.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    module = linear(seed=1)
    before = module.weight.clone()
    with pytest.raises(ValueError, match="cut short or changed.*course train line"):
        checkpoints.load("line", module)
    assert torch.equal(module.weight, before)
    assert module.training


def test_one_flipped_bit_is_refused(folder: Path) -> None:
    checkpoints.save(folder, "line", linear(), ABOUT)
    path = folder / "line.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="cut short or changed"):
        checkpoints.load("line", linear())


def test_another_architecture_is_named_and_untouched(folder: Path) -> None:
    checkpoints.save(folder, "line", linear(), ABOUT)
    module = nn.Linear(4, 2)
    before = module.bias.clone()
    with pytest.raises(ValueError, match=r"weight: checkpoint \(2, 3\), module \(2, 4\)"):
        checkpoints.load("line", module)
    assert torch.equal(module.bias, before)


def test_a_broken_card_is_named(folder: Path) -> None:
    checkpoints.save(folder, "line", linear(), ABOUT)
    (folder / "line.json").write_text('{"name": "line"')
    with pytest.raises(ValueError, match=r"line\.json"):
        checkpoints.load("line", linear())


def test_a_full_disk_keeps_the_old_pair(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.save(folder, "line", linear(), ABOUT)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(folder, "line", linear(seed=1), ABOUT)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_files_are_written_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.write(tmp_path / "new", {"a": b"1", "b": b"2"})
    real, calls = os.fsync, []

    def full_at_the_second(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(tmp_path / "new", {"a": b"3", "b": b"4"})
    kept = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert kept == {"a": b"1", "b": b"2"}


def test_weights_that_are_not_finite_are_not_saved(folder: Path) -> None:
    module = linear()
    with torch.no_grad():
        module.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite: weight"):
        checkpoints.save(folder, "line", module, ABOUT)
    assert not list(folder.iterdir())


def test_a_missing_field_is_named(folder: Path) -> None:
    about = {key: value for key, value in ABOUT.items() if key != "licence"}
    with pytest.raises(ValueError, match="licence"):
        checkpoints.save(folder, "line", linear(), about)
    assert not list(folder.iterdir())


def test_every_shipped_checkpoint_has_a_card_a_recipe_and_a_small_file() -> None:
    shipped = sorted(path.stem for path in checkpoints.SHIPPED.glob("*.safetensors"))
    assert shipped == sorted(path.stem for path in checkpoints.SHIPPED.glob("*.json"))
    assert shipped
    for name in shipped:
        card = checkpoints.card(name)
        assert name in recipes.names()
        assert card.recipe == f"course_lib/recipes/{name.replace('-', '_')}.py"
        assert (checkpoints.SHIPPED / f"{name}.safetensors").stat().st_size < 20e6
        assert card.measures and card.limits and card.licence and card.data
        assert json.loads((checkpoints.SHIPPED / f"{name}.json").read_text())["name"] == name


def reel(frames: int = 3) -> checkpoints.Film:
    g = torch.Generator().manual_seed(0)
    pictures = torch.rand(frames, 2, 1, 4, 4, generator=g)
    losses = {"D's loss": torch.rand(9, generator=g), "G's loss": torch.rand(9, generator=g)}
    return checkpoints.Film(torch.tensor([0, 4, 9][:frames]), pictures, losses)


def test_a_film_comes_back_in_256_levels(folder: Path) -> None:
    recorded = reel()
    card = checkpoints.save(folder, "line", linear(), ABOUT, recorded)
    assert card.film_sha256
    found = checkpoints.film("line")
    assert found.steps.tolist() == [0, 4, 9]
    assert float((found.frames - recorded.frames).abs().max()) <= 0.5 / 255 + 1e-6
    for name, loss in recorded.losses.items():
        assert torch.allclose(found.losses[name], loss, atol=1e-3)


def test_no_film_and_a_damaged_film_are_named(folder: Path) -> None:
    checkpoints.save(folder, "line", linear(), ABOUT)
    with pytest.raises(ValueError, match="'line' has no film"):
        checkpoints.film("line")
    checkpoints.save(folder, "line", linear(), ABOUT, reel())
    path = folder / "line.film"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"line\.film has .* cut short or changed"):
        checkpoints.film("line")
    path.unlink()
    with pytest.raises(ValueError, match=r"line\.film has 0 bytes"):
        checkpoints.film("line")


def test_the_shipped_film_ends_with_what_the_checkpoint_draws() -> None:
    """The last frame is the finished generator's, on noise that the recipe names."""
    from course_lib.gans.networks import DCGANGenerator
    from course_lib.recipes import dcgan_digits as recipe

    film = checkpoints.film("dcgan-digits")
    generator = checkpoints.load("dcgan-digits", DCGANGenerator(recipe.LATENT, recipe.CHANNELS))
    card = checkpoints.card("dcgan-digits")
    z = torch.randn(recipe.FILMED, recipe.LATENT, generator=device.generator(card.seed + 20_000))
    with torch.no_grad():
        drawn = generator(z)
    assert int(film.steps[-1]) == card.steps == len(film.losses["G's loss"])
    assert float((film.frames[-1] - drawn).abs().max()) < 0.01


def test_an_unknown_recipe_lists_the_recipes(tmp_path: Path) -> None:
    fabric = device.launch(accelerator="cpu")
    with pytest.raises(ValueError, match="no recipe 'gold'; there are "):
        next(recipes.make("gold", tmp_path, fabric))


class Killed(BaseException):
    pass


def run_recipe(
    folder: Path, *, steps: int, kill_after: int | None = None
) -> list[recipes.Progress]:
    """The recipe of digits on few steps, killed in the middle of a step if asked."""
    fabric = device.launch(accelerator="cpu")
    seen = []
    for progress in recipes.make("dcgan-digits", folder, fabric, steps=steps):
        seen.append(progress)
        if progress.step == kill_after:
            raise Killed
    return seen


def weights(folder: Path) -> bytes:
    return (folder / "dcgan-digits.safetensors").read_bytes()


def test_a_run_that_was_killed_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "KEEP_EVERY", 0.0)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_recipe(whole, steps=12)
    for kill_after in (5, 11):
        with pytest.raises(Killed):
            run_recipe(cut, steps=12, kill_after=kill_after)
    assert not (cut / "dcgan-digits.json").exists()
    assert len(list(cut.glob(".dcgan-digits-*.state"))) == 1
    assert (cut / "dcgan-digits.png").stat().st_size > 0  # the samples of step 10
    torch.manual_seed(99)  # torch's own generator is part of the state, too
    seen = run_recipe(cut, steps=12)
    assert seen[0].resumed and seen[0].step == 11
    assert [p.step for p in seen[1:]] == [12, 12]  # the last carries the module
    assert weights(whole) == weights(cut)
    assert (whole / "dcgan-digits.film").read_bytes() == (cut / "dcgan-digits.film").read_bytes()
    assert not list(cut.glob(".dcgan*")) and not list(cut.glob("*.png"))  # nothing is left behind


def test_a_state_of_other_settings_is_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "KEEP_EVERY", 0.0)
    with pytest.raises(Killed):
        run_recipe(tmp_path, steps=9, kill_after=3)
    assert not run_recipe(tmp_path, steps=4)[0].resumed
    (state,) = tmp_path.glob(".dcgan-digits-*.state")
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cut short cannot be read.*delete it to begin anew"):
        run_recipe(tmp_path, steps=9)


def test_a_training_that_diverges_keeps_its_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from course_lib.gans.objectives import non_saturating
    from course_lib.recipes import dcgan_digits

    calls = 0

    def fails_at_last(fake: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return non_saturating.generator_loss(fake) * (float("nan") if calls > 4 else 1.0)

    broken = replace(non_saturating, generator_loss=fails_at_last)
    monkeypatch.setattr(dcgan_digits.objectives, "non_saturating", broken)
    monkeypatch.setattr(recipes, "KEEP_EVERY", 0.0)
    with pytest.raises(RuntimeError, match=r"diverged in step 5: .*g_loss=nan.*state is kept in"):
        run_recipe(tmp_path, steps=9)
    (state,) = tmp_path.glob(".dcgan-digits-*.state")
    kept = torch.load(state, weights_only=True)
    assert kept["step"] == 4
    assert all(bool(value.isfinite().all()) for value in kept["state"]["generator"].values())
    assert not (tmp_path / "dcgan-digits.safetensors").exists()
