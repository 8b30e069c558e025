"""The kit: what its sliders, pictures, bars, curves and numbers show is what torch computes."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from playwright.sync_api import Page
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib import figures
from course_lib.figures import Bars, CannotRunError, Curve, Number, Picture, Slider, explorer

G = torch.Generator().manual_seed(0)
DECODER = nn.Sequential(
    nn.Linear(2, 30), nn.Tanh(), nn.Linear(30, 3 * 8 * 6), nn.Unflatten(1, (3, 8, 6)), nn.Sigmoid()
).eval()
for parameter in DECODER.parameters():
    parameter.data = torch.randn(parameter.shape, generator=G)
LEVELS = torch.linspace(0, 1, 5)


def all_kinds(z: Tensor) -> tuple[Tensor, ...]:
    """A picture, the histogram of its brightness, a curve, and a number."""
    image = DECODER(z)
    near = F.conv2d(image, torch.full((5, 3, 1, 1), 1 / 3), -LEVELS) * 4
    near = torch.exp(-(near * near)).mean(dim=(2, 3))
    curve = z @ torch.stack([torch.linspace(-1, 1, 20), torch.linspace(-1, 1, 20) ** 2])
    return image, near / (near @ torch.ones(5, 5)), curve, image.flatten(1) @ torch.ones(144, 1)


CONTROLS = [Slider("lean", -2, 2), Slider("bend", 0.1, 10, start=3.3, log=True, decimals=1)]
OUTPUTS: list[Picture | Bars | Curve | Number] = [
    Picture("made by a decoder"),
    Bars("how bright it is", [f"{v:.2f}" for v in LEVELS], colour="fake"),
    Curve(
        "a curve",
        np.linspace(-1, 1, 20).tolist(),
        xlabel="x",
        ylabel="y",
        y=(-12, 12),
        colour="real",
    ),
    Number("its sum", decimals=3, unit="units"),
]


def kit(
    function: Any = all_kinds, controls: Any = None, outputs: Any = None, **options: Any
) -> figures.Figure:
    return explorer(
        function,
        CONTROLS if controls is None else controls,
        OUTPUTS if outputs is None else outputs,
        title="All kinds at once",
        alt="A picture, its histogram, a curve and a number.",
        **options,
    )


def one_curve(function: Any, controls: Any = None, n: int = 3, **options: Any) -> figures.Figure:
    curve = Curve("a curve", list(range(n)), **options)
    return kit(function, [Slider("t", 0, 1)] if controls is None else controls, [curve])


STATE = """f => ({ values: f.state.values, outputs: f.state.outputs.map(o => Array.from(o)) })"""
PIXELS = """f => { const c = f.shadowRoot.querySelector('canvas');
  return [c.width, c.height, Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)] }"""
AXES = (
    "f => f.shadowRoot.querySelector('path.axis').getAttribute('d').match(/[\\d.]+/g).map(Number)"
)


def state(page: Page, which: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = page.locator("course-figure").nth(which).evaluate(STATE)
    return found


def curve_drawn(page: Page, y: tuple[float, float], which: int = 0) -> np.ndarray[Any, Any]:
    """The curve's heights, read off its path."""
    figure = page.locator("course-figure").nth(which)
    left, top, bottom, right = figure.evaluate(AXES)
    path = figure.evaluate("f => f.shadowRoot.querySelector('path.line').getAttribute('d')")
    points = np.array(re.findall(r"([\d.]+),([\d.]+)", path), dtype=float)
    assert np.allclose(points[:, 0], np.linspace(left, right, len(points)), atol=0.06)
    drawn: np.ndarray[Any, Any] = y[0] + (bottom - points[:, 1]) / (bottom - top) * (y[1] - y[0])
    return drawn


def expect(page: Page, values: list[float], which: int = 0) -> None:
    """Everything on the page is what torch makes of ``values``."""
    found = state(page, which)
    assert found["values"] == pytest.approx(values, rel=1e-9, abs=1e-9)
    with torch.no_grad():
        wanted = all_kinds(torch.tensor([found["values"]], dtype=torch.float32))
    kernel = kit().answer("run", values=found["values"])
    for i, (ours, theirs) in enumerate(zip(found["outputs"], wanted, strict=True)):
        size = max(1.0, float(theirs.abs().max()))
        assert float((torch.tensor(ours) - theirs.flatten()).abs().max()) <= 1e-5 * size
        answered = kernel[str(i)]
        assert isinstance(answered, Tensor) and torch.equal(answered, theirs)
    figure = page.locator("course-figure").nth(which)
    width, height, data = figure.evaluate(PIXELS)
    pixels = torch.tensor(data).reshape(height, width, 4)[..., :3].permute(2, 0, 1)
    assert float((pixels - 255 * wanted[0][0]).abs().max()) <= 0.51
    bars = figure.evaluate(
        "f => [...f.shadowRoot.querySelectorAll('rect')]"
        ".map(r => [Number(r.getAttribute('height')), r.getAttribute('class')])"
    )
    assert [tall for tall, _ in bars] == pytest.approx((106 * wanted[1][0]).tolist(), abs=1e-3)
    assert {kind for _, kind in bars} == {"fill-fake"}
    assert np.allclose(curve_drawn(page, (-12, 12), which), wanted[2][0], atol=0.01)
    shown = figure.evaluate("f => f.shadowRoot.querySelector('p.status').textContent")
    name, number, unit = re.fullmatch(r"(.*): ([\d.]+) (\w+)", shown).groups()  # type: ignore[union-attr]
    assert (name, unit) == ("its sum", "units")
    assert float(number) == pytest.approx(float(wanted[3]), abs=2e-3)


def bend(places: int) -> float:
    """The value of the slider "bend" so many of its hundred places from the left."""
    return float(0.1 * 100 ** (places / 100))


def test_by_keyboard(show: Callable[..., Page]) -> None:
    page = show(kit())
    expect(page, [0, 3.3])
    page.keyboard.press("Tab")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page, [0.12, 3.3])
    page.keyboard.press("Home")
    expect(page, [-2, 3.3])
    page.keyboard.press("Tab")
    # 3.3 lies between two places; one to the right is the next of the hundred.
    first = round(100 * math.log(33) / math.log(100))
    page.keyboard.press("ArrowRight")
    expect(page, [-2, bend(first + 1)])
    page.keyboard.press("ArrowLeft")
    expect(page, [-2, 3.3])
    page.keyboard.press("End")
    expect(page, [-2, 10])
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page, [0, 3.3])
    assert page.get_by_role("slider", name="lean").input_value() == "50"


def test_by_input_events(show: Callable[..., Page]) -> None:
    page = show(kit())
    for lean, places in ((100, 0), (13, 40), (77, 93)):
        page.get_by_role("slider", name="lean").fill(str(lean))
        page.get_by_role("slider", name="bend").fill(str(places))
        expect(page, [-2 + lean * 0.04, bend(places)])
    output = page.get_by_role("slider", name="bend").get_attribute("aria-valuetext")
    assert output == f"{bend(93):.1f}"


def test_two_on_one_page_leave_each_other_alone(show: Callable[..., Page]) -> None:
    page = show(kit(), kit())
    page.get_by_role("slider", name="lean").nth(1).press("End")
    expect(page, [0, 3.3], 0)
    expect(page, [2, 3.3], 1)
    page.get_by_role("slider", name="bend").nth(0).press("Home")
    expect(page, [0, 0.1], 0)
    expect(page, [2, 3.3], 1)


def test_whole_steps(show: Callable[..., Page]) -> None:
    """k components of a code: the slider's numbers are whole, and its last one is there."""
    code = torch.tensor([[3.0, -1.0, 4.0, -1.5]])

    def kept(k: Tensor) -> Tensor:
        return (k @ torch.ones(1, 4) - torch.arange(4.0)[None]).clamp(0, 1) * code

    page = show(one_curve(kept, [Slider("k", 0, 4, start=2, step=1, decimals=0)], n=4))
    assert state(page)["outputs"][0] == [3, -1, 0, 0]
    page.get_by_role("slider", name="k").press("ArrowRight")
    assert state(page)["outputs"][0] == [3, -1, 4, 0]
    assert page.locator("output").inner_text() == "3"
    page.get_by_role("slider", name="k").press("End")
    assert state(page)["outputs"][0] == code[0].tolist()
    assert Slider("k", 0, 5, step=2).first == 2
    assert Slider("k", 0.1, 10, log=True).first == pytest.approx(1)


def test_an_axis_that_follows(show: Callable[..., Page]) -> None:
    """The curve fills the height at every scale; a flat one is a line and no noise."""
    shape = torch.tensor([[1.0, -2.0, 0.5]])
    page = show(one_curve(lambda t: t @ shape, [Slider("t", 0.001, 1000, log=True)]))
    for key in ("Home", "End"):
        page.get_by_role("slider", name="t").press(key)
        top = state(page)["values"][0]
        room = 0.05 * 3 * top
        drawn = curve_drawn(page, (-2 * top - room, top + room))
        assert np.allclose(drawn, top * shape[0].numpy(), atol=0.02 * top)
    page = show(one_curve(lambda t: 0 * t @ shape + 7))
    page.get_by_role("slider", name="t").press("End")
    assert np.allclose(curve_drawn(page, (0, 1)), curve_drawn(page, (0, 1))[0])
    label = page.locator("svg").get_attribute("aria-label")
    assert label == "a curve: from 7.00 to 7.00, between 7.00 and 7.00"


def test_a_picture_between_other_ends(show: Callable[..., Page]) -> None:
    ramp = torch.linspace(-2, 4, 16)[None]
    page = show(
        kit(
            lambda t: (t @ torch.zeros(1, 16) + ramp).reshape(1, 1, 4, 4),
            [Slider("t", 0, 1)],
            [Picture("a ramp", low=-1, high=3)],
        )
    )
    width, height, data = page.locator("course-figure").evaluate(PIXELS)
    grey = torch.tensor(data).reshape(height * width, 4)[:, 0]
    assert float((grey - 255 * ((ramp[0] + 1) / 4).clamp(0, 1)).abs().max()) <= 0.51
    assert page.locator("canvas").get_attribute("aria-label") == "a ramp; t 0.50"


def test_what_a_page_cannot_run_the_kernel_can() -> None:
    def ordered(t: Tensor) -> Tensor:
        return torch.sort(torch.cat([t, -t, t * t], dim=1))[0]

    def chosen(t: Tensor) -> Tensor:
        return torch.ones(1, 3) if float(t) > 0.7 else torch.zeros(1, 3)

    for function, wanted in ((ordered, [-0.5, 0.25, 0.5]), (chosen, [0.0, 0.0, 0.0])):
        figure = one_curve(function)
        answered = figure.answer("run", values=[0.5])["0"]
        assert isinstance(answered, Tensor) and answered.tolist() == [wanted]
        figure.picture()
        with pytest.raises(CannotRunError):
            figure.page()
    with pytest.raises(ValueError, match="values: expected 1, one per control; got 2"):
        one_curve(ordered).answer("run", values=[0.5, 1.0])


def test_an_error_of_the_kernel_is_shown(page: Page) -> None:
    """In Jupyter an answer may fail; the figure says so and goes on with the next."""
    figure = one_curve(lambda t: t @ torch.ones(1, 3))
    text = page.evaluate(
        """async ([kind, spec]) => {
          const host = document.body.appendChild(document.createElement('div'));
          const shadow = host.attachShadow({ mode: 'open' });
          const ask = async (question, { values }) => {
            if (values[0] > 0.5) throw new Error('ValueError: no such value');
            return { 0: Float32Array.from([values[0], 1, 2]) };
          };
          window.addEventListener('unhandledrejection', (event) => event.preventDefault());
          const figure = { spec, arrays: {}, ask };
          const { state } = await course.mount(host, shadow, course.FIGURES[kind], figure);
          const input = shadow.querySelector('input');
          const texts = [];
          for (const place of [90, 10]) {
            input.value = place;
            input.dispatchEvent(new Event('input'));
            // What an answer sets off is done before any timer: all of it are promises kept.
            await new Promise((resolve) => setTimeout(resolve));
            texts.push(shadow.querySelector('.error')?.textContent ?? null, state.outputs[0][0]);
          }
          return texts;
        }""",
        [figure.kind, {"title": figure.title, **figure.spec}],
    )
    assert "no such value" in text[0] and text[1] == 0.5
    assert text[2] is None and text[3] == pytest.approx(0.1)


def test_a_module_answers_in_evaluation_mode() -> None:
    module = nn.Sequential(nn.Linear(1, 3), nn.Dropout(0.9)).train()
    figure = one_curve(module)
    answers = [figure.answer("run", values=[0.3])["0"] for _ in range(2)]
    assert isinstance(answers[0], Tensor) and isinstance(answers[1], Tensor)
    assert torch.equal(answers[0], answers[1])
    assert module.training
    figure.page()


def test_the_picture_is_of_the_first_state() -> None:
    drawing = kit().draw()
    image, bars, curve, number = drawing.axes
    with torch.no_grad():
        wanted = all_kinds(torch.tensor([[0.0, 3.3]]))
    assert np.allclose(np.asarray(image.images[0].get_array()), wanted[0][0].permute(1, 2, 0))
    assert np.allclose([bar.get_height() for bar in bars.patches], wanted[1][0])  # type: ignore[attr-defined]
    assert np.allclose(
        np.asarray(curve.lines[0].get_ydata()), wanted[2][0]
    ) and curve.get_ylim() == (-12, 12)
    assert number.texts[0].get_text() == f"{float(wanted[3]):.3f} units"
    plt.close(drawing)


def twenty_lines() -> figures.Figure:
    """How much a step of 1.5 sharpens a blurred edge, and what it overshoots."""
    x = torch.linspace(-3, 3, 61)

    def sharpened(v: Tensor) -> tuple[Tensor, Tensor]:
        edge = torch.sigmoid(v @ torch.stack([x, 0 * x]))
        bump = edge * (1 - edge) * (1 - 2 * edge)
        return edge - bump * (v @ torch.stack([0 * x, x * 0 + 1])), v @ torch.tensor([[0.0], [0.1]])

    return explorer(
        sharpened,
        [Slider("sharpness of the edge", 0.5, 20, log=True), Slider("amount added", 0, 6)],
        [
            Curve("an edge, sharpened", x.tolist(), xlabel="x", ylabel="grey", y=(-0.3, 1.3)),
            Number("at most it overshoots by", decimals=2),
        ],
        title="Sharpening an edge",
        alt="A smooth step from black to white that overshoots a little at both ends.",
    )


def test_a_figure_in_twenty_lines(show: Callable[..., Page]) -> None:
    lines = inspect.getsource(twenty_lines).splitlines()
    body = [line for line in lines[2:] if line.strip()]
    assert len(body) <= 20
    page = show(twenty_lines())
    page.get_by_role("slider", name="amount added").press("End")
    values = state(page)["values"]
    assert values == pytest.approx([math.sqrt(10), 6])
    x = np.linspace(-3, 3, 61)
    edge = 1 / (1 + np.exp(-values[0] * x))
    wanted = edge - 6 * edge * (1 - edge) * (1 - 2 * edge)
    assert np.allclose(state(page)["outputs"][0], wanted, atol=1e-5)
    assert np.allclose(curve_drawn(page, (-0.3, 1.3)), wanted.clip(-0.3, 1.3), atol=1e-3)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1000, 390])
def test_accessible_and_narrow(
    show: Callable[..., Page], violations: Callable[[Page], list[str]], width: int, theme: str
) -> None:
    pictures = kit(
        lambda z: (DECODER(z), DECODER(-z), DECODER(2 * z)),
        outputs=[Picture("one"), Picture("another"), Picture("a third")],
    )
    page = show(kit(), pictures, twenty_lines(), width=width)
    page.evaluate(
        "t => { document.documentElement.dataset.theme = t;"
        " document.body.style.background = t === 'dark' ? '#14181c' : '#fff';"
        " document.body.style.color = t === 'dark' ? '#fff' : '#000' }",
        theme,
    )
    assert violations(page) == []
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) <= 0
    assert page.evaluate(
        """[...document.querySelectorAll('course-figure')].every(f => {
          const right = f.shadowRoot.querySelector('.live').getBoundingClientRect().right;
          return [...f.shadowRoot.querySelectorAll('.live *')].every(n => n.matches('.hidden')
            || n.getBoundingClientRect().right <= right + 0.5) })"""
    )


def test_says_what_moved_and_the_numbers(show: Callable[..., Page]) -> None:
    page = show(kit(), clock=True)
    page.clock.run_for(5000)
    live = page.locator("[aria-live]")
    assert live.text_content() == ""  # nothing has moved yet
    page.get_by_role("slider", name="lean").press("ArrowRight")
    page.clock.run_for(1000)
    number = page.locator("p.status").text_content()
    assert live.text_content() == f"lean 0.04. {number}"
    page.get_by_role("button", name="Reset").click()
    page.clock.run_for(1000)
    number = page.locator("p.status").text_content()
    assert live.text_content() == f"Back at the start. {number}"


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="controls: expected one or more"):
        kit(controls=[])
    with pytest.raises(ValueError, match="outputs: expected one or more"):
        kit(outputs=[])
    with pytest.raises(ValueError, match="function: expected 3 outputs, got 4"):
        kit(outputs=OUTPUTS[:3])
    wrong: list[tuple[Any, Any, str]] = [
        (
            lambda t: t,
            Picture("p"),
            r"outputs\[0\] \(Picture 'p'\): expected shape \(1, 1 or 3, H, W\), got \(1, 1\)",
        ),
        (lambda t: t.reshape(1, 1, 1, 1).expand(1, 2, 3, 3), Picture("p"), r"got \(1, 2, 3, 3\)"),
        (
            lambda t: t,
            Bars("b", ["x", "y"]),
            r"outputs\[0\] \(Bars 'b'\): expected shape \(1, 2\), got \(1, 1\)",
        ),
        (
            lambda t: 3 * t,
            Bars("b", ["x"]),
            r"\(Bars 'b'\): expected shares in \[0, 1\], got \[1.5, 1.5\]",
        ),
        (
            lambda t: t * math.nan,
            Bars("b", ["x"]),
            r"expected shares in \[0, 1\], got \[nan, nan\]",
        ),
        (
            lambda t: t,
            Curve("c", [0, 1, 2]),
            r"\(Curve 'c'\): expected shape \(1, 3\), got \(1, 1\)",
        ),
        (
            lambda t: t.expand(1, 2),
            Number("n"),
            r"\(Number 'n'\): expected shape \(1,\) or \(1, 1\), got \(1, 2\)",
        ),
        (lambda t: [0.5], Number("n"), r"\(Number 'n'\): expected a tensor, got float"),
        (lambda t: t, Picture("p", low=1, high=1), r"outputs\[0\]: expected low < high, got 1, 1"),
        (lambda t: t, Bars("b", []), r"outputs\[0\]: expected one label or more"),
        (lambda t: t, Bars("b", ["x"], colour="red"), r"outputs\[0\]: expected a colour of"),  # type: ignore[arg-type]
        (lambda t: t, Curve("c", [1, 0]), r"outputs\[0\]: expected x of two or more"),
        (lambda t: t, Curve("c", [0, 1], y=(2, 1)), r"outputs\[0\]: expected y from low to high"),
    ]
    for function, output, message in wrong:
        with pytest.raises(ValueError, match=message):
            kit(function, [Slider("t", 0, 1)], [output])
    for options, message in (
        ({"low": 1, "high": 1}, "Slider 't': expected low < high, got 1, 1"),
        ({"low": 0, "high": math.inf}, "expected low < high"),
        ({"low": 0, "high": 1, "start": 2}, r"expected start in \[0, 1\], got 2"),
        ({"low": 0, "high": 1, "log": True}, "expected low > 0 and no step for log, got 0"),
        ({"low": 0, "high": 1, "step": 2}, "expected 0 < step <= 1, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            Slider("t", **options)


def test_the_example_in_the_book_works(show: Callable[..., Page]) -> None:
    text = (Path(__file__).parents[2] / "book/welcome/how_to_use.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(figures\.explorer\(.*?)```", text, re.DOTALL)
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 1, 1, 28, 28, generator=g)
    figure = eval(code, {"figures": figures, "a": a, "b": b})
    page = show(figure)
    page.get_by_role("slider", name="share of b").fill("25")  # in hundredths of its way
    raw = page.locator("course-figure").evaluate(
        "f => { const c = f.shadowRoot.querySelector('canvas');"
        "return Array.from(c.getContext('2d').getImageData(0, 0, 28, 28).data) }"
    )
    seen = torch.tensor(raw, dtype=torch.float32).reshape(28, 28, 4)[..., 0]
    assert float((seen - 255 * (0.75 * a + 0.25 * b)[0, 0]).abs().max()) <= 0.51
