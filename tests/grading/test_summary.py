from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser
from test_feedback import EVIL, MASTER, check, harmless, result

from course_lib.grading import summary
from course_lib.grading.similarity import Pair


def told(page: str) -> str:
    return " ".join(harmless(page).text.split())


def of(student: str, one: float, two: float, **more: Any) -> dict[str, Any]:
    late = f"Your code raised KeyError (line {len(student)} of your answer). A key is not there."
    checks = [check("one", one, "" if one else "Look at the sign."), check("two", two, late)]
    return result(student=student, checks=checks, points=one + two, flags=[]) | more


CLASS = [of("ada", 3, 3), of("bob", 0, 3), of("cydney", 0, 0), of("dan", 3, 0), of("eve", 0, 0)]


def test_the_class_in_numbers() -> None:
    text = told(summary.page("parts", CLASS, MASTER))
    for part in ("Submissions 5", "Graded 5", "Median 3 of 6", "Quartiles 0 to 3", "All points 1"):
        assert part in text
    assert re.search(r"Points Students 0 2 1 0 2 0 3 2 4 0 5 0 6 1\b", text)


def test_the_checks_most_missed_come_first_with_what_was_said() -> None:
    text = told(summary.page("parts", CLASS, MASTER))
    assert text.index("what one returns 3 3 (60 %) Look at the sign. (3)") < text.index(
        "what two returns 3 3 (60 %) Your code raised KeyError. A key is not there. (3)"
    )
    rejected = [of("joe", 0, 0, status="rejected", note="It is no notebook.")] * 3
    text = told(summary.page("parts", [*CLASS, *rejected], MASTER))
    assert "3 (60 %)" in text and "not gradable It is no notebook." in text


def test_everybody_is_in_the_table_with_a_link(tmp_path: Path) -> None:
    odd = "Zoë & Co #1%"
    results = [*CLASS, of(odd, 3, 0, status="timeout"), of("../up", 0, 0)]
    path = summary.write(tmp_path, "parts", results, MASTER, people={"ada": "Ada Lovelace"})
    assert path == tmp_path / "summary" / "parts.html"
    page = path.read_text(encoding="utf-8")
    text = told(page)
    assert "ada Ada Lovelace 6 3 3 graded" in text and f"{odd} 3 3 0 too slow" in text
    assert 'href="../feedback/ada/parts/parts.html"' in page
    assert 'href="../feedback/Zo%C3%AB%20%26%20Co%20%231%25/parts/parts.html"' in page
    assert "../up 0 0 0" in text and "up/parts" not in page


def test_flags_pairs_and_time() -> None:
    flagged = of("fay", 3, 3, flags=[f"one: flag {i}" for i in range(12)])
    twin = of(
        "gus", 3, 3, answers={"one": "def one():\n    return 2\n", "two": flagged["answers"]["two"]}
    )
    pair = Pair("fay", "gus", 0.999, 0.0, 123, ("# odd",))
    gone = Pair("fay", "nobody", 1.0, 1.0, 9)
    seconds = {"fay": 1.5, "gus": 0.25, "ada": 0.5}
    text = told(
        summary.page("parts", [*CLASS, flagged, twin], MASTER, seconds=seconds, pairs=[pair, gone])
    )
    assert "one: flag 5 and 6 more" in text and "one: flag 6" not in text
    assert "fay gus 99 % – 123 # odd" in text and "no verdict" in text and "nobody" not in text
    assert "- return 1" in text and "+ return 2" in text and "character by character" in text
    assert "2.2 seconds for 3 submissions" in text and "fay 1.50 ada 0.50 gus 0.25" in text


def test_an_empty_class_has_a_page() -> None:
    text = told(summary.page("parts", [], MASTER, seconds={}))
    assert "No submission has been graded yet" in text and "There are none." in text
    assert "Submissions 1" in told(summary.page("parts", CLASS[:1], MASTER))


@pytest.mark.parametrize("top", [0.5, 6.0, 20.0, 31.0, 1000.0])
def test_every_student_is_in_a_bar(top: float) -> None:
    results = [of("a", 0, 0, points=value, of=top) for value in (0.0, top / 3, top / 2, top)]
    page = summary.page("parts", results, MASTER)
    harmless(page)
    rows = re.findall(
        r'<tr><th scope="row" class="n">(.*?)</th><td class="n">(\d+)</td></tr>', page
    )
    assert sum(int(count) for _, count in rows) == 4 and len(rows) <= 35
    assert page.count('<rect class="fill"') == len(rows)


def test_hostile_text_stays_text_and_a_large_class_a_small_page() -> None:
    long = {name: (EVIL + "\n") * 2000 for name in ("one", "two")}
    results = [
        of(
            f"{EVIL[:50]} {i}",
            0,
            0,
            note=EVIL * 20,
            status="rejected" if i % 2 else "crashed",
            flags=[EVIL * 10] * 50,
            answers={name: text + str(i) for name, text in long.items()},
        )
        for i in range(1000)
    ]
    for one in results:
        one["checks"][0]["message"] = EVIL * 100
    pairs = [
        Pair(one["student"], two["student"], 1.0, 1.0, 9, (EVIL * 5,) * 8)
        for one, two in pairwise(results)
    ]
    seconds = {one["student"]: 1.0 for one in results}
    page = summary.page("parts", results, MASTER, seconds=seconds, pairs=pairs)
    assert "<script>alert(1)" in harmless(page).text
    assert len(page.encode()) < 2_000_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_everybody_can_read_it(browser: Browser, tmp_path: Path, scheme: Any, width: int) -> None:
    twin = of("gus", 3, 3, answers={"one": "def one():\n    return 2\n", "two": EVIL}, flags=[EVIL])
    path = summary.write(
        tmp_path,
        "parts",
        [*CLASS, twin, of("zoe", 0, 0, status="rejected", note=EVIL)],
        MASTER,
        seconds={"ada": 0.5},
        pairs=[Pair("ada", "gus", 0.9, 1.0, 80, ("# the same comment",))],
    )
    said: list[str] = []
    for bypass in (False, True):  # axe is a script, and the page's own policy would not let it in
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=bypass
        )
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.goto(path.as_uri())
        for details in page.locator("details").all():
            details.locator("summary").click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if bypass:
            found = Axe().run(page).response["violations"]
            assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
        context.close()
    assert said == []


@pytest.mark.parametrize("width", [390, 1280])
def test_a_status_wraps_between_words_only(browser: Browser, width: int) -> None:
    crowd = [of("s" * 60, 3, 3), of("zoe", 0, 0, status="memory", note="It needed too much.")]
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.set_content(summary.page("parts", crowd, MASTER))
    words = page.evaluate(
        """() => [...document.querySelectorAll("#students, #problems")].flatMap(heading =>
            [...heading.closest("section").querySelectorAll("tbody td")].flatMap(cell => {
                const text = cell.firstChild;
                if (text?.nodeType !== Node.TEXT_NODE) return [];
                return [...text.data.matchAll(/[a-z]+/g)].map(word => {
                    const range = document.createRange();
                    range.setStart(text, word.index);
                    range.setEnd(text, word.index + word[0].length);
                    return [word[0], range.getClientRects().length];
                });
            }))"""
    )
    assert {"graded", "too", "memory"} <= {word for word, _ in words}
    assert [word for word, lines in words if lines != 1] == []
    page.close()
