"""The latent explorer: what a slider shows is what torch makes of that code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from playwright.sync_api import Page
from torch import nn

from course_lib import figures, pca
from course_lib.gans.networks import DCGANGenerator

PIXELS = """figure => { const canvas = figure.shadowRoot.querySelector('canvas');
  return Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data) }"""


def generator() -> DCGANGenerator:
    G = DCGANGenerator(6, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in G.parameters():  # far from the flat grey of fresh weights
            parameter.mul_(5)
    return G.eval()


def explorer(decoder: Any = None, k: int = 6, **options: Any) -> figures.Figure:
    return figures.latent_explorer(
        decoder or generator(),
        torch.ones(k),
        title="Six numbers, one picture",
        alt="A grey picture made by a generator from six numbers.",
        **{"sliders": 4, **options},
    )


def shown(page: Page, which: int = 0) -> torch.Tensor:
    """The picture's pixels, (3, H, W), 0 to 255."""
    figure = page.locator("course-figure").nth(which)
    raw = torch.tensor(figure.evaluate(PIXELS), dtype=torch.float32)
    height, width = figure.evaluate(
        "f => { const c = f.shadowRoot.querySelector('canvas'); return [c.height, c.width] }"
    )
    return raw.reshape(height, width, 4)[..., :3].permute(2, 0, 1)


def state(page: Page, name: str, which: int = 0) -> Any:
    return (
        page.locator("course-figure")
        .nth(which)
        .evaluate(
            f"f => {{ const v = f.state.{name}; return ArrayBuffer.isView(v) ? Array.from(v) : v }}"
        )
    )


def expect(page: Page, decoder: Any, which: int = 0) -> None:
    code = torch.tensor([state(page, "code", which)], dtype=torch.float32)
    with torch.no_grad():
        image = 255 * decoder(code)[0].clamp(0, 1)
    # Weights travel in half precision: a level or two of 255.
    assert float((shown(page, which) - image).abs().max()) <= 2.0


def test_slider_shows_what_torch_computes(show: Callable[..., Page]) -> None:
    decoder = generator()
    page = show(explorer(decoder))
    expect(page, decoder)
    before = shown(page)
    for label, value in (("number 1", 2.5), ("number 4", -1.75), ("number 1", -3.0)):
        page.get_by_label(label).fill(str(value))
        assert state(page, "code")[int(label[-1]) - 1] == pytest.approx(value)
        expect(page, decoder)
    assert float((shown(page) - before).abs().max()) > 20


def test_keyboard_alone(show: Callable[..., Page]) -> None:
    decoder = generator()
    page = show(explorer(decoder))
    page.keyboard.press("Tab")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert state(page, "code")[0] == pytest.approx(0.15)
    expect(page, decoder)
    for _ in range(4):  # the other sliders, then the walk
        page.keyboard.press("Tab")
    page.keyboard.press("End")
    expect(page, decoder)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    drawn_at_random = state(page, "code")
    assert len(drawn_at_random) == 6 and drawn_at_random[5] != 0
    expect(page, decoder)
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert state(page, "code") == [0.0] * 6


def test_random_is_the_same_for_every_reader_and_depends_on_the_seed(
    show: Callable[..., Page],
) -> None:
    page = show(explorer(), explorer(), explorer(seed=1))
    for i in range(3):
        page.get_by_role("button", name="Random").nth(i).click()
    assert state(page, "code", 0) == state(page, "code", 1) != state(page, "code", 2)


def test_figures_on_one_page_leave_each_other_alone(show: Callable[..., Page]) -> None:
    page = show(explorer(), explorer())
    other = shown(page, 1)
    page.get_by_label("number 2").nth(0).fill("3")
    expect(page, generator(), 0)
    assert torch.equal(shown(page, 1), other)


@pytest.mark.parametrize("spherical", [False, True])
def test_the_walk(page: Page, spherical: bool) -> None:
    g = torch.Generator().manual_seed(2)
    a, b = (
        torch.randn(5, generator=g, dtype=torch.float64),
        torch.randn(5, generator=g, dtype=torch.float64),
    )
    omega = torch.arccos((a @ b) / (a.norm() * b.norm()))
    for t in (0.0, 0.3, 1.0):
        found = page.evaluate(
            "([a, b, t, s]) => Array.from(course.mix(a, b, t, s))",
            [a.tolist(), b.tolist(), t, spherical],
        )
        u, v = (
            (1 - t, t)
            if not spherical
            else (
                torch.sin((1 - t) * omega) / torch.sin(omega),
                torch.sin(t * omega) / torch.sin(omega),
            )
        )
        assert torch.allclose(torch.tensor(found).double(), u * a + v * b, atol=1e-6)


def test_the_walk_from_the_middle_is_a_number(page: Page) -> None:
    """From the zero code there is no angle; the walk is then straight."""
    assert page.evaluate("Array.from(course.mix([0, 0], [1, 2], 0.5, true))")[1] == 1


def test_walk_moves_and_reduced_motion_jumps(show: Callable[..., Page]) -> None:
    page = show(explorer(), clock=True)
    way = page.get_by_label("from A to B")
    page.get_by_role("button", name="Walk").click()
    for milliseconds, place in ((0, 0), (400, 0.2), (600, 0.5), (1000, 1), (1000, 1)):
        page.clock.run_for(milliseconds)
        assert float(way.input_value()) == pytest.approx(place)
    assert state(page, "drawn") == 1 + 50
    still = show(explorer(), motion="reduce", clock=True)
    still.get_by_role("button", name="Walk").click()
    assert state(still, "drawn") == 2
    assert state(still, "code") == pytest.approx(state(page, "code"))


def test_changes_are_announced_once_a_second(show: Callable[..., Page]) -> None:
    page = show(explorer(), clock=True)
    live = page.locator("course-figure [aria-live=polite]")
    page.evaluate(
        "window.said = 0; new MutationObserver(() => window.said++).observe(document"
        ".querySelector('course-figure').shadowRoot.querySelector('[aria-live]'), {childList: true})"
    )
    for i in range(20):
        page.get_by_label("number 1").fill(str(round(0.1 * i, 2)))
    page.clock.run_for(999)
    assert page.evaluate("window.said") == 0
    page.clock.run_for(1)
    assert live.text_content() == "number 1 at 1.9"
    assert page.evaluate("window.said") == 1
    # However long the changes go on: a second after the first of a row comes the last of them.
    for i in range(20):
        page.get_by_label("number 2").fill(str(round(0.1 * i, 2)))
        page.clock.run_for(125)
    assert page.evaluate("window.said") == 1 + 2
    assert live.text_content() == "number 2 at 1.5"
    page.clock.run_for(5000)
    assert page.evaluate("window.said") == 1 + 3
    assert live.text_content() == "number 2 at 1.9"


def test_pca_in_colour(show: Callable[..., Page]) -> None:
    g = torch.Generator().manual_seed(0)
    model = pca.fit(torch.rand(30, 3, 8, 8, generator=g), k=3)
    with pytest.raises(figures.CannotRunError, match="depends on the values"):
        explorer(model.inverse, k=3, sliders=3, names=None).page()  # it looks for NaN
    page = show(
        figures.latent_explorer(
            lambda c: (model.mean + c @ model.components).reshape(-1, 3, 8, 8),
            model.explained_variance.sqrt(),
            title="Three components",
            alt="A coloured picture made from three components.",
        )
    )
    page.get_by_label("number 3").fill("-2")
    code = (
        torch.tensor([state(page, "code")], dtype=torch.float32) * model.explained_variance.sqrt()
    )
    image = 255 * model.inverse(code)[0].clamp(0, 1)
    assert float((shown(page) - image).abs().max()) <= 2.0


def test_kernel_and_page_give_the_same_answer(show: Callable[..., Page]) -> None:
    figure = explorer()
    page = show(figure)
    page.get_by_role("button", name="Random").click()
    answer = figure.answer("decode", code=state(page, "code"))["image"]
    assert isinstance(answer, torch.Tensor)
    assert float((shown(page)[0] - 255 * answer[0, 0].clamp(0, 1)).abs().max()) <= 2.0


@pytest.mark.parametrize("dark", [False, True])
def test_accessible_and_narrow(
    show: Callable[..., Page], violations: Callable[[Page], list[str]], dark: bool
) -> None:
    page = show(explorer(), width=390)
    if dark:
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        assert page.locator("course-figure").get_attribute("dark") is not None
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="scales: expected"):
        figures.latent_explorer(
            generator(), torch.zeros(6), title="t", alt="a picture that shows a digit"
        )
    with pytest.raises(ValueError, match=r"start: expected shape \(6,\)"):
        explorer(start=torch.zeros(5))
    with pytest.raises(ValueError, match="names: expected 4"):
        explorer(names=["a"])
    with pytest.raises(ValueError, match="decoder: expected images"):
        explorer(nn.Linear(6, 5).eval())
    with pytest.raises(ValueError, match="alt: expected a sentence"):
        figures.latent_explorer(generator(), torch.ones(6), title="t", alt="digit")
    with pytest.raises(figures.CannotRunError, match="layer_norm"):
        odd = nn.Sequential(nn.LayerNorm(6), generator()).eval()
        explorer(odd).page()
    explorer(nn.Sequential(nn.LayerNorm(6), generator()).eval()).answer("decode", code=[0.0] * 6)
