"""This book's part of Sphinx: alt text, live figures, measured times, buttons that work, cards.

Everything here is what Jupyter Book does not do by itself. Nothing here knows a chapter's subject.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_nb.core.render import MimeData, MimeRenderPlugin, NbElementRenderer
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from course_lib.figures import figure
from course_lib.publish import cache, site

LOGGER = logging.getLogger(__name__)

#: Words a minute that a careful reader manages in a technical text (Brysbaert 2019 gives 238 for
#: English non-fiction; formulas and figures take longer), and seconds for a figure or a formula.
WORDS_PER_MINUTE = 150
SECONDS_PER_FIGURE = 20
SECONDS_PER_CODE_LINE = 2


class AltTextImages(MimeRenderPlugin):  # type: ignore[misc]
    """Give an output image the alt text that ``plots.show`` put into its metadata."""

    mime_priority_overrides = ()

    @staticmethod
    def handle_mime(
        renderer: NbElementRenderer, data: MimeData, inline: bool
    ) -> list[nodes.Element] | None:
        """Render ``image/png`` with its alt text; leave every other type to MyST-NB."""
        alt = data.output_metadata.get("image/png", {}).get("alt")
        if data.mime_type != "image/png" or not alt:
            return None
        rendered: list[nodes.Element] = renderer.render_image(data)
        for node in rendered:
            node["alt"] = alt
            # The width is where the figure is drawn at; the height follows on a narrow screen.
            node.attributes.pop("height", None)
        return rendered


class live_figure(nodes.General, nodes.Element):  # type: ignore[misc]  # noqa: N801
    """A live figure: what ``Figure.page`` returned, around its picture."""


class LiveFigures(MimeRenderPlugin):  # type: ignore[misc]
    """Put a figure of ``course_lib.figures`` on the page as a custom element around its picture."""

    mime_priority_overrides = (("*", figure.MIME, 1),)

    @staticmethod
    def handle_mime(
        renderer: NbElementRenderer, data: MimeData, inline: bool
    ) -> list[nodes.Element] | None:
        """Render a live figure; leave every other type to the others."""
        if data.mime_type != figure.MIME:
            return None
        page = json.loads(data.content)
        picture = page["picture"]
        image = MimeData(
            "image/png",
            picture["png"],
            cell_metadata=data.cell_metadata,
            output_metadata={"image/png": picture},
            line=data.line,
        )
        node = live_figure(page=page)
        node += AltTextImages.handle_mime(renderer, image, inline) or []
        return [node]


def _visit_live_figure(translator: Any, node: live_figure) -> None:
    # Written with the page, not when the chapter is read: a page may be written again from what
    # was read before, into a folder that has been emptied.
    builder = translator.builder
    figure.write(node["page"], Path(builder.outdir) / "_figures")
    up = "../" * builder.current_docname.count("/")
    translator.body.append(figure.opening(node["page"], f"{up}_figures"))


def _depart_live_figure(translator: Any, node: live_figure) -> None:
    translator.body.append(figure.CLOSING)


def _only_its_picture(translator: Any, node: live_figure) -> None:
    """On paper a live figure is the picture inside it."""


def _check_alt_text(app: Sphinx, doctree: nodes.document) -> None:
    for image in doctree.findall(nodes.image):
        if not str(image.get("alt", "")).strip():
            LOGGER.warning(
                "an image without alt text: show figures with plots.show(figure, alt=...), and "
                "give {image} and {figure} an :alt:",
                location=image,
                type="course",
                subtype="alt",
            )


def reading_minutes(doctree: nodes.document) -> int:
    """Estimate the minutes it takes to read a page with its code, formulas and figures.

    What is folded until the reader opens it (code that draws, hints, solutions) does not count.
    """
    words = lines = pictures = 0
    for node in _unfolded(doctree):
        parent = node.parent
        if isinstance(node, nodes.image | nodes.math_block):
            pictures += 1
        elif not isinstance(node, nodes.Text):
            continue
        elif isinstance(parent, nodes.literal_block):
            lines += len(node.splitlines())
        elif not isinstance(parent, nodes.math | nodes.math_block | nodes.comment | nodes.raw):
            words += len(node.split())
    seconds = (
        words * 60 / WORDS_PER_MINUTE
        + pictures * SECONDS_PER_FIGURE
        + lines * SECONDS_PER_CODE_LINE
    )
    return max(1, round(seconds / 60))


def _unfolded(node: nodes.Node) -> Iterator[nodes.Node]:
    """Return a node and all below it that a page shows as it opens."""
    if isinstance(node, nodes.Element) and _is_folded(node):
        return
    yield node
    for child in node.children:
        yield from _unfolded(child)


def _is_folded(node: nodes.Element) -> bool:
    if node.get("design_component") == "dropdown":
        return not node.get("opened")
    if "dropdown" in node["classes"]:
        return "toggle-shown" not in node["classes"]
    # MyST-NB folds the one half of a cell or both, and says so on the cell around them.
    half = {"cell_code_source": "input", "cell_code_output": "output"}.get(
        node.get("nb_element", "")
    )
    mode = node.parent.get("hide_mode") if half and node.parent is not None else None
    return bool(half and mode and (mode == "all" or half in mode.split("+")))


def _executed(app: Sphinx, docname: str) -> dict[str, Any] | None:
    """What MyST-NB knows of a page's execution, or ``None`` for a page with no cells."""
    found: dict[str, Any] | None = NbMetadataCollector.get_exec_data(app.env, docname)
    return found


def _inject_times(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    executed = _executed(app, docname)
    title = next(doctree.findall(nodes.title), None)
    if title is None or not executed or not executed.get("runtime"):
        return
    minutes = app.env.metadata[docname].get("reading_minutes", 1)
    text = (
        f"{minutes} minutes to read · {executed['runtime']:.0f} seconds to run on the machine that "
        f"built this page ({os.cpu_count()} CPU cores)"
    )
    paragraph = nodes.paragraph("", text, classes=["course-times"])
    title.parent.insert(title.parent.index(title) + 1, paragraph)


def _measure_reading(app: Sphinx, doctree: nodes.document) -> None:
    app.env.metadata[app.env.docname]["reading_minutes"] = reading_minutes(doctree)


class Cards(SphinxDirective):
    """``{course-cards} data`` or ``{course-cards} models``: the cards, read from the package."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse every card's Markdown in place."""
        from course_lib import checkpoints, data

        kind = self.arguments[0]
        if kind == "data":
            texts = [card.to_markdown() for card in data.cards()]
        elif kind == "models":
            texts = [checkpoints.card(name).to_markdown() for name in checkpoints.names()]
        else:
            raise self.error(f"course-cards: expected data or models, got {kind}")
        return self.parse_text_to_nodes("\n\n".join(texts), allow_section_headings=True)


def _buttons(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Offer the notebook, the Colab link and print, instead of links to the Markdown source."""
    if not _executed(app, pagename):
        context["header_buttons"] = [
            button
            for button in context.get("header_buttons", [])
            if button["label"] != "download-buttons"
        ]
        return
    up = context["pathto"]("", resource=True)
    downloads = [
        {
            "type": "link",
            "url": f"{up}notebooks/{pagename}.ipynb",
            "text": "Notebook (.ipynb)",
            "tooltip": "Download this chapter as a notebook",
            "icon": "fas fa-download",
            "label": "download-notebook-button",
        },
        {
            "type": "javascript",
            "javascript": "window.print()",
            "text": "Print or PDF",
            "tooltip": "Print this page or save it as a PDF",
            "icon": "fas fa-file-pdf",
            "label": "download-pdf-button",
        },
    ]
    if colab := site.colab(pagename):
        downloads.insert(
            1,
            {
                "type": "link",
                "url": colab,
                "text": "Open in Colab",
                "tooltip": "Run this chapter on Google Colab",
                "icon": "fas fa-rocket",
                "label": "colab-button",
            },
        )
    for button in context.get("header_buttons", []):
        if button["label"] == "download-buttons":
            button["buttons"] = downloads
            button["tooltip"] = "Run or download this chapter"


def _mend(html: str) -> str:
    """Mend what axe finds in the theme's and in bibtex's HTML and no template lets us reach."""
    # sphinxcontrib-bibtex marks up its list as an ARIA list whose children are no list items.
    html = html.replace('<div role="list" class="citation-list">', '<div class="citation-list">')
    return re.sub(r'(<div class="citation"[^>]*?) role="doc-biblioentry"', r"\1", html)


def _mend_pages(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    wanted: set[str] = set()
    for path in Path(app.outdir).rglob("*.html"):
        if "_static" in path.parts:
            continue
        before = path.read_text(encoding="utf-8")
        wanted.update(re.findall(r"\b[\w-]+\.[0-9a-f]{12}\.(?:mjs|bin)\b", before))
        after = _mend(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
    # What figures of earlier builds left behind, which no page names any more.
    for path in (Path(app.outdir) / "_figures").glob("*"):
        if path.name not in wanted:
            path.unlink()


def _configure(app: Sphinx, config: Any) -> None:
    # One cache per state of the package: a change in course_lib is never served old outputs.
    config.nb_execution_cache_path = str(cache.folder())
    if address := site.address():
        config.html_baseurl = address
    if repository := site.repository():
        config.html_theme_options["repository_url"] = repository
        config.html_theme_options["use_repository_button"] = True
        config.html_theme_options["use_issues_button"] = True


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the above; Sphinx calls this."""
    app.add_directive("course-cards", Cards)
    picture = (_only_its_picture, _only_its_picture)
    live = (_visit_live_figure, _depart_live_figure)
    app.add_node(live_figure, html=live, latex=picture, text=picture, man=picture, texinfo=picture)
    app.connect("config-inited", _configure, priority=10)
    app.connect("doctree-read", _check_alt_text)
    app.connect("doctree-read", _measure_reading)
    app.connect("doctree-resolved", _inject_times)
    app.connect("html-page-context", _buttons, priority=900)
    app.connect("build-finished", _mend_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
