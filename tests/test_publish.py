"""Chapters to notebooks: stable, checked, readable anywhere, executed once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from docutils import nodes
from docutils.utils import new_document
from hypothesis import given
from hypothesis import strategies as st

from course_lib.publish import cache, chapters, copies, plain, site, sphinx_ext
from course_lib.publish.nbval_plugin import close_text

HEADER = """---
jupytext:
  text_representation: {extension: .md, format_name: myst, format_version: 0.13}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

"""


def page(tmp_path: Path, body: str, name: str = "part/trial") -> chapters.Chapter:
    path = tmp_path / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + body)
    return chapters.Chapter(name, path, "Trial", True)


CHECKED = """# Trial

```{code-cell} ipython3
---
tags: [checked]
expect: |
  area: 0.98
tolerance: 0.01
---
print("area: 0.985")
```
"""


# --- chapters ------------------------------------------------------------------------------------


def test_every_listed_chapter_exists_and_has_a_title() -> None:
    pages = chapters.chapters()
    assert len({p.name for p in pages}) == len(pages) > 6
    assert all(p.title and p.path.is_file() for p in pages)


def test_a_chapter_that_does_not_exist_is_named_with_those_that_do() -> None:
    assert chapters.chapter("pca") == chapters.chapter("book/represent/pca.md")
    with pytest.raises(ValueError, match="no chapter 'quantum'; there are .*represent/pca"):
        chapters.chapter("quantum")


def test_a_listed_page_without_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_toc.yml").write_text("format: jb-book\nroot: nowhere\n")
    with pytest.raises(ValueError, match="lists 'nowhere'"):
        chapters.chapters(tmp_path)


def test_conversion_is_the_same_bytes_twice(tmp_path: Path) -> None:
    trial = page(tmp_path, CHECKED)
    first, second = (nbformat.writes(chapters.notebook(trial)) for _ in range(2))
    assert first == second
    ids = [cell["id"] for cell in chapters.notebook(trial).cells]
    assert len(set(ids)) == len(ids)


def test_a_cell_keeps_its_id_when_another_changes(tmp_path: Path) -> None:
    before = chapters.notebook(page(tmp_path, CHECKED)).cells[-1]["id"]
    assert (
        chapters.notebook(page(tmp_path, CHECKED.replace("985", "975"))).cells[-1]["id"] == before
    )


def test_a_checked_cell_has_something_to_compare(tmp_path: Path) -> None:
    cell = chapters.notebook(page(tmp_path, CHECKED)).cells[-1]
    assert cell.execution_count == 1
    assert cell.outputs[0].text == "area: 0.98\n"
    assert "nbval-check-output" in cell.metadata.tags


@pytest.mark.parametrize(
    "body",
    [
        CHECKED.replace("expect: |\n  area: 0.98\n", ""),
        CHECKED.replace("tags: [checked]\n", ""),
        CHECKED.replace("  area: 0.98\n", "\n"),
    ],
    ids=["nothing expected", "expected and not checked", "expected is blank"],
)
def test_a_check_that_could_not_fail_is_refused(tmp_path: Path, body: str) -> None:
    with pytest.raises(ValueError, match="go together"):
        chapters.notebook(page(tmp_path, body))


def test_convert_removes_what_is_no_chapter_any_more(tmp_path: Path) -> None:
    stale = tmp_path / "old" / "gone.ipynb"
    stale.parent.mkdir()
    stale.write_text("{}")
    written = chapters.convert(tmp_path)
    assert not stale.exists()
    assert all(path.is_file() for path in written)
    times = [path.stat().st_mtime_ns for path in written]
    assert [path.stat().st_mtime_ns for path in chapters.convert(tmp_path)] == times


# --- checked cells through nbval -----------------------------------------------------------------


def run_nbval(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-p"]
    return subprocess.run(
        [*command, "course_lib.publish.nbval_plugin", "-p", "no:cacheprovider", str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
    )


def test_nbval_passes_what_is_close_and_fails_what_is_not(tmp_path: Path) -> None:
    for name, printed in (("close", "0.985"), ("far", "1.2"), ("silent", "")):
        body = CHECKED.replace("area: 0.985", f"area: {printed}" if printed else "")
        chapters.write(chapters.notebook(page(tmp_path / "text", body)), tmp_path / f"{name}.ipynb")
    run = run_nbval(tmp_path)
    assert "2 failed" in run.stdout and "1 passed" in run.stdout, run.stdout
    assert "far.ipynb" in run.stdout and "silent.ipynb" in run.stdout
    assert "differs by more than the tolerance 0.01" in run.stdout


def test_close_text() -> None:
    assert close_text("a 1.00 b 2e-3", "a  1.005\nb 0.002", 0.01)
    assert close_text("1000", "1005", 0.01)  # relative where the number is large
    assert not close_text("a 1.0", "b 1.0", 1.0)
    assert not close_text("1.0 2.0", "1.0", 1.0)
    assert not close_text("-1", "1", 0.5)
    assert not close_text("", "1", 0.5)
    with pytest.raises(ValueError, match="tolerance"):
        close_text("1", "1", float("nan"))


@given(st.floats(-1e6, 1e6), st.floats(0, 1))
def test_close_text_is_reflexive(value: float, tolerance: float) -> None:
    assert close_text(f"x {value:.4f} y", f"x {value:.4f} y", tolerance)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 0.5))
def test_close_text_sees_twice_the_tolerance(value: float, tolerance: float) -> None:
    other = value + 2.5 * tolerance * max(1.0, abs(value)) + 1e-3
    assert not close_text(f"{value:.6f}", f"{other:.6f}", tolerance)


# --- plain Markdown ------------------------------------------------------------------------------

BOOK = plain.Book(
    titles={"ch-pca": "PCA", "pca": "PCA"}, references={"g14": "Goodfellow et al., 2014"}
)


def rewrite(text: str, folder: Path = Path(), **values: object) -> str:
    return plain.plain(text, book=BOOK, folder=folder, values=values)


def test_plain_roles() -> None:
    assert rewrite("an AUC of {glue:text}`auc:.2f`", auc=0.98765) == "an AUC of 0.99"
    assert rewrite("see {ref}`ch-pca` or {ref}`there <ch-pca>`") == "see *PCA* or *there*"
    assert rewrite("as in {doc}`../represent/pca`") == "as in *PCA*"
    assert rewrite("shown by {cite:t}`g14` {cite:p}`g14`") == (
        "shown by Goodfellow et al., 2014 (Goodfellow et al., 2014)"
    )


def test_plain_equations_are_numbered_and_referred_to() -> None:
    text = "$$\nx = 1\n$$ (eq-x)\n\nBy {eq}`eq-x`."
    assert rewrite(text) == "$$\nx = 1\n\\tag{1}\n$$\n\nBy (1)."


def test_plain_directives_nest() -> None:
    text = (
        "````{exercise} Try\n:label: ex-1\nDo {ref}`ch-pca`.\n\n"
        "```{dropdown} Hint\nThink.\n```\n````\n"
        "```{solution} ex-1\n:class: dropdown\nDone.\n```\n:::{note}\nBeware.\n:::"
    )
    found = rewrite(text)
    assert "> **Exercise. Try**" in found and "> Do *PCA*." in found
    assert "> <details><summary>Hint</summary>" in found
    assert "<details><summary>Solution</summary>\n\nDone." in found
    assert "> **Note**\n>\n> Beware." in found
    assert "{" not in found


def test_plain_includes_the_code_itself(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(
        "import os\n\n@f\ndef g(x):\n    return x\n\nclass A:\n    def m(self):\n        pass\n"
    )
    text = "```{literalinclude} code.py\n:pyobject: %s\n:language: python\n```"
    assert rewrite(text % "g", tmp_path) == "```python\n@f\ndef g(x):\n    return x\n```"
    assert rewrite(text % "A.m", tmp_path) == "```python\n    def m(self):\n        pass\n```"
    with pytest.raises(plain.PlainError, match="no h"):
        rewrite(text % "h", tmp_path)


def test_plain_leaves_ordinary_code_alone() -> None:
    text = "```python\nx = {ref}`y`\n(label)=\n```"
    assert rewrite(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "```{mermaid}\nx\n```",
        "{smallcaps}`x`",
        "{ref}`nowhere`",
        "{cite:p}`nobody`",
        "```{note}\nx",
        "that is 5\n% of all",
    ],
)
def test_plain_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises(plain.PlainError):
        rewrite(text)


@pytest.mark.parametrize(
    "chapter", [c for c in chapters.chapters() if c.executed], ids=lambda c: str(c.name)
)
def test_published_notebooks_are_valid_plain_and_install_themselves(
    chapter: chapters.Chapter,
) -> None:
    nb = chapters.published(chapter, book=chapters.book_index(), values={}, install="somewhere.whl")
    nbformat.validate(nb)
    prose = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    assert ":::" not in prose and "{glue" not in prose and "```{" not in prose
    first = next(cell for cell in nb.cells if cell.cell_type == "code")
    assert "%pip install" in first.source and "somewhere.whl" in first.source


@pytest.mark.parametrize(
    "chapter", [c for c in chapters.chapters() if c.executed], ids=lambda c: str(c.name)
)
def test_every_chapter_checks_something(chapter: chapters.Chapter) -> None:
    tags = [
        tag for cell in chapters.notebook(chapter).cells for tag in cell.metadata.get("tags", [])
    ]
    assert chapters.CHECKED in tags


# --- cache ---------------------------------------------------------------------------------------


def checkout(tmp_path: Path) -> Path:
    top = tmp_path / "checkout"
    (top / "course_lib" / "data").mkdir(parents=True)
    (top / "course_lib" / "__init__.py").write_text("a = 1\n")
    (top / "course_lib" / "data" / "sample.bin").write_bytes(b"\x00\x01")
    (top / "requirements.lock").write_text("torch==1\n")
    (top / "README.md").write_text("x\n")
    return top


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("course_lib/__init__.py", True),
        ("course_lib/data/sample.bin", True),
        ("course_lib/new.py", True),
        ("requirements.lock", True),
        ("README.md", False),
        ("course_lib/__pycache__/x.cpython-311.pyc", False),
    ],
)
def test_the_digest_changes_with_the_package_and_only_with_it(
    tmp_path: Path, name: str, changes: bool
) -> None:
    top = checkout(tmp_path)
    before = cache.digest(top)
    assert cache.digest(top) == before
    path = top / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"something else\n")
    assert (cache.digest(top) != before) is changes


def test_the_digest_sees_a_file_that_moved(tmp_path: Path) -> None:
    top = checkout(tmp_path)
    before = cache.digest(top)
    shutil.move(top / "course_lib" / "__init__.py", top / "course_lib" / "other.py")
    assert cache.digest(top) != before


def test_what_is_stored_is_what_the_book_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "cache")
    trial = page(tmp_path, CHECKED)
    assert cache.look_up(trial) is None
    output = nbformat.v4.new_output(
        "display_data",
        data={"application/papermill.record/text/plain": "0.985"},
        metadata={"scrapbook": {"name": "area", "mime_prefix": "application/papermill.record/"}},
    )
    cache.store(trial, [[output]], seconds=1.5)
    found = cache.look_up(trial)
    assert found is not None and found[1] == 1.5
    assert cache.glued(trial) == {"area": 0.985}
    # Another prose finds it, another code does not.
    page(tmp_path, CHECKED.replace("# Trial", "# Trial, told otherwise"))
    assert cache.look_up(trial) is not None
    page(tmp_path, CHECKED.replace("0.985", "0.986"))
    assert cache.look_up(trial) is None
    with pytest.raises(ValueError, match="expected 1, one per code cell; got 2"):
        cache.store(trial, [[], []], seconds=1.0)


# --- copies for JupyterLab -----------------------------------------------------------------------


def test_a_reader_s_own_copy_is_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [page(tmp_path / "text", CHECKED, name) for name in ("part/a", "part/b")]
    monkeypatch.setattr(chapters, "chapters", lambda: pages)
    monkeypatch.setattr(cache, "glued", lambda _page: {})
    monkeypatch.setattr(chapters, "book_index", lambda: BOOK)
    monkeypatch.setattr(chapters, "root", lambda: tmp_path)
    folder = tmp_path / "notebooks"
    assert list(copies.refresh(folder)) == ["part/a: written", "part/b: written"]
    assert list(copies.refresh(folder)) == ["part/a: up to date", "part/b: up to date"]
    own = folder / "part" / "a.ipynb"
    mine = json.loads(own.read_text())
    mine["cells"][-1]["source"] = ["my work"]
    own.write_text(json.dumps(mine))
    assert next(iter(copies.refresh(folder))) == "part/a: your copy, kept"
    for name in ("part/a", "part/b"):
        page(tmp_path / "text", CHECKED.replace("# Trial", "# Better"), name)
    first, second = copies.refresh(folder)
    assert "your copy, kept; its source has changed" in first and second == "part/b: written"
    assert json.loads(own.read_text())["cells"][-1]["source"] == ["my work"]
    assert "Better" in (folder / "part" / "a.new.ipynb").read_text()


def test_only_what_changed_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [page(tmp_path / "text", CHECKED, name) for name in ("part/a", "part/b")]
    done: list[str] = []

    def published(trial: chapters.Chapter, **_: object) -> nbformat.NotebookNode:
        done.append(trial.name)
        return chapters.notebook(trial)

    now = "executed"
    monkeypatch.setattr(chapters, "chapters", lambda: pages)
    monkeypatch.setattr(cache, "glued", lambda _page: {})
    monkeypatch.setattr(cache, "state", lambda: now)
    monkeypatch.setattr(chapters, "book_index", lambda: BOOK)
    monkeypatch.setattr(chapters, "root", lambda: tmp_path)
    monkeypatch.setattr(chapters, "published", published)
    folder = tmp_path / "notebooks"

    def again() -> tuple[list[str], list[str]]:
        done.clear()
        return [line.partition(": ")[2] for line in copies.refresh(folder)], [*done]

    assert again() == (["written", "written"], ["part/a", "part/b"])
    assert again() == (["up to date", "up to date"], [])
    page(tmp_path / "text", CHECKED.replace("# Trial", "# Better"), "part/b")
    assert again() == (["up to date", "written"], ["part/b"])
    (folder / "part" / "a.ipynb").unlink()
    assert again() == (["written", "up to date"], ["part/a"])
    (folder / "part" / "a.ipynb").write_text("my own")
    assert again() == (["your copy, kept", "up to date"], [])
    now = "other values were glued"
    assert again()[1] == ["part/a", "part/b"]
    (folder / copies.CONVERTED).unlink()
    assert again() == (["your copy, kept", "up to date"], ["part/a", "part/b"])


def test_what_was_executed_changes_the_state_and_reading_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "cache")
    trial = page(tmp_path, CHECKED)
    empty = cache.state()
    cache.store(trial, [[]], seconds=1.0)
    stored = cache.state()
    cache.glued(trial)
    assert stored != empty and cache.state() == stored
    cache.store(trial, [[]], seconds=2.0)
    assert cache.state() != stored


def test_a_second_lab_loads_nothing_that_converts() -> None:
    code = "import sys; from course_lib.publish import copies; print('nbformat' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


# --- how long a page takes to read ---------------------------------------------------------------


def test_what_is_folded_takes_no_time_to_read() -> None:
    words = "word " * (2 * sphinx_ext.WORDS_PER_MINUTE)
    code = "x = 1\n" * (5 * 60 // sphinx_ext.SECONDS_PER_CODE_LINE)

    def minutes(*shown: nodes.Element) -> int:
        document = new_document("a page")
        document += nodes.paragraph("", words)
        document += shown
        return sphinx_ext.reading_minutes(document)

    def cell(hide: str | None) -> nodes.Element:
        found = nodes.container("", classes=["cell"], nb_element="cell_code")
        if hide:
            found["hide_mode"] = hide
        for half in ("source", "output"):
            found += nodes.container("", nodes.literal_block(code, code))
            found.children[-1]["nb_element"] = f"cell_code_{half}"
        return found

    assert minutes() == 2
    modes = {None: 10, "input": 5, "output": 5, "input+output": 0, "all": 0}
    for hide, more in modes.items():
        assert minutes(cell(hide)) == 2 + more, hide
    assert minutes(nodes.container("", nodes.paragraph("", words))) == 4
    hint = nodes.container("", nodes.paragraph("", words), design_component="dropdown")
    assert minutes(hint) == 2
    hint["opened"] = True
    assert minutes(hint) == 4
    solution = nodes.admonition("", nodes.paragraph("", words), classes=["solution", "dropdown"])
    assert minutes(solution) == 2
    solution["classes"].append("toggle-shown")
    assert minutes(solution) == 4


# --- where the site lives ------------------------------------------------------------------------


def test_addresses_follow_the_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "repository", lambda: "https://github.com/someone/course")
    monkeypatch.delenv("COURSE_SITE", raising=False)
    assert site.address() == "https://someone.github.io/course/"
    assert site.colab("represent/pca") == (
        "https://colab.research.google.com/github/someone/course/blob/gh-pages/"
        "notebooks/represent/pca.ipynb"
    )
    wheel = f"https://someone.github.io/course/{site.WHEEL}"
    assert site.requirement() == f"course-lib[imagenet] @ {wheel}"
    monkeypatch.setattr(site, "repository", lambda: "")
    assert site.colab("represent/pca") == site.address() == ""
    folder, extra = site.requirement().split("[")
    assert Path(folder).is_dir() and extra == "imagenet]"
