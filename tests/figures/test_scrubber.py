"""The training scrubber: each frame's pixels are the recording's, and the cursor stands at its step."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from playwright.sync_api import Locator, Page
from torch import Tensor

from course_lib import checkpoints, figures
from course_lib.figures import bundle, figure

STEPS = [0, 1, 5, 20, 100, 700]
PIXELS = """f => { const c = f.shadowRoot.querySelector('canvas');
  const {data} = c.getContext('2d').getImageData(0, 0, c.width, c.height);
  return [c.width, c.height, btoa(Array.from(data, v => String.fromCharCode(v)).join(''))] }"""


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def losses(total: int = 700) -> dict[str, Tensor]:
    g = noise(1)
    return {
        "D's loss": torch.rand(total, generator=g),
        "G's loss": 3 * torch.rand(total, generator=g) - 1,
    }


def film(frames: Tensor | None = None, **options: Any) -> figures.Figure:
    frames = torch.rand(6, 5, 1, 4, 3, generator=noise()) if frames is None else frames
    return figures.training_scrubber(
        options.pop("steps", STEPS),
        frames,
        options.pop("losses", losses()),
        title=options.pop("title", "A short film"),
        alt="Five small images of noise and two loss curves.",
        **options,
    )


def points(t: int = 6, n: int = 40) -> Tensor:
    return torch.randn(t, n, 2, generator=noise(2))


def shown(page: Page, which: int = 0) -> Locator:
    return page.locator("course-figure").nth(which)


def state(page: Page, name: str, which: int = 0) -> Any:
    return shown(page, which).evaluate(f"f => f.state.{name}")


def expect_images(page: Page, frame: Tensor, columns: int, which: int = 0) -> None:
    """Compare the canvas with (N, C, H, W), an image at a time, and the gaps with nothing."""
    width, height, raw = shown(page, which).evaluate(PIXELS)
    canvas = np.frombuffer(base64.b64decode(raw), dtype=np.uint8).reshape(height, width, 4)
    n, channels, h, w = frame.shape
    assert (width, height) == (columns * (w + 1) - 1, math.ceil(n / columns) * (h + 1) - 1)
    rest = canvas.copy()
    for i, image in enumerate((255 * frame).round().byte().numpy()):
        part = np.s_[i // columns * (h + 1) :, i % columns * (w + 1) :]
        found = canvas[part][:h, :w]
        grey = np.broadcast_to(image, (3, h, w)) if channels == 1 else image
        assert (found[..., :3] == grey.transpose(1, 2, 0)).all()
        assert (found[..., 3] == 255).all()
        rest[part][:h, :w] = 0
    assert not rest.any()


def cursor(page: Page, which: int = 0) -> tuple[float, float]:
    """Return the cursor's two horizontal ends, in steps, by the axis' own labels."""
    found = shown(page, which).evaluate(
        """f => { const svgs = [...f.shadowRoot.querySelectorAll('svg')], svg = svgs[svgs.length - 1];
          const line = svg.querySelector('line.ink');
          const ticks = [...svg.querySelectorAll('text[text-anchor=middle]')]
            .filter(t => t.textContent && Number.isFinite(+t.textContent))
            .map(t => [+t.getAttribute('x'), +t.textContent]);
          return [+line.getAttribute('x1'), +line.getAttribute('x2'), ticks] }"""
    )
    (left, zero), (right, one) = found[2][0], found[2][-1]
    x1, x2 = ((x - left) / (right - left) * (one - zero) + zero for x in found[:2])
    return x1, x2


@pytest.mark.parametrize("channels", [1, 3])
def test_every_frame_is_the_recordings(show: Callable[..., Page], channels: int) -> None:
    frames = torch.rand(6, 5, channels, 4, 3, generator=noise(channels))
    page = show(film(frames, columns=3))
    assert state(page, "index") == 5
    for index in (5, 0, 3, 1, 2, 4):
        page.get_by_label("step", exact=True).fill(str(index))
        assert state(page, "index") == index
        expect_images(page, frames[index], 3)
        assert cursor(page) == pytest.approx((STEPS[index], STEPS[index]), abs=1e-6)
        slider = page.get_by_role("slider")
        assert slider.get_attribute("aria-valuetext") == f"step {STEPS[index]} of 700"
        label = page.locator("course-figure canvas").get_attribute("aria-label") or ""
        assert label.endswith(f"step {STEPS[index]} of 700")


def test_curves_are_means_of_the_recorded_losses(show: Callable[..., Page]) -> None:
    """700 steps are drawn as means of three; the last of them has one step only."""
    recorded = losses()
    page = show(film(start=4, colours={"D's loss": "real", "G's loss": "fake"}))
    paths = shown(page).evaluate(
        """f => ['real', 'fake'].map(kind => f.shadowRoot.querySelector(`svg path.line.${kind}`)
          .getAttribute('d').slice(1).split('L').map(p => p.split(',').map(Number)))"""
    )
    values = [[float(part.mean()) for part in loss.split(3)] for loss in recorded.values()]
    low, high = min(map(min, values)), max(map(max, values))
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    box = shown(page).evaluate(
        "f => { const svg = f.shadowRoot.querySelector('svg'), l = svg.querySelector('line.ink');"
        " return [+l.getAttribute('y1'), +l.getAttribute('y2')] }"
    )
    for path, expected in zip(paths, values, strict=True):
        assert len(path) == 234 <= 300
        found = np.array(path)
        ys = box[0] + (np.array(expected) - low) / (high - low) * (box[1] - box[0])
        assert np.abs(found[:, 1] - ys).max() < 0.2
        steps = np.array([*range(2, 700, 3), 700])
        xs = 44 + steps / 700 * (340 - 54)
        assert np.abs(found[:, 0] - xs).max() <= 0.051
    # Step 100 is the first of the 34th three.
    caption = shown(page).locator("figcaption").nth(1).inner_text()
    for name, expected in zip(recorded, values, strict=True):
        assert f"{name} {expected[33]:.3g}" in caption.replace("\xa0", " ")
    assert "mean of 3 steps" in caption


def test_before_the_first_step_there_is_no_loss(show: Callable[..., Page]) -> None:
    page = show(film(start=0))
    figure_text = shown(page).locator("figcaption").nth(1).inner_text()
    assert "D's loss –" in figure_text
    dots = shown(page).locator("svg circle")
    assert [dots.nth(i).get_attribute("visibility") for i in range(2)] == ["hidden", "hidden"]
    page.get_by_label("step", exact=True).fill("1")
    assert [dots.nth(i).get_attribute("visibility") for i in range(2)] == ["visible", "visible"]


def test_points_are_where_they_were(show: Callable[..., Page]) -> None:
    frames, data = points(), torch.randn(30, 2, generator=noise(5))
    page = show(film(frames, data=data, limits=(-2.0, 2.0)))

    def drawn(kind: str) -> np.ndarray[Any, Any]:
        d = shown(page).evaluate(
            "(f, kind) => f.shadowRoot.querySelector('svg').querySelector(`path.line.${kind}`)"
            ".getAttribute('d')",
            kind,
        )
        return np.array(
            [[float(v) for v in p.split(",")] for p in d[1:].replace("h0", "").split("M")]
        )

    def expected(found: Tensor) -> np.ndarray[Any, Any]:
        inside = found[(found.abs() <= 2).all(dim=1)].numpy()
        # The chart: 340 by 330 with margins 44, 10, 10 and 34, so that both axes have one scale.
        return np.stack(
            [44 + (inside[:, 0] + 2) / 4 * 286, 10 + (2 - inside[:, 1]) / 4 * 286], axis=1
        )

    for index in (5, 0, 2):
        page.get_by_label("step", exact=True).fill(str(index))
        for kind, truth in (("fake", frames[index]), ("real", data)):
            assert np.abs(drawn(kind) - expected(truth)).max() <= 0.12
        outside = int((frames[index].abs() > 2).any(dim=1).sum())
        text = shown(page).locator("figcaption").first.inner_text()
        assert (f"{outside} of 40 lie outside" in text) == (outside > 0)
    assert shown(page).locator("figcaption").first.inner_text().startswith("real, generated: ")


def test_keyboard_alone(show: Callable[..., Page]) -> None:
    frames = torch.rand(6, 5, 1, 4, 3, generator=noise())
    page = show(film(frames, columns=3))
    page.keyboard.press("Tab")
    for key, index in (
        ("Home", 0),
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("End", 5),
    ):
        page.keyboard.press(key)
        assert state(page, "index") == index
        expect_images(page, frames[index], 3)
    page.keyboard.press("Tab")  # Play
    page.keyboard.press("Tab")  # First
    page.keyboard.press("Enter")
    assert state(page, "index") == 0
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert state(page, "index") == 5
    assert page.evaluate("document.activeElement.shadowRoot.activeElement.textContent") == "Last"


def test_plays_to_the_end_and_stops(show: Callable[..., Page]) -> None:
    page = show(film(start=2), clock=True)

    def expect_film(first: int) -> None:
        """Six frames a second from ``first`` on, looked at just before and after each change."""
        page.get_by_role("button", name="Play").click()
        now = 0
        for index in range(first, 6):
            assert (state(page, "index"), state(page, "playing")) == (index, index < 5)
            end = (index - first + 1) * 1000 // 6  # a frame's end is between two milliseconds
            page.clock.run_for(end - 1 - now)
            assert state(page, "index") == index
            page.clock.run_for(2)
            now = end + 1
        assert (state(page, "index"), state(page, "playing")) == (5, False)
        assert shown(page).get_by_role("button", name="Play").count() == 1

    expect_film(2)
    # At the end it begins anew.
    expect_film(0)


def test_pause_and_a_move_stop_the_film(show: Callable[..., Page]) -> None:
    steps = list(range(40))
    made = film(torch.rand(40, 2, 1, 3, 3, generator=noise()), steps=steps, start=0)
    page = show(made, clock=True)
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(450)
    assert state(page, "index") == 2
    page.get_by_role("button", name="Pause").click()
    page.clock.run_for(10_000)
    assert (state(page, "index"), state(page, "playing")) == (2, False)
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(450)
    assert (state(page, "index"), state(page, "playing")) == (4, True)
    page.get_by_label("step", exact=True).fill("20")
    page.clock.run_for(10_000)
    assert (state(page, "index"), state(page, "playing")) == (20, False)


def test_reduced_motion_is_one_frame_a_second(show: Callable[..., Page]) -> None:
    page = show(film(start=0), motion="reduce", clock=True)
    assert state(page, "playing") is False
    page.get_by_role("button", name="Play").click()
    for index in (1, 2, 3):
        page.clock.run_for(999)
        assert state(page, "index") == index - 1
        page.clock.run_for(1)
        assert state(page, "index") == index


def test_a_click_on_the_curves_goes_there(show: Callable[..., Page]) -> None:
    page = show(film())
    chart = shown(page).locator("svg").last
    box = chart.bounding_box()
    assert box is not None
    for step, index in ((110, 4), (690, 5), (30, 3), (400, 4), (401, 5)):
        x = (44 + step / 700 * 286) * box["width"] / 340
        chart.click(position={"x": x, "y": 50})
        assert state(page, "index") == index, step


def test_says_what_changed(show: Callable[..., Page]) -> None:
    page = show(film(), clock=True)
    page.get_by_label("step", exact=True).fill("3")
    page.clock.run_for(1000)
    said = shown(page).locator("[aria-live]").text_content() or ""
    assert said.startswith("Step 20 of 700. D's loss 0.")
    assert "cursor at step 20 of 700" in (
        shown(page).locator("svg").get_attribute("aria-label") or ""
    )


def test_the_chart_may_show_something_else(show: Callable[..., Page]) -> None:
    made = film(start=3, chart=("labels", "share read wrongly"))
    drawing = made.draw()
    assert drawing.axes[0].get_title(loc="left") == "labels 20 of 700"
    assert drawing.axes[1].get_xlabel() == "labels"
    assert drawing.axes[1].get_ylabel() == "share read wrongly"
    plt.close(drawing)
    page = show(made, clock=True)
    chart = shown(page).locator("svg").last
    texts = chart.locator("text").all_text_contents()
    assert {"labels", "share read wrongly"} <= set(texts)
    assert "Share read wrongly over 700 labels" in (chart.get_attribute("aria-label") or "")
    page.get_by_label("labels", exact=True).fill("2")
    assert state(page, "index") == 2
    page.clock.run_for(1000)  # with what is announced
    whole = shown(page).evaluate("f => f.shadowRoot.textContent")
    assert "Labels 5 of 700." in whole
    assert "labels 5 of 700" in whole and "mean of 3 labels" in whole
    assert "step" not in whole and "loss over" not in whole.lower()


def test_two_figures_do_not_disturb_each_other(show: Callable[..., Page]) -> None:
    a, b = (torch.rand(6, 4, 1, 4, 3, generator=noise(seed)) for seed in (7, 8))
    page = show(film(a, columns=2), film(b, columns=4), film(points()))
    page.get_by_label("step", exact=True).nth(1).fill("2")
    assert [state(page, "index", i) for i in range(3)] == [5, 2, 5]
    expect_images(page, a[5], 2, 0)
    expect_images(page, b[2], 4, 1)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1000, 390])
def test_accessible_and_fits(
    show: Callable[..., Page], violations: Callable[[Page], list[str]], theme: str, width: int
) -> None:
    wide = torch.rand(6, 12, 3, 32, 32, generator=noise())
    page = show(film(wide), film(points(), data=points(1)[0]), width=width)
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for locator in shown(page, 0).locator("canvas, svg").all():
        box = locator.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width


def test_the_shipped_film_fits(show: Callable[..., Page]) -> None:
    tape = checkpoints.film("dcgan-digits")
    made = figures.training_scrubber(
        tape.steps, tape.frames, tape.losses, title="A film", alt="Digits and two loss curves."
    )
    content = made.page()
    size = len(bundle.module()) + sum(len(base64.b64decode(v)) for v in content["files"].values())
    assert size <= figure.BUDGET
    assert made.spec["columns"] == 6
    page = show(made)
    for index in (20, 0, 11):
        page.get_by_label("step", exact=True).fill(str(index))
        expect_images(page, tape.frames[index], 6)
        step = int(tape.steps[index])
        assert cursor(page) == pytest.approx((step, step), abs=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_stands_still_costs_next_to_nothing(channels: int) -> None:
    """A film of one image repeated is hardly more than the image, and a moving one is what it was."""
    image = torch.rand(1, 2, channels, 32, 32, generator=noise())
    alone = len(
        next(iter(film(image.expand(2, -1, -1, -1, -1), steps=[0, 1]).page()["files"].values()))
    )
    still = film(image.expand(6, -1, -1, -1, -1)).page()["files"]
    assert len(next(iter(still.values()))) < 1.1 * alone
    moving = torch.rand(6, 2, channels, 32, 32, generator=noise(3))
    sent = film(moving).data["frames"].astype(int)
    if channels == 3:
        sent[:, :, [0, 2]] += sent[:, :, [1]]
    assert (sent.cumsum(axis=0) % 256 == (255 * moving).round().byte().numpy()).all()


def test_points_keep_twelve_bits_of_the_picture() -> None:
    frames = points(6, 2000)
    made = film(frames, limits=(-3.0, 3.0))
    assert np.abs(made.data["frames"] - frames.numpy()).max() <= 3 / 4096
    packed = sum(len(base64.b64decode(v)) for v in made.page()["files"].values())
    assert packed < 0.65 * frames.numel() * 4


def test_picture_without_javascript() -> None:
    frames = torch.rand(6, 5, 1, 4, 3, generator=noise())
    drawing = film(frames, columns=3, start=2).draw()
    pixels = np.asarray(drawing.axes[0].images[0].get_array())
    assert (pixels[5:9, 0:3, 0] == (255 * frames[2, 3, 0]).round().byte().numpy()).all()
    assert np.array_equal(drawing.axes[1].lines[2].get_xdata(), [5, 5])
    plt.close(drawing)
    assert [drawing.axes[1].get_xlabel(), drawing.axes[1].get_ylabel()] == ["step", "loss"]
    drawing = film(points(), data=points(1)[0], start=1).draw()
    assert len(drawing.axes[0].collections) == 2
    plt.close(drawing)


def test_columns_make_a_grid_about_three_by_two() -> None:
    for n, columns in ((1, 1), (6, 3), (16, 4), (24, 6), (54, 9)):
        frames = torch.rand(6, n, 1, 2, 2, generator=noise())
        assert film(frames).spec["columns"] == columns


NAN = torch.ones(700).index_fill(0, torch.tensor([41]), float("nan"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": [0, 1, 1, 20, 100, 700]}, "steps: expected at least 2, rising"),
        ({"steps": [0, 1, 5, 4, 100, 700]}, "steps: .* rising"),
        ({"steps": [-1, 1, 5, 20, 100, 700]}, "steps: .* from 0"),
        ({"steps": [0, 1, 5, 20, 100]}, "frames: expected 5, one per step; got 6"),
        ({"steps": [0, 1, 5, 20, 100, 701]}, "the losses end with step 700, the steps with 701"),
        ({"losses": {}}, "losses: expected at least one"),
        ({"losses": {"a": torch.ones(700), "b": torch.ones(701)}}, "losses: .* one shape"),
        ({"losses": {"a": torch.ones(700, 1)}}, r"losses: .* shape \(S,\)"),
        ({"losses": {"a": NAN}}, "losses: 'a' is nan at step 42"),
        ({"losses": {"a": NAN.nan_to_num(float("inf")) / 0}}, "losses: 'a' is inf at step 1"),
        ({"frames": torch.full((6, 5, 1, 4, 3), 1.5)}, r"frames: expected values in \[0, 1\]"),
        ({"frames": torch.full((6, 5, 1, 4, 3), float("nan"))}, "frames: expected values"),
        ({"frames": torch.zeros(6, 5, 2, 4, 3)}, "frames: expected shape"),
        ({"frames": torch.zeros(6, 5, 3)}, r"frames: expected images .* or points"),
        ({"frames": torch.full((6, 5, 2), float("inf"))}, "frames: expected finite points"),
        ({"frames": torch.zeros(6, 5, 2), "data": torch.zeros(5, 3)}, "data: expected shape"),
        ({"frames": torch.zeros(6, 5, 2), "limits": (1.0, 1.0)}, "limits: expected"),
        ({"limits": (0.0, 1.0)}, "are for points"),
        ({"columns": 6}, "columns: expected 1 to 5"),
        ({"start": 6}, "start: expected 0 to 5"),
        ({"colours": {"D's loss": "pink"}}, "colours: expected one of real"),
        ({"colours": {"no such": "real"}}, "colours: expected"),
        ({"fps": 0.5}, "fps: expected 1 to 30"),
        ({"fps": float("nan")}, "fps: expected"),
    ],
)
def test_wrong_input_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        film(**options)


def test_equal_points_and_losses_are_no_error() -> None:
    film(torch.zeros(6, 5, 2), losses={"a": torch.zeros(700)}).page()
