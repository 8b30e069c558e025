from __future__ import annotations

import base64
import io
import struct
import wave
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch

from course_lib import plots


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    calls: list[tuple[Any, Any]] = []
    monkeypatch.setattr(
        "IPython.display.display", lambda data, raw, metadata: calls.append((data, metadata))
    )
    return calls


def test_show_carries_its_alt_text_and_closes(displayed: list[tuple[Any, Any]]) -> None:
    figure, _ = plt.subplots()
    plots.show(figure, alt="A blue line\n   that goes up.")
    ((data, metadata),) = displayed
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == "A blue line that goes up."
    assert not plt.fignum_exists(figure.number)


def test_the_same_figure_is_the_same_bytes(displayed: list[tuple[Any, Any]]) -> None:
    for _ in range(2):
        figure, axis = plt.subplots()
        axis.plot([1, 2], [3, 4])
        plots.show(figure, alt="A line from one to two.")
    assert displayed[0] == displayed[1]


@pytest.mark.parametrize("alt", ["", "   ", "plot"])
def test_an_alt_text_that_says_nothing_is_refused(alt: str) -> None:
    figure, _ = plt.subplots()
    with pytest.raises(ValueError, match="alt: expected a sentence"):
        plots.show(figure, alt=alt)
    plt.close(figure)


def test_grid_shows_the_pixels_it_is_given() -> None:
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    figure = plots.grid(images, columns=2, titles=list("abcde"))
    shown = [axis.get_images()[0].get_array() for axis in figure.axes if axis.get_images()]
    assert len(shown) == 5
    for image, array in zip(images, shown, strict=True):
        assert torch.allclose(torch.as_tensor(array), image.permute(1, 2, 0))
    plt.close(figure)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 8, 8), r"shape \(N, 1 or 3, H, W\)"),
        (torch.rand(0, 1, 8, 8), "N > 0"),
        (torch.rand(2, 2, 8, 8), "1 or 3"),
        (torch.rand(2, 1, 8, 8) * 255, r"values in \[0, 1\]"),
        (torch.full((1, 1, 2, 2), float("nan")), r"values in \[0, 1\]"),
    ],
)
def test_grid_refuses(images: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plots.grid(images)


def test_grid_refuses_a_wrong_number_of_labels() -> None:
    with pytest.raises(ValueError, match="titles: expected 2, got 1"):
        plots.grid(torch.rand(2, 1, 4, 4), titles=["a"])


def test_a_sound_is_a_labelled_player_of_the_same_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, str]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: calls.append(data))
    x = torch.tensor([0.0, 0.5, -1.0, 1.0, 1e-5, 3.2 / 2**15])
    plots.sound(x, label='A click <said> "loud",\n  and a hiss.', rate=4000)
    (data,) = calls
    assert data["text/plain"] == '[Sound: A click <said> "loud", and a hiss.]'
    said = "A click &lt;said&gt; &quot;loud&quot;, and a hiss."
    assert f'aria-label="{said}"' in data["text/html"]
    assert f">{said}</div>" in data["text/html"]
    encoded = data["text/html"].split("data:audio/wav;base64,")[1].split('"')[0]
    with wave.open(io.BytesIO(base64.b64decode(encoded))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (4000, 1, 2)
        played = struct.unpack("<6h", file.readframes(6))
    assert list(played) == [0, 16384, -32768, 32767, 0, 3]


@pytest.mark.parametrize(
    ("x", "more", "message"),
    [
        (torch.zeros(2, 8), {}, r"x: expected a float sound of shape \(T,\)"),
        (torch.zeros(0), {}, "x: .* T > 0"),
        (torch.zeros(8, dtype=torch.int16), {}, "x: .* got torch.int16"),
        (torch.full((8,), 1.5), {}, r"x: expected values in \[-1, 1\]"),
        (torch.full((8,), float("nan")), {}, r"x: expected values in \[-1, 1\]"),
        (torch.zeros(8), {"rate": 0}, "rate: expected at least 1, got 0"),
        (torch.zeros(8), {"label": "hello"}, "label: expected a sentence"),
    ],
)
def test_a_sound_refuses(x: torch.Tensor, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plots.sound(x, **{"label": "A sound that is silent.", **more})


def test_glue_is_found_under_its_name(displayed: list[tuple[Any, Any]]) -> None:
    plots.glue(answer=0.25)
    ((data, metadata),) = displayed
    assert metadata["scrapbook"]["name"] == "answer"
    assert data == {"application/papermill.record/text/plain": "0.25"}


@pytest.mark.parametrize("value", [torch.tensor(1.0), True, None, [1], float("nan")])
def test_glue_refuses_what_prose_cannot_print(value: Any) -> None:
    with pytest.raises(ValueError, match="answer: expected"):
        plots.glue(answer=value)
