"""Every page: opens without an error, asks no other host, is accessible, and fits a telephone."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urljoin, urlparse
from urllib.request import urlopen

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from course_lib.publish import build, chapters, site

Scheme = Literal["light", "dark"]
WIDE, NARROW = 1280, 390

#: sphinx-thebe declares one constant in two scripts; harmless, and known upstream.
KNOWN_ERRORS = re.compile(r"'THEBE_JS_URL' has already been declared")


@dataclass
class Visit:
    page: Page
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)


def visit(browser: Browser, url: str, width: int = WIDE, scheme: Scheme = "light") -> Visit:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    found = Visit(context.new_page())
    found.page.on(
        "console",
        lambda message: found.errors.append(message.text) if message.type == "error" else None,
    )
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    found.page.on("request", lambda request: found.hosts.add(urlparse(request.url).netloc))
    found.page.on(
        "response",
        lambda response: (
            found.failed.append(f"{response.status} {response.url}")
            if response.status >= 400
            else None
        ),
    )
    found.page.goto(url, wait_until="load")
    found.page.wait_for_load_state("networkidle")
    if found.page.locator("script[src*=mathjax]").count():
        found.page.wait_for_function("window.MathJax?.startup?.promise !== undefined")
        found.page.evaluate("window.MathJax.startup.promise")
    return found


def test_every_chapter_has_its_page() -> None:
    for chapter in chapters.chapters():
        assert (build.html() / f"{chapter.name}.html").is_file(), chapter.name


@pytest.fixture(scope="module")
def wide(browser: Browser, address: str, page_name: str) -> Iterator[Visit]:
    found = visit(browser, address + page_name, WIDE, "light")
    yield found
    found.page.context.close()


@pytest.fixture(scope="module")
def narrow(browser: Browser, address: str, page_name: str) -> Iterator[Visit]:
    found = visit(browser, address + page_name, NARROW, "dark")
    yield found
    found.page.context.close()


def test_opens_without_errors_and_asks_no_other_host(wide: Visit, address: str) -> None:
    assert [error for error in wide.errors if not KNOWN_ERRORS.search(error)] == []
    assert wide.failed == []
    assert wide.hosts <= {urlparse(address).netloc, ""}


def test_formulas_are_drawn(browser: Browser, address: str) -> None:
    found = visit(browser, address + "generate/two_player_game.html")
    assert found.page.locator("mjx-container").count() > 3
    assert found.page.locator("mjx-merror").count() == 0
    found.page.context.close()


def test_pictures_have_alt_text_and_load(wide: Visit) -> None:
    images: list[dict[str, Any]] = wide.page.evaluate(
        "[...document.querySelectorAll('article img')].map(i =>"
        " ({alt: i.alt, src: i.getAttribute('src'), width: i.naturalWidth}))"
    )
    for image in images:
        assert len(image["alt"].strip()) >= 10, image
        assert "_images/" not in image["alt"], image
        assert image["width"] > 0 or image["src"].endswith(".svg"), image


#: What passed is not of interest, and takes longer to write down than to find.
ONLY_VIOLATIONS = {"resultTypes": ["violations"]}

#: Turns coloured words of code into plain ones, but for the first of each kind.
ONE_OF_EACH = """() => {
  const seen = new Set();
  for (const word of [...document.querySelectorAll(".highlight span:not(:has(*))")]) {
    const kind = `${word.className} in ${word.closest(".highlight").parentElement.className}`;
    if (seen.has(kind)) word.replaceWith(word.textContent); else seen.add(kind);
  }
}"""


def serious(page: Page) -> list[str]:
    """Return what axe finds wrong; the page has lost most colours of its code afterwards.

    Words of one kind have one colour, a chapter has thousands, and to measure the contrast of each
    was most of what these tests cost.
    """
    page.evaluate(ONE_OF_EACH)
    return [
        f"{violation['id']}: {node['html'][:200]} ({node.get('failureSummary', '')[:200]})"
        for violation in Axe().run(page, options=ONLY_VIOLATIONS).response["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def test_fits_a_telephone(narrow: Visit) -> None:
    overflow = narrow.page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow <= 0


#: Words in tables that stand on more than one line; addresses, code and formulas are no words.
BROKEN_WORDS = """() => {
  const broken = [];
  for (const cell of document.querySelectorAll("article th, article td")) {
    const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    for (let text; (text = texts.nextNode());) {
      if (text.parentElement.closest("code, pre, a[href^=http], mjx-container, .math")) continue;
      for (const word of text.data.matchAll(/\\p{L}+/gu)) {
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        const lines = new Set([...range.getClientRects()].map(box => Math.round(box.top)));
        if (lines.size > 1) broken.push(word[0]);
      }
    }
  }
  return broken;
}"""


def test_no_word_of_a_table_is_broken_on_a_telephone(narrow: Visit) -> None:
    assert narrow.page.evaluate(BROKEN_WORDS) == []


def test_the_bar_of_a_box_is_as_wide_as_the_box(wide: Visit) -> None:
    short = wide.page.evaluate(
        """() => [...document.querySelectorAll("article .admonition > .admonition-title")]
            .filter(bar => bar.checkVisibility())
            .filter(bar => bar.offsetWidth < bar.parentElement.clientWidth - 1)
            .map(bar => bar.textContent)"""
    )
    assert short == []


def test_accessible_wide_and_light(wide: Visit) -> None:
    assert serious(wide.page) == []


def test_accessible_narrow_and_dark(narrow: Visit) -> None:
    assert serious(narrow.page) == []


@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "dark"), (NARROW, "light")])
def test_a_chapter_is_accessible_in_the_other_two_ways(
    browser: Browser, address: str, width: int, scheme: Scheme
) -> None:
    """Widths and colours are the same on every page, so that one stands for the rest."""
    found = visit(browser, address + "represent/pca.html", width, scheme)
    assert serious(found.page) == []
    found.page.context.close()


def test_links_within_the_site_lead_somewhere(page_name: str) -> None:
    text = (build.html() / page_name).read_text(encoding="utf-8")
    for target in re.findall(r'(?:href|src)="([^"#?]+)[^"]*"', text):
        if urlparse(target).scheme or target.startswith("//"):
            continue
        path = Path(urlparse(urljoin(f"http://x/{page_name}", target)).path.lstrip("/"))
        full = build.html() / path
        assert full.exists(), f"{page_name} links to {target}"


def test_numbers_in_the_prose_were_filled_in(page_name: str) -> None:
    text = (build.html() / page_name).read_text(encoding="utf-8")
    assert "glue:text" not in text


@pytest.mark.parametrize(
    "chapter", [c for c in chapters.chapters() if c.executed], ids=lambda c: str(c.name)
)
class TestChapters:
    def test_download_button_gives_a_notebook(
        self, address: str, chapter: chapters.Chapter
    ) -> None:
        page = f"{address}{chapter.name}.html"
        with urlopen(page) as response:
            button = re.search(r'<a\s[^>]*href="([^"]+\.ipynb)"', response.read().decode("utf-8"))
        assert button is not None
        with urlopen(urljoin(page, html.unescape(button[1]))) as response:
            nb = nbformat.reads(response.read().decode("utf-8"), as_version=4)
        nbformat.validate(nb)
        first = next(cell for cell in nb.cells if cell.cell_type == "code")
        assert site.requirement() in first.source
        # Every number of the prose is in the notebook as well.
        assert "…" not in "".join(c.source for c in nb.cells if c.cell_type == "markdown")

    def test_colab_button_where_the_repository_is_known(self, chapter: chapters.Chapter) -> None:
        text = (build.html() / f"{chapter.name}.html").read_text(encoding="utf-8")
        link = site.colab(chapter.name)
        assert link in text if link else "colab.research" not in text

    def test_says_how_long_it_takes(self, chapter: chapters.Chapter) -> None:
        text = (build.html() / f"{chapter.name}.html").read_text(encoding="utf-8")
        assert re.search(r"\d+ minutes to read · \d+ seconds to run", text)

    def test_no_exercise_says_right_before_anything_was_done(
        self, chapter: chapters.Chapter
    ) -> None:
        text = (build.html() / f"{chapter.name}.html").read_text(encoding="utf-8")
        assert [line for line in first_lines(text) if SAYS_RIGHT.match(line)] == []


def test_the_times_that_are_promised_are_those_of_the_pages() -> None:
    def text(path: Path) -> str:
        return " ".join(path.read_text(encoding="utf-8").split())

    told = {
        re.search(r"Most chapters take (\d+) to (\d+) minutes", text(path))
        for path in (chapters.root() / "README.md", chapters.root() / "book" / "index.md")
    }
    (least, most), *others = {tuple(map(int, found.groups())) for found in told if found}
    assert None not in told and not others
    pages = [build.html() / f"{page.name}.html" for page in chapters.chapters() if page.executed]
    minutes = [
        int(found[1])
        for found in (re.search(r"(\d+) minutes to read", text(page)) for page in pages)
        if found
    ]
    within = [value for value in minutes if least <= value <= most]
    assert len(within) >= 0.8 * len(minutes) > 0, sorted(minutes)


#: A verdict that says yes, with what some chapters put before it.
SAYS_RIGHT = re.compile(r"((yours|as it stands): *)?(all )?right\b", re.IGNORECASE)


def first_lines(text: str) -> list[str]:
    """Return the first line that each cell after the heading "Exercises" prints on a page."""
    _, heading, exercises = text.partition('<section id="exercises">')
    assert heading, "no heading Exercises"
    streams = [
        re.search(r'class="output stream\b.*?<pre[^>]*>(.*?)</pre>', cell, re.DOTALL)
        for cell in exercises.split('class="cell_output')[1:]
    ]
    printed = [html.unescape(re.sub(r"<[^>]+>", "", found[1])) for found in streams if found]
    return [lines.strip().partition("\n")[0] for lines in printed]


@pytest.mark.parametrize(
    ("printed", "says_right"),
    [
        ("<span></span>Right.\nAUC at 0.01: 0.88", True),
        ("right, and stable", True),
        ("all right", True),
        ("yours:  Right: orthonormal.", True),
        ("as it stands:  Right.", True),
        ("yours:  Divide by N &lt; 5.\nworked: Right.", False),
        ("The values are right; the gradient is 0.", False),
        ("The right way, but too far.", False),
        ("discriminator: right for small logits, but inf", False),
    ],
)
def test_what_says_right_at_once(printed: str, says_right: bool) -> None:
    def cell(text: str) -> str:
        return (
            '<div class="cell_output docutils container"><div class="output stream highlight-none">'
            f'<div class="highlight"><pre>{text}\n</pre></div></div></div>'
        )

    page = cell("Right: before.") + '<section id="exercises">' + cell("Not yet.") + cell(printed)
    lines = first_lines(page)
    assert lines == ["Not yet.", re.sub("<.*?>", "", html.unescape(printed)).splitlines()[0]]
    assert [bool(SAYS_RIGHT.match(line)) for line in lines] == [False, says_right]


def test_search_finds_a_chapter(browser: Browser, address: str) -> None:
    found = visit(browser, address + "search.html?q=eigenfaces")
    found.page.wait_for_selector("#search-results li a")
    links = found.page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    assert any("represent/pca" in link for link in links), json.dumps(links)
    found.page.context.close()


def test_keyboard_reaches_the_text(browser: Browser, address: str) -> None:
    found = visit(browser, address + "index.html")
    found.page.keyboard.press("Tab")
    assert "Skip to main content" in found.page.evaluate("document.activeElement.textContent")
    found.page.context.close()
