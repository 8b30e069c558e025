"""Live figures in a running JupyterLab: their values come from the kernel."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from playwright.sync_api import BrowserContext, Page

from course_lib import attacks, checkpoints, classifiers, data
from course_lib.gans.networks import DCGANGenerator

LATENT = """\
import torch
from course_lib import checkpoints, figures
from course_lib.gans.networks import DCGANGenerator

generator = checkpoints.load("dcgan-digits", DCGANGenerator(32, 32))
figures.latent_explorer(
    generator, torch.ones(32), title="A generator", alt="A digit made from a code."
)"""

#: A student's own attack: only a kernel can run it.
FGSM = """\
from course_lib import attacks, classifiers, data

model = checkpoints.load("digit-net", classifiers.DigitNet())
test = data.mnist("test").take(3, seed=1)


def mine(model, x, y, eps, alpha, steps):
    return attacks.fgsm(model, x, y, eps).flip(3)


figures.fgsm_explorer(
    model, test.x, test.y, bim=mine, title="An attack", alt="Digits, a slider and bars."
)"""

#: An operation that no page has, and an error that only turns up when the slider moves.
ODD = """\
def odd(code):
    if float(code[0, 0]) > 1:
        raise ValueError("no such code")
    return torch.sort(code.sigmoid())[0].reshape(1, 1, 2, 2)


figures.latent_explorer(
    odd, torch.ones(4), title="Odd", alt="Four sorted grey pixels.", names=list("abcd")
)"""

#: A training loop of the notebook's own, in the kernel.
GAME = """\
from course_lib.gans import networks, objectives, training


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def play(G, D, settings):
    noise, real = seeded(settings.seed), seeded(settings.seed + 1)
    optimizers = [torch.optim.Adam(net.parameters(), betas=(0.5, 0.9)) for net in (G, D)]
    rounds = training.train_gan(
        G, D, iter(lambda: torch.randn(64, 1, generator=real), None),
        lambda n: torch.randn(n, 1, generator=noise), objective=objectives.non_saturating,
        g_optimizer=optimizers[0], d_optimizer=optimizers[1],
    )
    while True:
        for optimizer, rate in zip(optimizers, (settings.g_rate, settings.d_rate)):
            optimizer.param_groups[0]["lr"] = rate
        yield next(rounds)


G = networks.mlp(1, 1, width=8, generator=seeded(0))
D = networks.mlp(1, 1, width=8, generator=seeded(1))
game = figures.gan_game(
    play, G=G, D=D, centres=torch.zeros(1, 1), spreads=1.0,
    settings={"slow": figures.GameSettings(g_rate=1e-3, d_rate=2e-3)},
    title="A game", alt="Two densities on a line and two losses.",
)
game"""

#: A figure whose data travels to the widget.
FILM = """\
film = checkpoints.film("dcgan-digits")
figures.training_scrubber(
    film.steps, film.frames, film.losses, columns=6, title="A film", alt="Digits from a training."
)"""


def listening(process: subprocess.Popen[bytes], folder: Path) -> str:
    """Return the server's address: it writes it down when it has a port of its own."""
    for _ in range(3000):
        for written in (folder / "runtime").glob("jpserver-*.json"):
            with contextlib.suppress(ValueError):  # not yet in full
                return str(json.loads(written.read_text())["url"])
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.1)
    raise TimeoutError((folder / "log").read_text())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab with one notebook, on 127.0.0.1; yields its address."""
    folder = tmp_path_factory.mktemp("lab")
    cells = [nbformat.v4.new_code_cell(source) for source in (LATENT, FGSM, ODD, GAME, FILM)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / "figures.ipynb"
    )
    token = secrets.token_hex(16)
    environment = {key: value for key, value in os.environ.items() if key != "COURSE_FIGURES"}
    for name in ("CONFIG", "DATA", "RUNTIME"):
        environment[f"JUPYTER_{name}_DIR"] = str(folder / name.lower())
    options = [
        "--port=0", "--ip=127.0.0.1", "--no-browser", f"--ServerApp.root_dir={folder}",
        f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None",
        "--MultiKernelManager.default_kernel_name=python3",
        "--MappingKernelManager.kernel_info_timeout=300",
    ]  # fmt: skip
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options],
        env=environment, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        yield f"{listening(process, folder)}lab/tree/figures.ipynb?token={token}"
    finally:
        # The server and the kernels it started are one session.
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


@pytest.fixture(scope="module")
def notebook(context: Callable[..., BrowserContext], lab: str) -> Page:
    """The notebook with all its cells run."""
    page = context(viewport={"width": 1280, "height": 2400}).new_page()
    page.goto(lab)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function(
        "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(
        "document.querySelectorAll('.course-figure').length === 5 &&"
        "[...document.querySelectorAll('.course-figure')].every(f => f.state?.drawn)"
    )
    return page


def figure(page: Page, which: int) -> Any:
    return page.locator(".course-figure").nth(which)


def state(page: Page, which: int, name: str) -> Any:
    return figure(page, which).evaluate(
        f"f => {{ const v = f.state.{name}; return ArrayBuffer.isView(v) ? Array.from(v) : v }}"
    )


def pixels(page: Page, which: int, canvas: str) -> torch.Tensor:
    raw, height, width = figure(page, which).evaluate(
        "(f, selector) => { const c = f.shadowRoot.querySelector(selector);"
        "const {data} = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
        "return [btoa(Array.from(data, v => String.fromCharCode(v)).join('')), c.height, c.width] }",
        canvas,
    )
    found = torch.frombuffer(bytearray(base64.b64decode(raw)), dtype=torch.uint8)
    return found.float().reshape(height, width, 4)[..., 0]


def move(page: Page, which: int, label: str, value: float) -> None:
    drawn = state(page, which, "drawn")
    figure(page, which).get_by_label(label, exact=True).fill(str(value))
    page.wait_for_function(
        "([i, n]) => document.querySelectorAll('.course-figure')[i].state.drawn > n",
        arg=[which, drawn],
    )


def test_the_kernels_generator_draws_the_picture(notebook: Page) -> None:
    generator = checkpoints.load("dcgan-digits", DCGANGenerator(32, 32))
    for label, value in (("number 1", 2.0), ("number 5", -2.5), ("number 8", 1.25)):
        move(notebook, 0, label, value)
        with torch.no_grad():
            expected = generator(torch.tensor([state(notebook, 0, "code")], dtype=torch.float32))
        # float32 from end to end: nothing but the rounding to 256 levels.
        seen = pixels(notebook, 0, "canvas")
        assert float((seen - 255 * expected[0, 0].clamp(0, 1)).abs().max()) <= 0.51


def test_a_students_own_attack_runs_in_the_kernel(notebook: Page) -> None:
    move(notebook, 1, "epsilon: how far each pixel may move", 0.2)
    model = checkpoints.load("digit-net", classifiers.DigitNet())
    test = data.mnist("test").take(3, seed=1)
    expected = attacks.fgsm(model, test.x[:1], test.y[:1], state(notebook, 1, "eps")).flip(3)
    seen = pixels(notebook, 1, ".pictures figure:nth-child(3) canvas")
    assert float((seen - 255 * expected[0, 0]).abs().max()) <= 0.51


def test_what_no_page_can_run_works_here_and_errors_are_shown(notebook: Page) -> None:
    move(notebook, 2, "a", 0.5)
    expected = torch.tensor([state(notebook, 2, "code")]).sigmoid().sort()[0].reshape(2, 2)
    assert float((pixels(notebook, 2, "canvas") - 255 * expected).abs().max()) <= 0.51
    figure(notebook, 2).get_by_label("a", exact=True).fill("2")
    error = figure(notebook, 2).locator(".error")
    error.wait_for()
    assert "ValueError: no such code" in error.inner_text()
    # The figure goes on when the value is good again.
    move(notebook, 2, "a", 0.25)
    assert figure(notebook, 2).locator(".error").count() == 0


def test_the_game_is_played_by_the_notebooks_own_loop(notebook: Page) -> None:
    names: dict[str, Any] = {"torch": torch}
    exec("from course_lib import figures\n" + GAME, names)
    game = names["game"]
    settings = {"k": 1, "g_rate": 1e-3, "d_rate": 2e-3, "loss": "non-saturating", "head_start": 0}
    expected = game.answer("reset", id="here", settings=settings, seed=0)
    shown = torch.tensor(state(notebook, 3, "samples"))
    assert torch.allclose(shown, expected["samples"].flatten(), atol=1e-6)
    for _ in range(3):
        drawn = state(notebook, 3, "drawn")
        figure(notebook, 3).get_by_role("button", name="Step").click()
        notebook.wait_for_function(
            "n => document.querySelectorAll('.course-figure')[3].state.drawn > n", arg=drawn
        )
        expected = game.answer("advance", id="here", rounds=1, settings=settings)
    shown = torch.tensor(state(notebook, 3, "samples"))
    assert state(notebook, 3, "round") == 3
    assert torch.allclose(shown, expected["samples"].flatten(), atol=1e-5)
    assert state(notebook, 3, "gLoss") == pytest.approx(expected["g_loss"][-1], rel=1e-5)


def test_data_travels_to_the_widget(notebook: Page) -> None:
    film = checkpoints.film("dcgan-digits")
    seen = pixels(notebook, 4, "canvas")
    assert float((seen[:28, :28] - 255 * film.frames[-1, 0, 0]).abs().max()) <= 0.51
    figure(notebook, 4).get_by_role("button", name="First").click()
    notebook.wait_for_function("document.querySelectorAll('.course-figure')[4].state.index === 0")
    seen = pixels(notebook, 4, "canvas")
    assert float((seen[:28, 29:57] - 255 * film.frames[0, 1, 0]).abs().max()) <= 0.51


def test_follows_jupyters_dark_theme(notebook: Page) -> None:
    notebook.evaluate(
        "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
    )
    notebook.wait_for_selector(".course-figure[dark]")
    notebook.evaluate(
        "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})"
    )
    notebook.wait_for_selector(".course-figure:not([dark])")
