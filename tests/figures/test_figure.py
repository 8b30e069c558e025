"""What all figures share: their faces, when they load, what they say when they cannot."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from IPython.testing.globalipapp import start_ipython
from playwright.sync_api import Browser, BrowserContext, Page
from torch import nn

from course_lib import figures, plots
from course_lib.figures import bundle, figure


def dense(**options: Any) -> figures.Figure:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(3, 48), nn.Sigmoid(), nn.Unflatten(1, (3, 4, 4)))
    given = {"title": "A small decoder", "alt": "A coloured picture of four by four pixels."}
    return figures.latent_explorer(decoder.eval(), torch.ones(3), **{**given, **options})


class TestModule:
    def test_is_one_module_without_imports(self) -> None:
        text = bundle.module()
        assert not re.search(r"^\s*import\s", text, re.MULTILINE)
        assert text.count("export ") == 1
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)

    def test_every_source_is_in_it_once(self) -> None:
        folder = Path(bundle.__file__).parent / "js"
        for path in folder.glob("*.mjs"):
            lines = re.sub(r"^export ", "", path.read_text(), flags=re.M).splitlines()
            first = next(
                line for line in lines if re.match(r"(const|class|(async )?function) ", line)
            )
            assert bundle.module().splitlines().count(first.strip()) == 1, path

    def test_no_top_level_name_hides_the_browsers_own(self, browser: Browser) -> None:
        folder = Path(bundle.__file__).parent / "js"
        top_level = re.compile(
            r"^(?:export )?(?:const|let|class|(?:async )?function) (\w+)", re.MULTILINE
        )
        names = [
            name for path in folder.glob("*.mjs") for name in top_level.findall(path.read_text())
        ]
        page = browser.new_page()
        hidden = page.evaluate("names => names.filter(n => n in globalThis)", names)
        page.close()
        assert hidden == []
        assert len(names) == len(set(names))

    def test_its_name_follows_its_content(self) -> None:
        assert re.fullmatch(r"gan_game\.[0-9a-f]{12}\.mjs", bundle.name("gan_game"))

    def test_a_figure_brings_its_own_code_only(self) -> None:
        assert set(bundle.kinds()) >= {"latent_explorer", "fgsm_explorer", "gan_game"}
        assert "fgsmExplorer" not in bundle.module("latent_explorer")
        assert len(bundle.module("latent_explorer")) < len(bundle.module()) / 2
        with pytest.raises(ValueError, match="kind: expected one of .*, got 'tea'"):
            bundle.module("tea")


class TestPage:
    def test_is_json_and_files_named_by_content(self) -> None:
        page = dense().page()
        json.dumps(page)
        assert set(page["files"]) == {part["name"] for part in page["element"]["files"]}
        assert page == dense().page()

    def test_more_than_the_budget_is_refused(self) -> None:
        torch.manual_seed(0)
        big = nn.Sequential(nn.Linear(2, 300 * 400), nn.Unflatten(1, (1, 300, 400))).eval()
        with pytest.raises(ValueError, match="'Big' would send .* more than 400,000"):
            figures.latent_explorer(
                big, torch.ones(2), title="Big", alt="A picture far too large to send."
            ).page()

    def test_a_script_in_the_text_stays_text(self, show: Callable[..., Page]) -> None:
        page = show(dense(title="</script><script>window.broken = 1</script>"))
        assert page.evaluate("window.broken") is None
        assert "</script>" in (page.locator("course-figure .title").text_content() or "")

    def test_unknown_question_is_named(self) -> None:
        with pytest.raises(ValueError, match="question: expected decode, got 'encode'"):
            dense().answer("encode")


class TestDisplay:
    @pytest.fixture
    def shown(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[Any, Any]]:
        def run() -> tuple[Any, Any]:
            caught: list[tuple[Any, Any]] = []
            monkeypatch.setattr(
                "IPython.display.display",
                lambda data, raw, metadata: caught.append((data, metadata)),
            )
            dense()._ipython_display_()
            return caught[0]

        return run

    def test_on_a_page(
        self, shown: Callable[[], tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COURSE_FIGURES", "page")
        faces, metadata = shown()
        assert set(faces) == {figure.MIME, "image/png", "text/plain"}
        assert metadata["image/png"]["alt"] == "A coloured picture of four by four pixels."
        assert base64.b64decode(faces["image/png"]).startswith(b"\x89PNG")
        assert json.loads(faces[figure.MIME])["picture"]["png"] == faces["image/png"]

    def test_choices_keep_their_order_in_a_notebook_file(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """nbformat sorts the keys of JSON outputs when it writes a file."""
        monkeypatch.setenv("COURSE_FIGURES", "page")
        caught: list[Any] = []
        monkeypatch.setattr(
            "IPython.display.display", lambda data, raw, metadata: caught.append(data)
        )
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
        figures.fgsm_explorer(
            model,
            torch.rand(1, 1, 2, 2),
            torch.tensor([0]),
            bim=lambda model, x, *_: x,
            methods={"one step": (1, 1.0), "eight steps": (8, 0.25)},
            title="Order",
            alt="Four pixels and two bars.",
        )._ipython_display_()
        output = nbformat.v4.new_output("display_data", data=caught[0])
        cell = nbformat.v4.new_code_cell(outputs=[output])
        text = nbformat.writes(nbformat.v4.new_notebook(cells=[cell]))
        read = nbformat.reads(text, as_version=4).cells[0].outputs[0].data[figure.MIME]
        assert list(json.loads(read)["element"]["spec"]["methods"]) == ["one step", "eight steps"]

    def test_in_jupyter(
        self, shown: Callable[[], tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("COURSE_FIGURES", raising=False)
        faces, _ = shown()
        assert set(faces) == {
            "application/vnd.jupyter.widget-view+json", "image/png", "text/plain",
        }  # fmt: skip

    def test_the_picture_closes_its_drawing(self) -> None:
        before = plt.get_fignums()
        dense().picture()
        assert plt.get_fignums() == before


class TestWidget:
    @pytest.fixture
    def widget(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        made = dense().widget()
        made.sent = []
        monkeypatch.setattr(
            type(made),
            "send",
            lambda self, message, buffers=None: self.sent.append((message, buffers)),
        )
        yield made
        made.close()

    def test_answers_what_it_is_asked(self, widget: Any) -> None:
        widget._reply(widget, {"id": "a", "question": "decode", "args": {"code": [1, 0, 2]}}, [])
        message, buffers = widget.sent[0]
        assert message == {"id": "a", "arrays": ["image"], "plain": {}}
        found = torch.frombuffer(bytearray(buffers[0]), dtype=torch.float32)
        expected = widget.figure.answer("decode", code=[1, 0, 2])["image"]
        assert torch.equal(found, expected.flatten())

    @pytest.mark.parametrize(
        "asked", [("encode", {}), ("decode", {"code": [1]}), ("decode", {"x": 1})]
    )
    def test_a_wrong_question_is_answered_with_its_error(self, widget: Any, asked: Any) -> None:
        widget._reply(widget, {"id": "b", "question": asked[0], "args": asked[1]}, [])
        message, _ = widget.sent[0]
        assert message["id"] == "b" and "Error: " in message["error"]


#: Counts how often the browser has told a figure where it stands, after the figure has heard it.
LOOKS = """window.looks = 0;
window.IntersectionObserver = class extends IntersectionObserver {
  constructor(tell, options) { super((...all) => { tell(...all); window.looks++ }, options) } }"""


class TestLoading:
    def test_far_below_waits_until_it_is_scrolled_to(
        self, show: Callable[..., Page], context: Callable[..., BrowserContext], tmp_path: Path
    ) -> None:
        address = show(dense()).url
        html = (
            (tmp_path / "index.html")
            .read_text()
            .replace("<main>", '<main><div style="height:5000px"></div>')
        )
        (tmp_path / "index.html").write_text(html)
        asked: list[str] = []
        page = context().new_page()
        page.add_init_script(LOOKS)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        started = "document.querySelector('course-figure').hasAttribute('ready')"
        page.wait_for_function(f"window.looks || {started}")
        assert not [url for url in asked if url.endswith(".bin")]
        page.locator("course-figure").scroll_into_view_if_needed()
        page.wait_for_function(started)
        assert len([url for url in asked if url.endswith(".bin")]) == 1

    def test_only_this_host_is_asked(self, show: Callable[..., Page]) -> None:
        page = show(dense(), wait=False, clock=True)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        page.wait_for_selector("course-figure[ready]")
        page.clock.run_for(60_000)
        assert asked and all(url.startswith((page.url, "data:")) for url in asked)


class TestFallback:
    @pytest.fixture
    def broken(
        self, show: Callable[..., Page], context: Callable[..., BrowserContext], tmp_path: Path
    ) -> Callable[[Callable[[Path], None]], Page]:
        """A page whose weights are damaged, in a browser that has never seen them whole."""

        def open_page(damage: Callable[[Path], None]) -> Page:
            address = show(dense(), wait=False).url
            (file,) = (tmp_path / "_figures").glob("decoder.*.bin")
            damage(file)
            page = context().new_page()
            page.goto(address)
            page.wait_for_selector("course-figure[failed]")
            return page

        return open_page

    @pytest.mark.parametrize(
        ("damage", "says"),
        [
            (lambda file: file.unlink(), r"decoder\.\w+\.bin could not be loaded \(404\)"),
            (lambda file: file.write_bytes(file.read_bytes()[:50]), r"bin is damaged"),
            (lambda file: file.write_bytes(b"nonsense"), r"bin is damaged"),
            (
                lambda file: file.write_bytes(
                    gzip.compress(gzip.decompress(file.read_bytes())[:-8])
                ),
                r"does not match the figure",
            ),
            (
                lambda file: file.write_bytes(
                    gzip.compress(gzip.decompress(file.read_bytes()) + b"12")
                ),
                r"does not match the figure",
            ),
        ],
        ids=["missing", "cut", "nonsense", "short", "long"],
    )
    def test_weights_that_do_not_load(
        self, broken: Callable[[Any], Page], damage: Any, says: str
    ) -> None:
        page = broken(damage)
        text = page.locator("course-figure .error").text_content() or ""
        assert re.search(says, text) and "The picture shows its first state" in text
        assert page.get_by_role("img", name="A coloured picture").is_visible()

    def test_without_javascript_there_is_the_picture(
        self, show: Callable[..., Page], context: Callable[..., BrowserContext]
    ) -> None:
        address = show(dense(), wait=False).url
        page = context(java_script_enabled=False).new_page()
        page.goto(address)
        assert page.get_by_role("img", name="A coloured picture").is_visible()

    def test_print_shows_the_picture(self, show: Callable[..., Page]) -> None:
        page = show(dense())
        picture = page.get_by_role("img", name="A coloured picture")
        assert not picture.is_visible()
        page.emulate_media(media="print")
        assert picture.is_visible()
        assert not page.locator("course-figure .live").is_visible()

    def test_the_picture_is_the_default_state(self) -> None:
        """The first state, drawn by Matplotlib, has the decoder's colours in it."""
        shown = dense()
        drawing = shown.draw()
        expected = shown.answer("decode", code=[0.0, 0.0, 0.0])["image"]
        assert isinstance(expected, torch.Tensor)
        pixels = torch.as_tensor(drawing.axes[0].images[0].get_array())
        assert torch.allclose(pixels.float(), expected[0].permute(1, 2, 0), atol=1e-6)
        plt.close(drawing)


def test_plots_and_figures_share_their_rule_for_alt_text() -> None:
    with pytest.raises(ValueError, match="alt: expected a sentence"):
        plots.alt_text("short")


def test_displays_itself_as_the_last_value_of_a_cell() -> None:
    shell = start_ipython()
    if shell is None:  # another test has started it
        from IPython import get_ipython

        shell = get_ipython()
    assert hasattr(figures.Figure, shell.display_formatter.ipython_display_formatter.print_method)
