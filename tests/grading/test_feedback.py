from __future__ import annotations

import base64
import hashlib
import html
import json
import random
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from course_lib.grading import feedback, rebuild

EVIL = "</pre></style><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"
EVIL += "\u202e\x1b[31m\u200b'\""


def cell(kind: str, source: str, **meta: Any) -> dict[str, Any]:
    return {"cell_type": kind, "source": source, "metadata": {"nbgrader": meta} if meta else {}}


def made(*parts: str) -> rebuild.Master:
    """Return an assignment with a part per name, each with an answer and a check, and a question."""
    cells = [cell("markdown", "# Assignment 9: the parts")]
    for name in parts:
        cells += [
            cell("markdown", f"## Part {name}"),
            cell("code", f"def {name}(): ...", grade_id=name, solution=True, grade=False),
            cell("code", "", grade_id=f"check_{name}", solution=False, grade=True, points=3),
        ]
    cells += [
        cell("markdown", "## A question"),
        cell("markdown", "", grade_id="question", solution=True, grade=True, points=4),
    ]
    return rebuild.load("parts", json.dumps({"cells": cells}).encode())


MASTER = made("one", "two")


def check(name: str, points: float = 0.0, message: str = "", **more: Any) -> dict[str, Any]:
    return {
        "cell": f"check_{name}",
        "name": f"{name}_check",
        "title": f"what {name} returns",
        "points": points,
        "of": 3.0,
        "message": message,
        "answer": "",
        "line": 0,
    } | more


def result(**more: Any) -> dict[str, Any]:
    return {
        "key": "0" * 64,
        "assignment": "parts",
        "student": "ada",
        "status": "graded",
        "note": "",
        "points": 3.0,
        "of": 6.0,
        "checks": [check("one", 3.0), check("two", 0.0, "Detach the fakes.", answer="two", line=2)],
        "errors": {},
        "answers": {"one": "def one():\n    return 1\n", "two": "def two():\n    return one()\n"},
        "written": {"question": "Because of the sum."},
        "empty": [],
        "flags": ["two: a given cell was edited"],
    } | more


class Reader(HTMLParser):
    """Collects tags and text, and fails where tags do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag in ("td", "th", "dt", "dd", "li", "br"):
            self.text += "\n"
        if tag not in ("meta", "rect", "line", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def harmless(page: str) -> Reader:
    """Assert what holds for every page, whatever came; return what it says."""
    read = Reader(page)
    allowed = (
        "html head meta title style body header main section footer div span p h1 h2 h3 a strong "
    )
    allowed += (
        "code pre mark ul li dl dt dd table thead tbody tr th td figure figcaption svg rect line "
    )
    allowed += "text details summary br"
    assert set(read.tags) <= set(allowed.split())
    assert not [name for name in read.attributes if name.startswith("on") or name == "style"]
    assert not re.search(r"(?:src|href)=\"(?!#|\.\./feedback/)", page)
    assert all(one.isprintable() or one in "\n\t\u00a0\u200c\u200d\ufe0f" for one in page)
    # The policy names the one style sheet there is, and nothing else may load or run.
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert policy is not None and style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert html.unescape(policy[1]).startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert "script" not in policy[1] and "unsafe" not in policy[1]
    return read


def test_a_page_says_what_was_earned_and_where_to_look() -> None:
    page = feedback.page(result(), MASTER)
    text = " ".join(harmless(page).text.split())
    for part in (
        "Assignment 9: the parts",
        "Feedback for ada",
        "3 of 6 points",
        "Detach the fakes.",
    ):
        assert part in text
    assert "1 of 2 checks passed" in text and "not marked yet" in text
    # Parts come in the master's order, and the line is marked in the answer beside its check.
    assert text.index("Part one") < text.index("Part two") < text.index("A question")
    assert Reader("".join(re.findall(r"<mark.*?</mark>", page))).text.strip() == "return one()"


def test_a_page_has_nothing_for_other_eyes() -> None:
    page = feedback.page(result(), MASTER)
    assert "given cell was edited" not in page and "0" * 64 not in page
    assert "def two(): ..." not in page  # the master's own cells stay out


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("timeout", "took too long"),
        ("memory", "more memory"),
        ("crashed", "ended in the middle"),
        ("rejected", "could not be graded: it is no valid JSON"),
    ],
)
def test_each_status_is_told_in_words(status: str, says: str) -> None:
    note = "it is no valid JSON" if status == "rejected" else ""
    checks = [check("one", 0.0, note), check("two", 0.0, note)] if note else result()["checks"]
    text = harmless(feedback.page(result(status=status, note=note, checks=checks), MASTER)).text
    assert says in text and "!" not in text
    assert text.count("it is no valid JSON") == bool(note)


def test_points_and_words_of_a_person_count() -> None:
    manual: Mapping[str, tuple[float | None, str]] = {
        "question": (2.5, "The <b>sum</b> is right."),
        "check_two": (2.0, "Nearly."),
        "one": (None, "A neat answer."),
    }
    read = harmless(feedback.page(result(), MASTER, manual=manual))
    text = " ".join(read.text.split())
    assert "7.5 of 10 points" in text and "2.5 of 4" in text and "2 of 3" in text
    assert "The <b>sum</b> is right." in text and "Nearly." in text and "A neat answer." in text
    assert "b" not in read.tags
    page = feedback.page(
        result(), MASTER, manual={"question": (5.0, "")}, max_manual={"question": 8}
    )
    assert "8 of 14 points" in " ".join(Reader(page).text.split())


def test_an_error_of_a_cell_is_told_with_its_line() -> None:
    errors = {"one": {"type": "ValueError", "line": 2, "text": f"bad {EVIL}" + "x" * 5000}}
    page = feedback.page(result(errors=errors), MASTER)
    text = " ".join(harmless(page).text.split())
    assert r"Python raised ValueError in line 2: bad </pre>" in text and r"\u202e\x1b[31m" in text
    assert "x" * 600 not in text
    assert '<mark class="line">    <span class="k">return</span>' in page
    for kind, says in (("timeout", "took too long"), ("memory", "more memory")):
        errors = {"one": {"type": kind, "line": 0, "text": ""}}
        assert says in harmless(feedback.page(result(errors=errors), MASTER)).text


def test_a_message_about_another_answer_leads_there() -> None:
    checks = [check("one", 3.0), check("two", 0.0, "It stopped.", answer="one", line=2)]
    page = feedback.page(result(checks=checks), MASTER)
    harmless(page)
    assert '<a href="#answer-1">See line 2 of one.</a>' in page and 'id="answer-1"' in page


def test_a_part_left_as_it_came_is_said_to_be() -> None:
    page = feedback.page(result(empty=["two", "question"], written={"question": ""}), MASTER)
    text = " ".join(harmless(page).text.split())
    assert "Nothing has been written in two yet." in text
    assert "Nothing has been written in question yet." in text


def test_hostile_text_stays_text() -> None:
    checks = [check("one", 0.0, EVIL, title=EVIL), check("two", 0.0, EVIL, answer="two", line=1)]
    page = feedback.page(
        result(
            student=EVIL,
            note=EVIL,
            status="rejected",
            checks=checks,
            answers={"one": EVIL, "two": f'"""{EVIL}'},
            errors={"one": {"type": EVIL[:40], "line": 10**9, "text": EVIL}},
            written={"question": EVIL},
        ),
        MASTER,
        manual={"question": (1.0, EVIL), "one": (None, EVIL)},
    )
    read = harmless(page)
    assert "<script>alert(1)</script>" in read.text and "{{ 7 * 7 }}" in read.text


@pytest.mark.parametrize(
    "source",
    [
        "+" * 300_000,
        "&" * 300_000,
        "\u202e" * 300_000,
        "\U000e0041" * 100_000,
        "名" * 300_000,
        "x\n" * 100_000,
        "(" * 100_000,
        "f'{" * 50_000,
        "'''" + "\\" * 200_000,
        "a = 1  # long\n" * 20_000,
        "e" + "\u0301" * 100_000,
        "\r" * 1000 + "\n" * 5000,
        "",
    ],
)
def test_a_page_stays_small_whatever_came(source: str) -> None:
    master = made("one", "two", "three", "four", "five")
    names = [cell.id for cell in master.of("answer")]
    checks = [
        check(name, 0.0, source[:2000], title=f"{name} {i}") for name in names for i in range(5)
    ]
    text = source[:5000]
    page = feedback.page(
        result(
            checks=checks,
            answers=dict.fromkeys(names, source),
            errors={name: {"type": "ValueError", "line": 3, "text": text} for name in names},
            written={"question": source},
        ),
        master,
    )
    harmless(page)
    assert len(page.encode()) < 280_000


def test_an_honest_long_answer_is_shown_with_its_colours() -> None:
    source = "\n".join(f"    value_{i} = torch.zeros(3)  # comment {i}" for i in range(300))
    page = feedback.page(result(answers={"one": "def one():\n" + source, "two": "pass"}), MASTER)
    assert "value_299" in Reader(page).text and 'class="c1"' in page
    long = feedback.page(result(answers={"one": "x = 1\n" * 500, "two": "pass"}), MASTER)
    assert long.count('class="line"') == 401 and "The rest of it is not shown here" in long


def test_code_is_shown_character_by_character() -> None:
    rng = random.Random(0)
    for _ in range(200):
        source = "".join(rng.choices("ab 1+'\"#\\\n\t(){}[]:=<>&;f@λ名", k=rng.randrange(1, 60)))
        source = f"x{source}x"
        markup, cut = feedback.code(source, {1}, 10**6)
        assert cut == ""
        shown = re.findall(
            r'<(mark|span) class="line">(.*?)</\1>(?=<span class="line">|</code>)', markup
        )
        lines = [Reader(f"<p>{inner}</p>").text for _, inner in shown]
        assert "\n".join(lines) == source
        assert [tag for tag, _ in shown] == ["mark"] + ["span"] * (len(lines) - 1)


def test_windows_line_ends_are_line_ends() -> None:
    markup, _ = feedback.code("a = 1\r\nb = 2\r\n", set(), 10**6)
    assert markup.count('class="line"') == 2 and "\\r" not in markup


def test_a_page_is_written_where_nbgrader_has_feedback(tmp_path: Path) -> None:
    path = feedback.write(tmp_path, result(), MASTER)
    assert path == tmp_path / "feedback" / "ada" / "parts" / "parts.html"
    assert path.read_text(encoding="utf-8") == feedback.page(result(), MASTER)
    assert [one.name for one in path.parent.iterdir()] == ["parts.html"]
    for student in ("../eve", "..", "", "a/b", "a\0b", "x" * 101):
        with pytest.raises(ValueError, match="no feedback for"):
            feedback.write(tmp_path, result(student=student), MASTER)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_everybody_can_read_it(browser: Browser, tmp_path: Path, scheme: Any, width: int) -> None:
    errors = {"one": {"type": "ValueError", "line": 2, "text": EVIL}}
    evil = result(
        errors=errors,
        answers={
            "one": f"def one():\n    return '{'long ' * 60}'  # {EVIL}",
            "two": "@a\nclass B:\n  0x1",
        },
    )
    path = tmp_path / "page.html"
    path.write_text(feedback.page(evil, MASTER, manual={"question": (4.0, EVIL)}), encoding="utf-8")
    size = {"width": width, "height": 800}
    said: list[str] = []
    # axe is a script, and the page's own policy would not let it in.
    for bypass in (False, True):
        context = browser.new_context(viewport=size, color_scheme=scheme, bypass_csp=bypass)  # type: ignore[arg-type]
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("document.styleSheets.length") == 1
        if bypass:
            found = Axe().run(page).response["violations"]
            assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
        context.close()
    assert said == []
