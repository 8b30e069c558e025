"""The figures' module in a browser with nothing around it."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, BrowserContext, Page

from course_lib.figures import Figure, bundle, figure

#: Everything the module defines that a test wants to call.
NAMES = (
    "Network, OPS, FIGURES, Random, attack, mix, softmax, unpack, mount, binomialTail, "
    "MLP, Duel, ganGame, bestJudge, modesKept"
)

#: Milliseconds after which what was waited for is missing. A busy machine is no defect: no test
#: may come near it.
PATIENCE = 300_000


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """``context(...)``: a browser that has seen nothing yet, closed after the module."""
    opened = []

    def open_context(**options: Any) -> BrowserContext:
        opened.append(browser.new_context(**options))
        opened[-1].set_default_timeout(PATIENCE)
        return opened[-1]

    yield open_context
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def page(context: Callable[..., BrowserContext]) -> Page:
    """A blank page where ``course`` holds the module's inner functions."""
    blank = context().new_page()
    blank.evaluate(
        "async text => await import(URL.createObjectURL(new Blob([text], {type: 'text/javascript'})))",
        f"{bundle.module()}\nwindow.course = {{ {NAMES} }};",
    )
    return blank


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address under which each test's ``tmp_path`` lies, by its name."""
    handler = functools.partial(_Quiet, directory=str(tmp_path_factory.getbasetemp()))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


_pictures: dict[str, dict[str, Any]] = {}


def picture(shown: Figure, content: dict[str, Any]) -> dict[str, Any]:
    """Draw a figure's picture, once for all figures that are alike: nothing takes longer."""
    key = json.dumps([content["element"], shown.alt])
    if key not in _pictures:
        _pictures[key] = shown.picture()
    return _pictures[key]


def page_with(folder: Path, *figures: Figure) -> None:
    """Write a page that shows nothing but these figures, as the built book does."""
    parts = []
    for shown in figures:
        content = shown.page()
        still = picture(shown, content)
        figure.write(content, folder / "_figures")
        parts.append(
            figure.opening(content, "_figures")
            + f'<img alt="{still["alt"]}" src="data:image/png;base64,{still["png"]}">'
            + figure.CLOSING
        )
    head = '<!doctype html><html lang="en"><meta name="viewport" content="width=device-width">'
    style = "<title>Figures</title><style>body { margin: 8px; } img { max-width: 100%; }</style>"
    body = f"<main><h1>Figures</h1>{''.join(parts)}</main></html>"
    (folder / "index.html").write_text(f"{head}{style}{body}", encoding="utf-8")


#: Whether every figure has started, or said why not.
STARTED = (
    "[...document.querySelectorAll('course-figure')]"
    ".every(f => f.hasAttribute('ready') || f.hasAttribute('failed'))"
)


@pytest.fixture(scope="module")
def tabs() -> list[Page]:
    """Tabs without a clock of their own, which the tests of a module use one after the other."""
    return []


@pytest.fixture
def show(
    context: Callable[..., BrowserContext], folders: str, tabs: list[Page], tmp_path: Path
) -> Iterator[Callable[..., Page]]:
    """``show(figure, ..., width=, motion=, wait=, clock=)``: a browser page with them, live.

    With ``clock`` the page's time stands still at 0; ``page.clock.run_for(milliseconds)`` moves it.
    """
    used: list[Page] = []
    clocked: list[BrowserContext] = []

    def open_page(
        *figures: Figure,
        width: int = 1000,
        motion: Literal["no-preference", "reduce"] = "no-preference",
        wait: bool = True,
        clock: bool = False,
    ) -> Page:
        page_with(tmp_path, *figures)
        if clock:
            clocked.append(context())
            # While there is no page: `install` and then `pause_at` would let real time in between.
            clocked[-1].clock.pause_at(0)
            opened = clocked[-1].new_page()
        else:
            # A new tab is a new process and takes longer than a test. What a test leaves in one goes
            # with its document, all but this.
            if len(used) == len(tabs):
                tabs.append(context().new_page())
            opened = tabs[len(used)]
            used.append(opened)
            opened.mouse.move(0, 0)
        opened.set_viewport_size({"width": width, "height": 900})
        opened.emulate_media(media="null", reduced_motion=motion)
        opened.goto(f"{folders}/{tmp_path.name}/")
        if wait:
            opened.wait_for_function(STARTED)
        return opened

    yield open_page
    for one in clocked:
        one.close()


@pytest.fixture
def violations() -> Callable[[Page], list[str]]:
    """``violations(page)``: what axe finds wrong. A page of figures alone needs no landmarks."""
    # To write down all that is right takes axe longer than to find what is wrong.
    options = {"rules": {"region": {"enabled": False}}, "resultTypes": ["violations"]}

    def find(page: Page) -> list[str]:
        found = Axe().run(page, options=options).response["violations"]
        return [f"{v['id']}: {node['html']}" for v in found for node in v["nodes"]]

    return find
