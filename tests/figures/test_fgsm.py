"""The FGSM explorer: what the page shows is what course_lib.attacks makes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from playwright.sync_api import Page
from torch import Tensor, nn

from course_lib import attacks, checkpoints, classifiers, data, figures


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return checkpoints.load("digit-net", classifiers.DigitNet())


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    test = data.mnist("test").take(6, seed=1)
    return test.x, test.y


def explorer(model: nn.Module, digits: tuple[Tensor, Tensor], **options: Any) -> figures.Figure:
    x, y = digits
    given = {"title": "Attack it", "alt": "Digits, a slider and bars.", "bim": attacks.bim}
    return figures.fgsm_explorer(model, x, y, **{**given, **options})


def state(page: Page, name: str, which: int = 0) -> Any:
    return (
        page.locator("course-figure")
        .nth(which)
        .evaluate(
            f"f => {{ const v = f.state.{name}; return ArrayBuffer.isView(v) ? Array.from(v) : v }}"
        )
    )


def canvas(page: Page, n: int) -> Tensor:
    raw = page.locator("course-figure").evaluate(
        "(f, n) => { const c = f.shadowRoot.querySelectorAll('.pictures canvas')[n];"
        "return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data) }",
        n,
    )
    return torch.tensor(raw, dtype=torch.float32).reshape(28, 28, 4)[..., 0]


def set_epsilon(page: Page, eps: float) -> None:
    slider = page.get_by_label("epsilon: how far each pixel may move")
    slider.fill(str(eps))


@pytest.mark.parametrize("eps", [0.0, 0.03, 0.15, 0.3])
def test_fgsm_is_exactly_torchs(
    show: Callable[..., Page], model: nn.Module, digits: tuple[Tensor, Tensor], eps: float
) -> None:
    page = show(explorer(model, digits))
    # In double precision: where the network is nearly certain, float32 loses the gradient's sign.
    exact = copy.deepcopy(model).double()
    x, y = digits[0].double(), digits[1]
    for index in range(len(x)):
        page.get_by_role("button", name=f"Image {index + 1}:").click()
        set_epsilon(page, eps)
        expected = attacks.fgsm(exact, x[index : index + 1], y[index : index + 1], eps)
        seen = canvas(page, 2)
        assert float((seen - 255 * expected[0, 0]).abs().max()) <= 1.0
        with torch.no_grad():
            probabilities = exact(expected).softmax(dim=1)[0].float()
        assert torch.allclose(torch.tensor(state(page, "probabilities")), probabilities, atol=1e-4)
        assert state(page, "read") == int(probabilities.argmax())


def test_bim_is_torchs(
    show: Callable[..., Page], model: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    page = show(explorer(model, digits))
    page.get_by_label("Attack", exact=True).select_option("BIM")
    set_epsilon(page, 0.12)
    eps = state(page, "eps")
    x, y = digits[0][:1], digits[1][:1]
    expected = attacks.bim(model, x, y, eps, eps / 4, 8)
    found = torch.tensor(state(page, "image")).reshape(1, 1, 28, 28)
    # After a step in which a gradient of nearly nothing changes sign, later steps may differ there.
    assert float(((found - expected).abs() < 1e-5).float().mean()) > 0.99
    assert float((found - x).abs().max()) <= eps + 1e-6
    assert state(page, "read") == int(model(expected).argmax())


def test_the_change_shown_is_the_change_made(
    show: Callable[..., Page], model: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    page = show(explorer(model, digits))
    set_epsilon(page, 0.1)
    image = torch.tensor(state(page, "image")).reshape(28, 28)
    change = (image - digits[0][0, 0]) / 0.1
    # The slider stands at a multiple of its step, just below 0.1: three levels of 255.
    assert float((canvas(page, 1) - 255 * (change + 1) / 2).abs().max()) <= 3.0


def test_kernel_and_page_agree(
    show: Callable[..., Page], model: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    figure = explorer(model, digits)
    page = show(figure)
    set_epsilon(page, 0.09)
    answer = figure.answer(
        "attack", index=0, eps=state(page, "eps"), alpha=state(page, "eps"), steps=1
    )
    for name in ("image", "probabilities"):
        value = answer[name]
        assert isinstance(value, Tensor)
        assert torch.allclose(torch.tensor(state(page, name)), value.flatten(), atol=1e-4)


def test_a_students_own_attack_answers_in_jupyter(
    model: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    def lazy(
        model: nn.Module, x: Tensor, y: Tensor, eps: float, alpha: float, steps: int
    ) -> Tensor:
        return (x + eps).clamp(0, 1)

    answer = explorer(model, digits, bim=lazy).answer(
        "attack", index=1, eps=0.5, alpha=0.5, steps=1
    )
    assert isinstance(answer["image"], Tensor)
    assert float(answer["image"].min()) == 0.5


def test_the_model_is_left_as_it_was(model: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    model.train()
    figure = explorer(model, digits)
    figure.answer("attack", index=0, eps=0.1, alpha=0.1, steps=1)
    figure.page()
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()


def test_keyboard_alone(
    show: Callable[..., Page], model: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    page = show(explorer(model, digits))
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert state(page, "index") == 1
    for _ in range(5):
        page.keyboard.press("Tab")
    page.keyboard.press("Home")
    assert state(page, "eps") == 0
    page.keyboard.press("ArrowRight")
    assert state(page, "eps") == pytest.approx(0.003)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('course-figure').state.method === 'BIM'")


@pytest.mark.parametrize("dark", [False, True])
def test_accessible_and_narrow(
    show: Callable[..., Page],
    violations: Callable[[Page], list[str]],
    model: nn.Module,
    digits: tuple[Tensor, Tensor],
    dark: bool,
) -> None:
    page = show(explorer(model, digits), width=390)
    if dark:
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_wrong_input_is_named(model: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits
    with pytest.raises(ValueError, match=r"x: expected values in \[0, 1\], got \[-1"):
        explorer(model, (2 * x - 1, y))
    with pytest.raises(ValueError, match=r"x: expected shape"):
        explorer(model, (x[0], y))
    with pytest.raises(ValueError, match="y: expected 6 classes from 0 to 9"):
        explorer(model, (x, y + 8))
    with pytest.raises(ValueError, match="names: expected 10"):
        explorer(model, digits, names=["a"])
    with pytest.raises(ValueError, match="start, most"):
        explorer(model, digits, start=0.5)
    nan = x.clone()
    nan[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="x: expected values"):
        explorer(model, (nan, y))
