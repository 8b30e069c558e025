"""The ImageNet networks and the photographs: what is loaded, and what is said when it cannot be."""

from __future__ import annotations

import sys
import urllib.error
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from course_lib import attacks, data
from course_lib.attacks import imagenet
from course_lib.data.photographs import PHOTOGRAPHS, _square, _verified

SMALL = "squeezenet1_1"  # the smallest of torchvision's classifiers: a stand-in for the larger


@pytest.fixture(scope="module")
def lite0() -> imagenet.OnPixels:
    return imagenet.load()


@pytest.fixture(scope="module")
def small_state() -> dict[str, Tensor]:
    from torchvision import models  # type: ignore[import-untyped]

    torch.manual_seed(0)
    state: dict[str, Tensor] = models.get_model(SMALL, weights=None).state_dict()
    return state


# --- the photographs ------------------------------------------------------------------------------


def test_the_photographs_are_what_their_card_says() -> None:
    loaded = data.photographs()
    assert loaded.card is data.card("photographs")
    assert tuple(loaded.x.shape) == (loaded.card.splits["all"], *loaded.card.shape)
    assert float(loaded.x.min()) >= 0 and float(loaded.x.max()) <= 1
    assert set(loaded.card.full_sha256) == set(PHOTOGRAPHS)
    names = imagenet.labels()
    assert [names[i] for i in loaded.y] == ["espresso", "tabby", "missile"]
    assert torch.equal(loaded.x, data.photographs().x)


def test_a_photograph_is_its_middle_square_made_smaller(tmp_path: Path) -> None:
    wide = Image.new("RGB", (640, 448), (200, 0, 0))
    wide.paste((0, 0, 200), (96, 0, 544, 448))  # the middle square
    wide.save(tmp_path / "wide.png")
    square = torch.from_numpy(_square(tmp_path / "wide.png").copy())
    assert square.shape == (224, 224, 3)
    assert bool((square == torch.tensor([0, 0, 200])).all())


def test_photographs_that_are_missing_or_others_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="not there, or not the photograph"):
        _verified(tmp_path / "coffee.png")
    (tmp_path / "coffee.png").write_bytes(b"tea")
    with pytest.raises(FileNotFoundError, match="its SHA-256 differs"):
        _verified(tmp_path / "coffee.png")
    monkeypatch.setattr(sys.modules["course_lib.data.photographs"], "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"scikit-image.*course-lib\[imagenet\]"):
        data.photographs()


# --- the networks ---------------------------------------------------------------------------------


def test_the_classes_are_the_thousand_of_imagenet() -> None:
    names = imagenet.labels()
    assert len(names) == 1000
    for number, name in (
        (0, "tench"),
        (368, "gibbon"),
        (388, "giant panda"),
        (999, "toilet tissue"),
    ):
        assert names[number] == name


def test_lite0_reads_the_photographs(lite0: imagenet.OnPixels) -> None:
    photographs = data.photographs()
    with torch.no_grad():
        ranked = lite0(photographs.x).argsort(dim=1, descending=True)
    first_three = (ranked[:, :3] == photographs.y[:, None]).any(dim=1)
    assert first_three.tolist() == [True, True, True]
    assert int(ranked[0, 0]) == int(photographs.y[0])
    assert not lite0.training


def test_pixels_are_standardised_inside(lite0: imagenet.OnPixels) -> None:
    """Grey levels 127 and 255 are what the network was trained to see as 0 and 1."""
    seen: list[Tensor] = []

    class Eye(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.flatten(1)

    eye = imagenet.OnPixels(Eye(), imagenet.LITE0_MEAN, imagenet.LITE0_STD, 2)
    levels = torch.tensor([127.0, 255.0, 0.0, 191.0]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    eye(levels / 255)
    expected = torch.tensor([0.0, 1.0, -127 / 128, 0.5]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert torch.allclose(seen[0], expected, atol=1e-6)
    assert lite0.side == 224


def test_one_step_lowers_the_class_and_leaves_no_trace(lite0: imagenet.OnPixels) -> None:
    coffee = data.photographs().subset(torch.tensor([0]))
    before = {name: value.clone() for name, value in lite0.state_dict().items()}
    stepped = attacks.fgsm(lite0, coffee.x, coffee.y, 0.007)
    with torch.no_grad():
        p = lite0(torch.cat([coffee.x, stepped])).softmax(dim=1)[:, int(coffee.y)]
    assert float(p[1]) < float(p[0])
    assert float((stepped - coffee.x).abs().max()) <= 0.007 + 1e-6
    assert all(torch.equal(value, before[name]) for name, value in lite0.state_dict().items())
    assert all(q.grad is None for q in lite0.parameters())


@pytest.mark.parametrize("shape", [(1, 3, 225, 225), (1, 1, 224, 224), (3, 224, 224)])
def test_another_shape_is_refused(lite0: imagenet.OnPixels, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x: expected shape \(N, 3, 224, 224\)"):
        lite0(torch.zeros(shape))


def test_a_file_of_weights_becomes_the_network(
    tmp_path: Path, small_state: dict[str, Tensor]
) -> None:
    torch.save(small_state, tmp_path / "small.pth")
    model = imagenet.load(SMALL, weights=tmp_path / "small.pth")
    assert not model.training and model.side == 224
    found = model.network.state_dict()
    assert all(torch.equal(found[name], value) for name, value in small_state.items())
    assert torch.allclose(model.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)


def test_weights_come_by_way_of_torchvision(
    monkeypatch: pytest.MonkeyPatch, small_state: dict[str, Tensor]
) -> None:
    """The download itself is replaced; what is asked of it, and what becomes of it, is not."""
    asked: list[tuple[str, bool]] = []

    def answer(url: str, *_: object, check_hash: bool = False, **__: object) -> dict[str, Tensor]:
        asked.append((url, check_hash))
        return small_state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", answer)
    model = imagenet.load(SMALL)
    ((url, checked),) = asked
    assert SMALL in url and checked
    name, value = next(iter(small_state.items()))
    assert torch.equal(model.network.state_dict()[name], value)


@pytest.mark.parametrize(
    "failure",
    [urllib.error.URLError("no route to host"), RuntimeError('invalid hash value (expected "a")')],
)
def test_a_download_that_fails_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(
        OSError, match=r"weights of resnet50 could not be fetched \(.*Download .*pth"
    ):
        imagenet.load("resnet50")


def test_wrong_files_and_names_are_named(tmp_path: Path, small_state: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="name: expected efficientnet-lite0 or one of .*resnet50"):
        imagenet.load("resnet51")
    with pytest.raises(ValueError, match=r"weights: no file .*none\.pth"):
        imagenet.load(SMALL, weights=tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("these are no weights")
    with pytest.raises(ValueError, match="cannot be read as a state dict"):
        imagenet.load(SMALL, weights=tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="expected a state dict .*got list"):
        imagenet.load(SMALL, weights=tmp_path / "list.pth")
    torch.save(small_state, tmp_path / "small.pth")
    for name in ("efficientnet-lite0", "resnet18"):
        with pytest.raises(ValueError, match=f"weights: not those of {name}"):
            imagenet.load(name, weights=tmp_path / "small.pth")


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ModuleNotFoundError, match=r"course-lib\[imagenet\]"):
        imagenet.load()


def test_a_changed_file_in_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "LITE0_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="another SHA-256 than the published file"):
        imagenet.load()
