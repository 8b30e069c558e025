"""The figures' module in a browser with nothing around it."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from course_lib.figures import Figure, bundle, figure

#: Everything the module defines that a test wants to call.
NAMES = (
    "Network, OPS, FIGURES, Random, attack, mix, softmax, unpack, mount, binomialTail, "
    "MLP, Duel, ganGame, bestJudge, modesKept"
)


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """A blank page where ``course`` holds the module's inner functions."""
    blank = browser.new_page()
    blank.evaluate(
        "async text => await import(URL.createObjectURL(new Blob([text], {type: 'text/javascript'})))",
        f"{bundle.module()}\nwindow.course = {{ {NAMES} }};",
    )
    yield blank
    blank.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def page_with(folder: Path, *figures: Figure) -> None:
    """Write a page that shows nothing but these figures, as the built book does."""
    parts = []
    for shown in figures:
        content, picture = shown.page(), shown.picture()
        figure.write(content, folder / "_figures")
        parts.append(
            figure.opening(content, "_figures")
            + f'<img alt="{picture["alt"]}" src="data:image/png;base64,{picture["png"]}">'
            + figure.CLOSING
        )
    head = '<!doctype html><html lang="en"><meta name="viewport" content="width=device-width">'
    style = "<title>Figures</title><style>body { margin: 8px; } img { max-width: 100%; }</style>"
    body = f"<main><h1>Figures</h1>{''.join(parts)}</main></html>"
    (folder / "index.html").write_text(f"{head}{style}{body}", encoding="utf-8")


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """``show(figure, ..., width=, scheme=, motion=)``: a browser page with them, live."""
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    contexts = []

    def open_page(
        *figures: Figure, width: int = 1000, motion: str = "no-preference", wait: bool = True
    ) -> Page:
        page_with(tmp_path, *figures)
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            reduced_motion=motion,  # type: ignore[arg-type]
        )
        contexts.append(context)
        opened = context.new_page()
        opened.goto(f"http://127.0.0.1:{server.server_address[1]}/")
        if wait:
            opened.wait_for_function(
                "[...document.querySelectorAll('course-figure')]"
                ".every(f => f.hasAttribute('ready') || f.hasAttribute('failed'))"
            )
        return opened

    yield open_page
    for context in contexts:
        context.close()
    server.shutdown()
    server.server_close()
