"""The operating point: every rate, count and cost is what NumPy and scikit-learn make of the scores."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from playwright.sync_api import Page
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from course_lib import figures, metrics
from course_lib.figures.program import pack

ONE_IN = [2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]
COSTS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
Scores = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def overlapping(seed: int = 0, real: int = 300, fake: int = 200) -> Scores:
    """Scores on a coarse grid: many are equal, and float32 holds each exactly."""
    rng = np.random.default_rng(seed)
    return (
        np.round(rng.normal(0, 1, real) * 16) / 16,
        np.round(rng.normal(1.5, 1.5, fake) * 16) / 16,
    )


def operating(detectors: Any = None, **options: Any) -> figures.Figure:
    return figures.operating_point(
        {"the detector": overlapping()} if detectors is None else detectors,
        title="What an alarm is worth",
        alt="A ROC curve, and squares for alarms of which many are false.",
        **options,
    )


def joined(scores: Scores) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.concatenate(scores), np.repeat([0, 1], [len(scores[0]), len(scores[1])])


def state(page: Page, which: int = 0) -> Any:
    found = page.locator("course-figure").nth(which).evaluate("f => ({ ...f.state })")
    assert isinstance(found, dict)
    return found


#: What the figure says at every place of the threshold's slider.
EVERYWHERE = """figure => {
  const input = figure.shadowRoot.querySelector('input');
  const found = [];
  for (let i = 0; i <= Number(input.max); i++) {
    input.value = i;
    input.dispatchEvent(new Event('input'));
    const { tpr, fpr, threshold, precision, counts, alarms } = figure.state;
    const output = figure.shadowRoot.querySelector('output').textContent;
    found.push({ tpr, fpr, threshold: String(threshold), precision, counts, alarms, output });
  }
  return found;
}"""


def everywhere(page: Page, which: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.locator("course-figure").nth(which).evaluate(EVERYWHERE)
    return found


def test_rates_at_every_threshold(show: Callable[..., Page]) -> None:
    scores = overlapping()
    values, labels = joined(scores)
    found = everywhere(show(operating(one_in=50)))
    for one in found:
        threshold = float(one["threshold"].replace("Infinity", "inf"))
        rates = metrics.rates_at(values, labels, threshold)
        assert one["tpr"] == pytest.approx(rates.tpr, abs=1e-12)
        assert one["fpr"] == pytest.approx(rates.fpr, abs=1e-12)
        if rates.tpr + rates.fpr:
            assert one["precision"] == pytest.approx(
                metrics.precision_at_base_rate(*rates, 1 / 50), abs=1e-12
            )
            assert float(one["output"]) == pytest.approx(threshold, rel=5e-4)
        counts = one["counts"]
        assert counts["caught"] + counts["missed"] == pytest.approx(200)
        assert counts["accused"] + counts["passed"] == pytest.approx(9800)
    assert found[-1]["output"] == "never" and found[-1]["alarms"] == 0
    assert found[0]["tpr"] == found[0]["fpr"] == 1


def expect_whole_curve(found: list[dict[str, Any]], scores: Scores) -> None:
    """Straight lines between the slider's places go through every point of scikit-learn's curve."""
    fpr, tpr, _ = roc_curve(*reversed(joined(scores)), drop_intermediate=False)
    xs, ys = (np.array([one[key] for one in reversed(found)]) for key in ("fpr", "tpr"))
    assert np.all(np.diff(xs + ys) > 0)
    np.testing.assert_allclose(np.interp(fpr + tpr, xs + ys, xs), fpr, atol=1e-12)
    np.testing.assert_allclose(np.interp(fpr + tpr, xs + ys, ys), tpr, atol=1e-12)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_corner_can_be_reached(show: Callable[..., Page], seed: int) -> None:
    scores = overlapping(seed, 150, 250)
    expect_whole_curve(everywhere(show(operating({"it": scores}))), scores)


def test_scores_closer_than_float32_keep_their_rates(show: Callable[..., Page]) -> None:
    """What is sent are counts, so that thresholds that look alike still part the classes."""
    scores = 1 + np.arange(50) * 2e-12, 1 + np.arange(50) * 2e-12 + 31e-12
    expect_whole_curve(everywhere(show(operating({"it": scores}))), scores)
    assert roc_auc_score(*reversed(joined(scores))) > 0.6


#: The least cost of "cheapest threshold" at every base rate and cost: [[oneIn, cost, here, fpr], ...].
CHEAPEST = """figure => {
  const [, rate, worth] = figure.shadowRoot.querySelectorAll('input');
  const button = figure.shadowRoot.querySelector('button');
  const found = [];
  for (let i = 0; i <= rate.max; i++) for (let k = 0; k <= worth.max; k++) {
    [rate.value, worth.value] = [i, k];
    rate.dispatchEvent(new Event('input'));
    worth.dispatchEvent(new Event('input'));
    button.click();
    const { oneIn, cost, costs, fpr } = figure.state;
    found.push([oneIn, cost, costs.here, costs.never, costs.all, fpr]);
  }
  return found;
}"""


@pytest.mark.parametrize(
    "scores", [overlapping(4), overlapping(5, 40, 700), figures.binormal(0.8, 0.1, n=400)]
)
def test_cheapest_threshold_is_the_cheapest_of_all(
    show: Callable[..., Page], scores: Scores
) -> None:
    page = show(operating({"it": scores}))
    found = page.locator("course-figure").evaluate(CHEAPEST)
    assert [(one, cost) for one, cost, *_ in found] == [(o, c) for o in ONE_IN for c in COSTS]
    real, fake = scores
    thresholds = np.append(np.unique(np.concatenate(scores)), np.inf)
    accused = (real[:, None] >= thresholds).mean(axis=0)
    missed = (fake[:, None] < thresholds).mean(axis=0)
    for one_in, cost, here, never, everybody, fpr in found:
        fakes = 10_000 / one_in
        every = cost * fakes * missed + (10_000 - fakes) * accused
        assert here == pytest.approx(every.min(), rel=1e-9, abs=1e-9)
        assert here <= min(never, everybody) * (1 + 1e-9)
        assert never == pytest.approx(cost * fakes) and everybody == pytest.approx(10_000 - fakes)
        # Of equally cheap thresholds the one that accuses fewest.
        assert fpr == pytest.approx(accused[every <= every.min() * (1 + 1e-9)].min(), abs=1e-9)


def number(text: str) -> float:
    return float(text.replace(",", ""))


def near(shown: str, exact: float) -> bool:
    """Whether a number is rounded as it is shown: whole, or with one decimal below ten."""
    return abs(number(shown) - exact) <= (0.0501 if exact < 9.95 else 0.501)


def expect_sentence(page: Page, scores: Scores, threshold: float, one_in: int) -> None:
    real, fake = scores
    tpr, fpr = float((fake >= threshold).mean()), float((real >= threshold).mean())
    caught, accused = 10_000 / one_in * tpr, 10_000 * (1 - 1 / one_in) * fpr
    text = page.locator(".verdict").inner_text().replace("\xa0", " ")
    found = re.fullmatch(
        r"Of ([\d,.]+) alarms?, ([\d,.]+) (?:is|are) false: an alarm is right ([\d.]+) % of the time\.",
        text,
    )
    assert found, text
    assert near(found[1], caught + accused) and near(found[2], accused), text
    precision = 100 * metrics.precision_at_base_rate(tpr, fpr, 1 / one_in)
    assert abs(number(found[3]) - precision) <= (0.501 if 9.5 <= precision <= 90.5 else 0.051)
    rows = page.locator("table tr").all_inner_texts()
    shown = [re.findall(r"[\d,.]+", row) for row in rows[1:]]
    fakes = 10_000 / one_in
    for row, exact in zip(
        shown,
        ([fakes, caught, fakes - caught], [10_000 - fakes, accused, 10_000 - fakes - accused]),
        strict=True,
    ):
        assert all(near(a, b) for a, b in zip(row, exact, strict=True)), (rows, exact)


def test_the_sentence_by_keyboard(show: Callable[..., Page]) -> None:
    scores = overlapping(7)
    page = show(operating({"a": scores, "b": overlapping(8)}))
    page.keyboard.press("Tab")  # the choice of a detector
    page.keyboard.press("Tab")
    for keys, step in ((["ArrowRight"] * 3, 3), (["ArrowLeft"] * 5, -5), (["ArrowRight"] * 9, 9)):
        before = state(page)["place"]
        for key in keys:
            page.keyboard.press(key)
        assert state(page)["place"] == before - step
        expect_sentence(page, scores, state(page)["threshold"], 100)
    page.keyboard.press("Tab")
    for key, one_in in (("ArrowRight", 200), ("End", 10_000), ("Home", 2), ("ArrowRight", 5)):
        page.keyboard.press(key)
        expect_sentence(page, scores, state(page)["threshold"], one_in)
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    assert state(page)["cost"] == 100
    assert (
        page.get_by_label("A missed fake costs").get_attribute("aria-valuetext")
        == "100 false alarms"
    )
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert state(page)["costs"]["here"] < min(
        state(page)["costs"]["never"], state(page)["costs"]["all"]
    )
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert state(page)["oneIn"] == 100 and state(page)["cost"] == 1
    expect_sentence(page, scores, state(page)["threshold"], 100)


def test_a_99_per_cent_detector_where_fakes_are_rare(show: Callable[..., Page]) -> None:
    page = show(operating({"99 %": figures.binormal(0.99, 0.01)}, one_in=10_000))
    found = state(page)
    assert found["tpr"] == pytest.approx(0.99, abs=2e-3)
    assert found["fpr"] == pytest.approx(0.01, abs=2e-3)
    sentence = found["sentence"].replace("\xa0", " ")
    assert sentence == "Of 101 alarms, 100 are false: an alarm is right 1.0 % of the time."
    page.get_by_label("Generated").fill("5")
    assert "an alarm is right 50\xa0% of the time" in state(page)["sentence"]
    # Nearly all of the squares are blue: their areas are as the counts.
    area = page.locator("course-figure").evaluate(
        """f => [...f.shadowRoot.querySelectorAll('svg path.fill-fake, svg path.fill-real')].map(p =>
          [...p.getAttribute('d').matchAll(/h([\\d.]+)v12/g)].reduce((all, m) => all + Number(m[1]), 0))"""
    )
    counts = state(page)["counts"]
    assert area[0] / area[1] == pytest.approx(counts["caught"] / counts["accused"], rel=1e-2)


def test_no_false_alarm_among_few_proves_little(show: Callable[..., Page]) -> None:
    rng = np.random.default_rng(0)
    page = show(operating({"it": (rng.normal(0, 1, 300), rng.normal(20, 1, 50))}, one_in=10_000))
    most = 1 - 0.05 ** (1 / 300)
    assert most == pytest.approx(3 / 300, rel=0.01)  # the rule of three
    text = state(page)["doubt"].replace("\xa0", " ")
    assert "as high as 1.0 %" in text
    precision = metrics.precision_at_base_rate(1.0, most, 1e-4)
    assert f"right only {100 * precision:.1f} %" in text
    page.get_by_label("Alarm from").fill("0")
    assert "Measured on 300 real and 50 generated" in state(page)["doubt"]


def test_all_scores_equal(show: Callable[..., Page]) -> None:
    page = show(operating({"blind": (np.ones(5), np.ones(4))}))
    assert [(one["fpr"], one["tpr"]) for one in everywhere(page)] == [(1, 1), (0, 0)]
    assert "No alarm is ever raised" in page.locator(".verdict").inner_text()


def test_straight_stretches_have_places_too(show: Callable[..., Page]) -> None:
    """A perfect detector has one corner; its slider still moves in small steps."""
    page = show(operating({"it": (np.arange(1000.0), 2000 + np.arange(1000.0))}))
    found = everywhere(page)
    assert 150 < len(found) < 250
    way = np.diff([one["fpr"] + one["tpr"] for one in found])
    assert np.abs(way).max() <= 0.011


def test_the_dashed_line_is_of_equal_cost(show: Callable[..., Page]) -> None:
    page = show(operating(one_in=5, cost=2))
    path = page.locator("course-figure").evaluate(
        "f => f.shadowRoot.querySelector('path[style*=\"7 4\"]').getAttribute('d')"
    )
    box = page.locator("course-figure").evaluate(
        "f => f.shadowRoot.querySelector('.axis').getAttribute('d').match(/[\\d.]+/g).map(Number)"
    )
    left, top, bottom, right = box
    ends = np.array(re.findall(r"([\d.]+),([\d.]+)", path), dtype=float)
    fpr, tpr = (ends[:, 0] - left) / (right - left), (bottom - ends[:, 1]) / (bottom - top)
    found = state(page)
    for a, b in zip(fpr, tpr, strict=True):
        cost = 2 * 2000 * (1 - b) + 8000 * a
        assert cost == pytest.approx(found["costs"]["here"], rel=0.01)


def test_start_is_the_threshold_asked_for(show: Callable[..., Page]) -> None:
    scores = overlapping()
    page = show(operating(start={"the detector": 0.51}))
    assert state(page)["threshold"] == 0.5625  # the lowest score that is still alarmed about
    assert state(page)["tpr"] == float((scores[1] >= 0.51).mean())
    best = metrics.roc(*joined(scores))
    page = show(operating())
    assert state(page)["tpr"] - state(page)["fpr"] == pytest.approx(
        float((best.tpr - best.fpr).max())
    )


def test_the_choice_of_a_detector_and_reset(show: Callable[..., Page]) -> None:
    detectors = {"a": overlapping(1), "b": figures.binormal(0.9, 0.2, n=500)}
    page = show(operating(detectors))
    first = state(page)
    page.get_by_label("Detector").select_option("b")
    assert state(page)["tpr"] == pytest.approx(0.85, abs=0.06)
    page.get_by_label("Alarm from").press("ArrowLeft")
    moved = state(page)["place"]
    page.get_by_label("Detector").select_option("a")
    assert state(page)["place"] == first["place"]
    page.get_by_label("Detector").select_option("b")
    assert state(page)["place"] == moved  # each detector keeps its own threshold
    page.get_by_role("button", name="Reset").click()
    after = state(page)
    assert all(after[key] == first[key] for key in ("tpr", "fpr", "oneIn", "cost", "sentence"))


def test_two_figures_leave_each_other_alone(show: Callable[..., Page]) -> None:
    page = show(operating(), operating(one_in=1000))
    other = state(page, 1)
    page.get_by_label("Generated").nth(0).press("End")
    page.get_by_role("button", name="Cheapest").nth(0).click()
    assert state(page, 0)["oneIn"] == 10_000
    assert state(page, 1) == other


def test_in_jupyter_no_kernel_is_asked(page: Page) -> None:
    """The widget's data is the page's: with it the figure works though nobody answers."""
    figure = operating()
    assert figure.answers == {} and figure.programs == {}
    contents, content = pack(figure.data, "float32")
    found = page.evaluate(
        """async ([kind, spec, contents, text]) => {
          const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
          const arrays = await course.unpack(bytes, { name: 'data', contents });
          const host = document.body.appendChild(document.createElement('div'));
          const ask = () => { throw new Error('asked') };
          const shadow = host.attachShadow({ mode: 'open' });
          return (await course.mount(host, shadow, course.FIGURES[kind], { spec, arrays, ask })).state;
        }""",
        [
            figure.kind,
            {"title": figure.title, **figure.spec},
            contents,
            base64.b64encode(content).decode(),
        ],
    )
    best = metrics.roc(*joined(overlapping()))
    assert found["tpr"] - found["fpr"] == pytest.approx(float((best.tpr - best.fpr).max()))


@pytest.mark.parametrize(("tpr", "fpr"), [(0.99, 0.01), (0.9, 0.2), (0.5, 0.05), (0.999, 0.3)])
def test_binormal(tpr: float, fpr: float) -> None:
    n = 4000
    real, fake = figures.binormal(tpr, fpr, n=n)
    threshold = -norm.ppf(fpr)
    assert (real >= threshold).mean() == pytest.approx(fpr, abs=0.51 / n)
    assert (fake >= threshold).mean() == pytest.approx(tpr, abs=0.51 / n)
    d = norm.ppf(tpr) - norm.ppf(fpr)
    assert roc_auc_score(*reversed(joined((real, fake)))) == pytest.approx(
        norm.cdf(d / math.sqrt(2)), abs=1e-3
    )
    assert real.mean() == pytest.approx(0, abs=1e-9) and fake.mean() == pytest.approx(d)


def test_tensors_and_lists_are_scores_too() -> None:
    real, fake = overlapping()
    arrays = operating().data
    others = operating(
        {"the detector": (torch.from_numpy(real).requires_grad_(), fake.tolist())}
    ).data
    assert all(np.array_equal(arrays[key], others[key]) for key in arrays)


def test_five_detectors_of_thousands_of_scores_fit_a_page() -> None:
    rng = np.random.default_rng(0)
    detectors = {str(i): (rng.normal(0, 1, 4000), rng.normal(1, 1, 4000)) for i in range(5)}
    sizes = [len(content) * 3 // 4 for content in operating(detectors).page()["files"].values()]
    assert sum(sizes) < 200_000


def test_the_picture_says_the_same(show: Callable[..., Page]) -> None:
    figure = operating(one_in=500)
    drawing = figure.draw()
    title = drawing.axes[1].get_title(loc="left").replace("\n", " ")
    plt.close(drawing)
    assert state(show(figure))["sentence"].replace("\xa0", " ") == f"{title}."


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1000, 390])
def test_accessible_and_narrow(
    show: Callable[..., Page], violations: Callable[[Page], list[str]], width: int, theme: str
) -> None:
    page = show(
        operating({"a": overlapping(), "b": figures.binormal(0.99, 0.01)}, one_in=2), width=width
    )
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.evaluate(
        "t => { document.documentElement.dataset.theme = t;"
        " document.body.style.background = t === 'dark' ? '#14181c' : '#fff';"
        " document.body.style.color = t === 'dark' ? '#fff' : '#000' }",
        theme,
    )
    assert violations(page) == []
    page.get_by_label("Generated").press("End")
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) <= 0
    inside = page.locator("course-figure").evaluate(
        """f => { const right = f.shadowRoot.querySelector('.live').getBoundingClientRect().right;
          return [...f.shadowRoot.querySelectorAll('.live *')].every(n => n.matches('.hidden')
            || n.getBoundingClientRect().right <= right + 0.5) }"""
    )
    assert inside
    assert errors == []


def test_the_sentence_is_announced(show: Callable[..., Page]) -> None:
    page = show(operating(one_in=2), clock=True)
    page.clock.run_for(5000)
    live = page.locator("[aria-live]")
    assert live.text_content() == ""  # it is there to be read; a change is news
    page.get_by_label("Generated").press("End")
    page.clock.run_for(1000)
    assert live.text_content() == state(page)["sentence"] != ""


def test_wrong_input_is_named() -> None:
    good = overlapping()
    with pytest.raises(ValueError, match="detectors: expected one to five, got 0"):
        operating({})
    with pytest.raises(ValueError, match="detectors: expected one to five, got 6"):
        operating({str(i): good for i in range(6)})
    with pytest.raises(
        ValueError, match=r"detectors\['it'\], real: expected finite scores, got 1 that"
    ):
        operating({"it": (np.array([0.0, np.nan]), good[1])})
    with pytest.raises(ValueError, match=r"detectors\['it'\], generated: expected finite scores"):
        operating({"it": (good[0], np.array([np.inf]))})
    with pytest.raises(
        ValueError, match=r"generated: expected scores of shape \(N,\), N > 0; got \(0,\)"
    ):
        operating({"it": (good[0], np.array([]))})
    with pytest.raises(
        ValueError, match=r"real: expected scores of shape \(N,\), N > 0; got \(300, 1\)"
    ):
        operating({"it": (good[0][:, None], good[1])})
    with pytest.raises(ValueError, match=r"detectors\['it'\]: expected \(scores of real items"):
        operating({"it": good[0]})
    with pytest.raises(ValueError, match="one_in: expected one of"):
        operating(one_in=3)
    with pytest.raises(ValueError, match="cost: expected one of"):
        operating(cost=0)
    with pytest.raises(ValueError, match=r"start: expected names of detectors, got \['other'\]"):
        operating(start={"other": 0.0})
    with pytest.raises(ValueError, match="start: expected a finite threshold"):
        operating(start={"the detector": math.nan})
    with pytest.raises(
        ValueError, match="sensitivity: expected more than the false-positive rate 0.2"
    ):
        figures.binormal(0.2, 0.2)
    with pytest.raises(ValueError, match=r"sensitivity: expected a rate in \(0, 1\), got 1"):
        figures.binormal(1.0, 0.01)
    with pytest.raises(ValueError, match="false_positive_rate: expected a rate"):
        figures.binormal(0.99, 0.0)
    with pytest.raises(ValueError, match="n: expected at least 1"):
        figures.binormal(0.99, 0.01, n=0)
