"""Live figures on the built site: they load where they are, and show what torch computes."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlparse

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page

from course_lib import attacks, checkpoints, classifiers
from course_lib.figures.figure import BUDGET
from course_lib.gans.networks import DCGANGenerator
from course_lib.publish import build

#: Where each kind of figure is shown.
SHOWN = {
    "latent_explorer": ["represent/pca.html", "generate/two_player_game.html"],
    "fgsm_explorer": ["deceive/small_step.html"],
    "gan_game": ["generate/two_player_game.html"],
    "training_scrubber": ["generate/two_player_game.html"],
    "spot_the_fake": ["welcome/arms_race.html"],
    "operating_point": ["detect/first_detector.html"],
}
PAGES = sorted({page for pages in SHOWN.values() for page in pages})


#: Milliseconds after which what was waited for is missing: more than any busy machine needs.
PATIENCE = 300_000


def opened(browser: Browser, url: str, **options: Any) -> tuple[BrowserContext, Page, list[Any]]:
    context = browser.new_context(reduced_motion="reduce", **options)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    responses: list[Any] = []
    page.on("response", lambda response: responses.append(response))
    page.goto(url)
    return context, page, responses


def live(page: Page) -> list[Locator]:
    """Scroll to every figure of the page and wait until it has started."""
    found = page.locator("course-figure").all()
    for figure in found:
        # Again and again: formulas above that are drawn only now may push it out of sight.
        page.wait_for_function(
            "f => f.hasAttribute('ready') || f.hasAttribute('failed')"
            " || void f.scrollIntoView({ behavior: 'instant' })",
            arg=figure.element_handle(),
        )
        assert figure.get_attribute("failed") is None, figure.inner_text()
    return found


def state(figure: Locator, name: str) -> Any:
    return figure.evaluate(
        f"f => {{ const v = f.state.{name}; return ArrayBuffer.isView(v) ? Array.from(v) : v }}"
    )


def canvas(figure: Locator, selector: str) -> torch.Tensor:
    raw, height, width = figure.evaluate(
        "(f, selector) => { const c = f.shadowRoot.querySelector(selector); return [Array.from(c"
        ".getContext('2d').getImageData(0, 0, c.width, c.height).data), c.height, c.width] }",
        selector,
    )
    return torch.tensor(raw, dtype=torch.float32).reshape(height, width, 4)[..., 0]


@pytest.mark.parametrize("kind", SHOWN)
def test_each_kind_is_where_a_chapter_needs_it(kind: str) -> None:
    for page in SHOWN[kind]:
        text = (build.html() / page).read_text(encoding="utf-8")
        assert f'"kind": "{kind}"' in text, page


def test_a_page_without_figures_loads_nothing_of_them(page_name: str) -> None:
    text = (build.html() / page_name).read_text(encoding="utf-8")
    assert ("_figures/" in text) == ("<course-figure>" in text)


@pytest.mark.parametrize("where", PAGES)
def test_figures_start_when_they_are_reached_and_stay_small(
    browser: Browser, address: str, where: str
) -> None:
    context, page, responses = opened(browser, address + where)
    figures = live(page)
    assert figures
    sent = {
        urlparse(r.url).path.split("/")[-1]: len(r.body())
        for r in responses
        if "_figures/" in r.url
    }
    text = (build.html() / where).read_text(encoding="utf-8")
    for element in re.findall(
        r'_figures/([\w.]+\.mjs)"></script><course-figure>(.*?)</script>', text
    ):
        module, spec = element
        files = re.findall(r'"name": "([\w.]+\.bin)"', spec)
        assert sent[module] + sum(sent[name] for name in files) <= BUDGET
    assert {urlparse(r.url).netloc for r in responses} <= {urlparse(address).netloc, ""}
    context.close()


@pytest.mark.parametrize("where", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_and_narrow_when_alive(
    browser: Browser, address: str, where: str, scheme: Any
) -> None:
    context, page, _ = opened(
        browser,
        address + where,
        viewport={"width": 390, "height": 800},
        color_scheme=scheme,
    )
    for figure in live(page):
        assert (figure.get_attribute("dark") is not None) == (scheme == "dark")
    found = Axe().run(page, context={"include": [["course-figure"]]}).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []
    assert page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    context.close()


@pytest.mark.parametrize("where", PAGES)
def test_without_javascript_there_is_a_picture(browser: Browser, address: str, where: str) -> None:
    context, page, _ = opened(browser, address + where, java_script_enabled=False)
    for picture in page.locator("course-figure img").all():
        picture.scroll_into_view_if_needed()
        assert picture.is_visible()
        assert len(picture.get_attribute("alt") or "") > 30
    context.close()


def test_fgsm_on_the_page_is_torchs(browser: Browser, address: str) -> None:
    context, page, _ = opened(browser, address + "deceive/small_step.html")
    (figure,) = live(page)
    model = checkpoints.load("digit-net", classifiers.DigitNet()).double()
    for eps in (0.06, 0.15):
        figure.get_by_label("epsilon: how far each pixel may move").fill(str(eps))
        x = (canvas(figure, ".pictures figure:nth-child(1) canvas") / 255).double()[None, None]
        expected = attacks.fgsm(model, x, torch.tensor([7]), eps)
        seen = canvas(figure, ".pictures figure:nth-child(3) canvas")
        assert float((seen - 255 * expected[0, 0]).abs().max()) <= 1.0
        with torch.no_grad():
            assert state(figure, "read") == int(model(expected).argmax())
    context.close()


def test_the_generator_on_the_page_is_torchs(browser: Browser, address: str) -> None:
    context, page, _ = opened(browser, address + "generate/two_player_game.html")
    live(page)
    figure = page.locator("course-figure").filter(has_text="Thirty-two numbers")
    generator = checkpoints.load("dcgan-digits", DCGANGenerator(32, 32))
    for label, value in (("z1", 2.0), ("z7", -1.5)):
        figure.get_by_label(label, exact=True).fill(str(value))
        with torch.no_grad():
            image = generator(torch.tensor([state(figure, "code")], dtype=torch.float32))[0, 0]
        # Weights travel in half precision.
        assert float((canvas(figure, "canvas") - 255 * image.clamp(0, 1)).abs().max()) <= 2.0
    context.close()
