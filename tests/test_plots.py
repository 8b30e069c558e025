from __future__ import annotations

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


def test_glue_is_found_under_its_name(displayed: list[tuple[Any, Any]]) -> None:
    plots.glue(answer=0.25)
    ((data, metadata),) = displayed
    assert metadata["scrapbook"]["name"] == "answer"
    assert data == {"application/papermill.record/text/plain": "0.25"}


@pytest.mark.parametrize("value", [torch.tensor(1.0), True, None, [1], float("nan")])
def test_glue_refuses_what_prose_cannot_print(value: Any) -> None:
    with pytest.raises(ValueError, match="answer: expected"):
        plots.glue(answer=value)
