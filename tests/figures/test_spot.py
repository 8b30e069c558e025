"""Spot the fake: the verdicts are the truth, and nothing on the page says it before the choice."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from playwright.sync_api import Locator, Page
from scipy import stats
from torch import Tensor

from course_lib import checkpoints, data, device, figures
from course_lib.detection import cnn, processing
from course_lib.gans.networks import DCGANGenerator

# The shadow root as text, with what was announced: compare it where the clock stands still.
DOM = "f => f.shadowRoot.querySelector('.live').outerHTML"
PIXELS = """f => [...f.shadowRoot.querySelectorAll('button.picture canvas')].map(c =>
  Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data))"""


def images(n: int, seed: int, channels: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, channels, 4, 5), generator=g).float() / 255


REAL, FAKE = images(14, 1), images(17, 2)


def suspicion(x: Tensor) -> Tensor:
    """A detector that knows something: the mean of the first row."""
    return x[:, 0, 0].mean(dim=1)


def quiz(real: Tensor = REAL, fake: Tensor = FAKE, **options: Any) -> figures.Figure:
    return figures.spot_the_fake(
        real,
        fake,
        title=options.pop("title", "Which one?"),
        alt="Pairs of small images of noise, one of each generated.",
        **{"detector": suspicion, "pairs": 12, "seed": 3, **options},
    )


def shown(page: Page, which: int = 0) -> Locator:
    return page.locator("course-figure").nth(which)


def state(page: Page, name: str, which: int = 0) -> Any:
    return shown(page, which).evaluate(f"f => f.state.{name}")


def on_show(page: Page, which: int = 0) -> list[Tensor]:
    """The two pictures as they are on the page, (4, 5) of 0 to 255."""
    raw = shown(page, which).evaluate(PIXELS)
    return [torch.tensor(values).reshape(4, 5, 4)[..., 0] for values in raw]


def truth(page: Page, which: int = 0, real: Tensor = REAL, fake: Tensor = FAKE) -> int:
    """Return the side of the generated one, found by its pixels; the other must be a real one."""

    def among(picture: Tensor, known: Tensor) -> bool:
        return bool(((255 * known[:, 0]).round() == picture).flatten(1).all(dim=1).any())

    left, right = on_show(page, which)
    found = [among(left, fake), among(right, fake)]
    assert [among(left, real), among(right, real)] == found[::-1]
    assert sum(found) == 1
    return found.index(True)


def pick(page: Page, side: int, which: int = 0) -> None:
    shown(page, which).locator("button.picture").nth(side).click()


def press(page: Page, name: str, which: int = 0) -> None:
    shown(page, which).get_by_role("button", name=name).click()


def verdict(page: Page, which: int = 0) -> str:
    return shown(page, which).locator(".columns p").nth(1).inner_text()


def table(page: Page, which: int = 0) -> dict[str, str]:
    rows = shown(page, which).locator("tr").all()
    return {r.locator("th").inner_text(): r.locator("td").inner_text() for r in rows}


def announced(page: Page, which: int = 0) -> str:
    """What a screen reader says in the second after a change."""
    page.clock.run_for(1000)
    return shown(page, which).locator("[aria-live]").text_content() or ""


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.shadowRoot.activeElement.textContent"))


def test_a_whole_game(show: Callable[..., Page]) -> None:
    """Every verdict against the pixels' truth; every score against a count of our own."""
    page = show(quiz())
    choices = [0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 1]
    mine, its = 0, 0
    for n, side in enumerate(choices, start=1):
        assert shown(page).locator(".columns p").first.inner_text() == f"Pair {n} of 12"
        fake_side = truth(page)
        scores = [float(suspicion(p[None, None].float() / 255)[0]) for p in on_show(page)]
        pick(page, side)
        right = side == fake_side
        mine += right
        detector_right = scores[fake_side] > scores[1 - fake_side]
        its += detector_right
        a, b = (round(100 * score) for score in scores)
        said = verdict(page)
        assert said.startswith(f"{'Right' if right else 'Wrong'}. {'AB'[fake_side]} is generated.")
        if a != b:
            assert f"A {a} % and B {b} %" in said
        taken = fake_side if detector_right else 1 - fake_side
        assert said.endswith(f"It picks {'AB'[taken]}: {'right' if detector_right else 'wrong'}.")
        labels = shown(page).locator("button.picture").all_inner_texts()
        for i, label in enumerate(labels):
            assert ("generated" in label) == (i == fake_side)
            assert ("real" in label) == (i != fake_side)
            assert ("your pick" in label) == (i == side)
        assert table(page) == {
            "you": f"{mine} of {n}",
            "the detector": f"{its} of {n}",
            "a coin, on average": f"{n / 2:g} of {n}",
        }
        cell = shown(page).locator("li").nth(n - 1).locator(".hidden").text_content()
        words = [("right" if good else "wrong") for good in (right, detector_right)]
        assert cell == f"Pair {n}: you {words[0]}, the detector {words[1]}"
        last = shown(page).locator("ol + p").inner_text()
        if n < 10:
            assert last == ""
            assert state(page, "tail") is None
        else:
            tail = stats.binom.sf(mine - 1, n, 0.5)
            assert state(page, "tail") == pytest.approx(tail, rel=1e-12)
            share = re.search(
                rf"A coin gets {mine} or more of {n} right in ([\d.]+) % of games", last
            )
            assert share is not None
            assert float(share[1]) == pytest.approx(100 * tail, abs=0.5)
            assert ("hardly" in last) == (tail < 0.05)
        if n < 12:
            assert focused(page) == "Next pair"
            press(page, "Next pair")
            assert focused(page) == "Picture A"
    assert "That was the last pair." in last
    assert shown(page).get_by_role("button", name="Next pair").is_disabled()
    assert focused(page) == "Start again"
    # The count itself is no accident of one game: both kinds of verdict occurred.
    assert 0 < mine < 12
    assert 0 < its < 12


def test_a_second_pick_does_not_count(show: Callable[..., Page]) -> None:
    page = show(quiz(), clock=True)
    pick(page, 0)
    said = announced(page)
    before = shown(page).evaluate(DOM)
    shown(page).locator("button.picture").nth(1).evaluate("b => b.click()")
    assert announced(page) == said != ""
    assert shown(page).evaluate(DOM) == before
    assert state(page, "answered") == 1


def test_nothing_says_the_answer_before_the_choice(show: Callable[..., Page]) -> None:
    """Exchange real and fake: the same page, until the choice."""
    one, other = images(12, 5), images(12, 6)
    page = show(quiz(one, other, detector=None), quiz(other, one, detector=None), clock=True)
    for n in range(4):
        sides = [truth(page, 0, one, other), truth(page, 1, other, one)]
        assert sides[0] == sides[1]  # the side of the fake is the seed's: it was the other image
        pair = f"Pair {n + 1} of 12. Which one is generated?" if n else ""
        assert [announced(page, i) for i in range(2)] == [pair, pair]
        first, second = (shown(page, i).evaluate(DOM) for i in range(2))
        assert first == second
        for i in range(2):
            pick(page, sides[0], i)
            press(page, "Next pair", i)


def test_the_page_is_the_same_whichever_side_it_is(show: Callable[..., Page]) -> None:
    """First pairs of many seeds, with the fake now left, now right: one and the same text."""
    made = [quiz(seed=seed, pairs=2) for seed in range(8)]  # two pairs: quicker to draw
    page = show(*made, wait=False, clock=True)
    for i in range(8):
        shown(page, i).scroll_into_view_if_needed()
        page.locator("course-figure[ready]").nth(i).wait_for()
    page.clock.run_for(5000)
    texts = {shown(page, i).evaluate(DOM) for i in range(8)}
    assert {truth(page, i) for i in range(8)} == {0, 1}
    assert len(texts) == 1
    (text,) = texts
    assert "real" not in text.replace("var(--real)", "").replace("--real:", "")
    assert not re.search(r'class="[^"]*(fake|real)', text)


def test_the_seed_decides_the_order_and_the_sides(show: Callable[..., Page]) -> None:
    a, b, c = quiz(), quiz(), quiz(seed=4)
    assert a.spec["rounds"] == b.spec["rounds"] != c.spec["rounds"]
    for real, fake, side in (np.array(a.spec["rounds"]).T, np.array(c.spec["rounds"]).T)[0:1]:
        assert len(set(real)) == len(set(fake)) == 14 and set(side) == {0, 1}
    page = show(a, b)
    for _ in range(3):
        left, right = on_show(page, 0), on_show(page, 1)
        assert all(torch.equal(x, y) for x, y in zip(left, right, strict=True))
        for i in range(2):
            pick(page, 0, i)
            press(page, "Next pair", i)


def test_start_again_shows_new_pairs_and_forgets(show: Callable[..., Page]) -> None:
    page = show(quiz(pairs=5), clock=True)
    blank = shown(page).evaluate(DOM)
    games = []
    for _ in range(3):
        seen = []
        for n in range(5):
            side = truth(page)
            real, fake = on_show(page)[1 - side], on_show(page)[side]
            seen.append((tuple(real.flatten().tolist()), tuple(fake.flatten().tolist())))
            pick(page, side)
            if n < 4:
                press(page, "Next pair")
        games.append(seen)
        assert state(page, "right") == 5
        press(page, "Start again")
        assert focused(page) == "Picture A"
        said = announced(page)
        assert said == "Pair 1 of 5. Which one is generated?"
        assert shown(page).evaluate(DOM).replace(f">{said}<", "><") == blank
        assert (state(page, "answered"), state(page, "right"), state(page, "picks")) == (0, 0, [])
    # Fourteen pairs: the first two games share none, the third begins again after its fourth.
    assert not set(games[0]) & set(games[1])
    assert games[2][4] == games[0][0]


def test_start_again_in_the_middle(show: Callable[..., Page]) -> None:
    page = show(quiz())
    pick(page, 0)
    press(page, "Start again")
    assert table(page)["you"] == "–"
    assert shown(page).get_by_role("button", name="Next pair").is_disabled()
    side = truth(page)
    pick(page, side)
    assert table(page)["you"] == "1 of 1"


def test_keyboard_alone(show: Callable[..., Page]) -> None:
    page = show(quiz(pairs=2))
    page.keyboard.press("Tab")
    assert focused(page) == "Picture A"
    page.keyboard.press("Tab")
    assert focused(page) == "Picture B"
    side = truth(page)
    page.keyboard.press("Enter")
    assert focused(page) == "Next pair"
    assert state(page, "right") == int(side == 1)
    page.keyboard.press("Space")
    assert focused(page) == "Picture A"
    page.keyboard.press("Space")
    assert focused(page) == "Start again"
    page.keyboard.press("Enter")
    assert (focused(page), state(page, "answered")) == ("Picture A", 0)


def test_the_answer_is_announced(show: Callable[..., Page]) -> None:
    page = show(quiz(), clock=True)
    side = truth(page)
    pick(page, side)
    said = announced(page)
    assert said.startswith(f"Right. {'AB'[side]} is generated. The detector finds A ")
    assert re.search(r"You 1 of 1, the detector [01] of 1, a coin 0.5\.", said)


def test_a_tie_is_half_a_point(show: Callable[..., Page]) -> None:
    page = show(quiz(detector=lambda x: torch.full((len(x),), 0.25), pairs=10))
    for n in range(10):
        pick(page, 0)
        assert "A 25 % and B 25 %" in verdict(page)
        assert "It cannot tell: half a point." in verdict(page)
        assert table(page)["the detector"] == f"{(n + 1) / 2:g} of {n + 1}"
        if n < 9:
            press(page, "Next pair")


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.0, 1.0, {"under 1 %", "over 99 %"}),
        (0.001, 0.004, {"0.1 %", "0.4 %"}),
        (0.9991, 0.9999, {"99.9 %", "100.0 %"}),
        (0.501, 0.502, {"50.1 %", "50.2 %"}),
        (0.2, 0.7, {"20 %", "70 %"}),
    ],
)
def test_scores_are_told_apart(
    show: Callable[..., Page], low: float, high: float, text: set[str]
) -> None:
    """As many digits as show which is higher, and no certainty that nobody has."""
    calls: list[float] = []

    def detector(x: Tensor) -> Tensor:  # asked about the real ones first
        calls.append(low if not calls else high)
        return torch.full((len(x),), calls[-1], dtype=torch.float64)

    page = show(quiz(detector=detector))
    pick(page, 0)
    found = re.search(r"finds A (.*) and B (.*) likely", verdict(page))
    assert found is not None
    assert set(found.groups()) == text
    assert verdict(page).endswith("right.")


def test_without_a_detector(show: Callable[..., Page]) -> None:
    page = show(quiz(detector=None, names=("written", "forged")), clock=True)
    assert "Which one is forged?" in verdict(page)
    side = truth(page)
    pick(page, 1 - side)
    assert verdict(page) == f"Wrong. {'AB'[side]} is forged."
    assert list(table(page)) == ["you", "a coin, on average"]
    assert announced(page).startswith(verdict(page))
    assert "detector" not in shown(page).evaluate(DOM)


def test_the_tail_is_scipys(page: Page) -> None:
    cases = [(n, k) for n in (1, 2, 7, 10, 40, 1000) for k in sorted({0, 1, n // 2, n - 1, n})]
    found = page.evaluate("cases => cases.map(([n, k]) => course.binomialTail(n, k))", cases)
    expected = [stats.binom.sf(k - 1, n, 0.5) for n, k in cases]
    assert np.allclose(found, expected, rtol=1e-10, atol=0)


def test_the_detector_scores_what_is_shown() -> None:
    """Images between two levels: what it gets is what the page draws, and it is asked once each."""
    asked: list[Tensor] = []

    def detector(x: Tensor) -> Tensor:
        asked.append(x)
        return suspicion(x)

    g = torch.Generator().manual_seed(0)
    real, fake = torch.rand(5, 1, 4, 5, generator=g), torch.rand(4, 1, 4, 5, generator=g)
    made = quiz(real, fake, detector=detector, pairs=4)
    assert len(asked) == 2
    for x, original, kind in zip(asked, (real, fake), ("real", "fake"), strict=True):
        assert torch.equal(x, (original * 255).round() / 255)
        assert torch.equal((x * 255).round().byte(), torch.from_numpy(made.data[kind]))
        assert made.spec["scores"][kind] == suspicion(x).double().tolist()


def test_share_of_right_answers_is_the_auc() -> None:
    """Over all pairs of one image of each kind, picking the higher score is right AUC of the time."""
    scores = quiz().spec["scores"]
    real, fake = np.array(scores["real"]), np.array(scores["fake"])
    wins = (fake[:, None] > real).mean() + 0.5 * (fake[:, None] == real).mean()
    test = stats.mannwhitneyu(fake, real)
    assert wins == pytest.approx(test.statistic / (len(real) * len(fake)))


def test_the_courses_detector_on_the_courses_digits(show: Callable[..., Page]) -> None:
    G = checkpoints.load("dcgan-digits", DCGANGenerator(32, 32))
    D = checkpoints.load("detector-digits", cnn.DetectorNet())
    with torch.no_grad():
        forged = G(torch.randn(40, 32, generator=device.generator(2026)))
    real, fake = processing.prepare(data.mnist("test").x[:40]), processing.prepare(forged)
    made = quiz(real, fake, detector=lambda x: cnn.score(D, x), pairs=10)
    assert np.allclose(made.spec["scores"]["fake"], cnn.score(D, fake), atol=1e-6)
    page = show(made)
    for _ in range(3):
        pick(page, 0)
        press(page, "Next pair")
    i, j, side = made.spec["rounds"][0]
    right = made.spec["scores"]["fake"][j] > made.spec["scores"]["real"][i]
    cell = shown(page).locator("li").first.locator(".hidden").text_content() or ""
    assert cell.endswith(f"the detector {'right' if right else 'wrong'}")
    assert cell.startswith(f"Pair 1: you {'right' if side == 0 else 'wrong'}")


def test_two_figures_do_not_disturb_each_other(show: Callable[..., Page]) -> None:
    page = show(quiz(), quiz(seed=9), clock=True)
    untouched = shown(page, 1).evaluate(DOM), on_show(page, 1)
    pick(page, 0, 0)
    press(page, "Next pair", 0)
    assert announced(page, 0).startswith("Pair 2 of 12.") and announced(page, 1) == ""
    assert shown(page, 1).evaluate(DOM) == untouched[0]
    assert all(torch.equal(x, y) for x, y in zip(on_show(page, 1), untouched[1], strict=True))


def test_colour_images(show: Callable[..., Page]) -> None:
    real, fake = images(3, 1, channels=3), images(3, 2, channels=3)
    made = quiz(real, fake, detector=None, pairs=3)
    page = show(made)
    i, j, side = made.spec["rounds"][0]
    for picture, image in zip(
        shown(page).evaluate(PIXELS),
        (fake[j], real[i]) if side == 0 else (real[i], fake[j]),
        strict=True,
    ):
        found = torch.tensor(picture).reshape(4, 5, 4)[..., :3].permute(2, 0, 1)
        assert torch.equal(found, (255 * image).round().long())


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1000, 390])
def test_accessible_and_fits(
    show: Callable[..., Page], violations: Callable[[Page], list[str]], theme: str, width: int
) -> None:
    """Before the choice, after it, and at the end."""
    page = show(quiz(pairs=10), quiz(pairs=2, names=("written by people", "forged")), width=width)
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)

    def check() -> None:
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for box in (b.bounding_box() for b in shown(page).locator("button, li").all()):
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width

    check()
    for n in range(2):
        pick(page, n, 1)
        check()
        if n == 0:
            pick(page, 1, 0)
            press(page, "Next pair", 1)


def test_picture_without_javascript() -> None:
    made = quiz(pairs=4)
    drawing = made.draw()
    drawn = [torch.as_tensor(np.asarray(a.images[0].get_array())) for a in drawing.axes]
    for n, (i, j, side) in enumerate(made.spec["rounds"][:4]):
        pair = (FAKE[j, 0], REAL[i, 0]) if side == 0 else (REAL[i, 0], FAKE[j, 0])
        assert torch.allclose(drawn[n], pair[0])
        assert torch.allclose(drawn[4 + n], pair[1])
    plt.close(drawing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"real": torch.rand(4, 1, 5, 5)},
            r"real, fake: expected images of one shape, got \(1, 5, 5\)",
        ),
        ({"fake": torch.rand(4, 3, 4, 5)}, "real, fake: expected images of one shape"),
        ({"real": REAL * 2}, r"real: expected values in \[0, 1\]"),
        ({"fake": FAKE - 0.5}, r"fake: expected values in \[0, 1\]"),
        ({"fake": FAKE * float("nan")}, "fake: expected values"),
        ({"real": REAL[0]}, "real: expected shape"),
        ({"real": REAL[:1], "pairs": 1}, "expected at least 2 each, got 1 and 17"),
        ({"pairs": 15}, "pairs: expected 1 to 14"),
        ({"pairs": 0}, "pairs: expected 1 to 14"),
        ({"detector": lambda x: x[:, 0, 0]}, r"detector: expected scores of shape \(14,\)"),
        ({"detector": lambda x: torch.tensor(0.5)}, "detector: expected scores of shape"),
        ({"detector": lambda x: suspicion(x) * float("nan")}, r"probabilities in \[0, 1\]"),
        ({"detector": lambda x: suspicion(x) + 1}, "put a logistic function behind logits"),
        ({"detector": lambda x: suspicion(x) - 1}, r"probabilities in \[0, 1\]"),
    ],
)
def test_wrong_input_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quiz(**options)


def test_a_detector_may_answer_in_numpy() -> None:
    assert quiz(detector=lambda x: suspicion(x).numpy()).spec["scores"] == quiz().spec["scores"]
