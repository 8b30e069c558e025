"""What a live figure costs: milliseconds per slider move in headless Chromium, and bytes on the wire.

Beside each is the time torch takes for the same picture on the same machine, in the same run.
"""

from __future__ import annotations

import functools
import gzip
import http.server
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright

from course_lib import attacks, checkpoints, classifiers, data, figures
from course_lib.figures import figure
from course_lib.gans.networks import DCGANGenerator

MOVES = 200
SLIDE = """async (moves) => {
  const figure = document.querySelector("course-figure");
  const slider = figure.shadowRoot.querySelectorAll("input[type=range]")[0];
  const [low, high] = [Number(slider.min), Number(slider.max)];
  const times = [];
  for (let i = 0; i < moves; i++) {
    const drawn = figure.state.drawn;
    slider.value = low + (high - low) * ((37 * i) % 100) / 99;
    const began = performance.now();
    slider.dispatchEvent(new Event("input"));
    while (figure.state.drawn === drawn) await null;
    times.push(performance.now() - began);
  }
  return times;
}"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def torch_time(work: Callable[[], object]) -> float:
    """Return the median milliseconds of ``MOVES`` calls."""
    times = []
    for _ in range(MOVES):
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("benchmarks.figures needs Chromium (Debian: apt install chromium)")
    torch.set_num_threads(1)
    generator = checkpoints.load("dcgan-digits", DCGANGenerator(32, 32))
    model = checkpoints.load("digit-net", classifiers.DigitNet())
    test = data.mnist("test").take(8, seed=0)
    z = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))

    def draw() -> None:
        with torch.no_grad():
            generator(z)

    def attack() -> None:
        with torch.no_grad():
            model(attacks.fgsm(model, test.x[:1], test.y[:1], 0.1))

    measured = {
        "generator, 28x28": (
            figures.latent_explorer(
                generator, torch.ones(32), title="Generator", alt="A digit made from a code."
            ),
            draw,
        ),
        "FGSM on the digit classifier": (
            figures.fgsm_explorer(
                model,
                test.x,
                test.y,
                bim=attacks.bim,
                title="FGSM",
                alt="Digits, a slider and bars.",
            ),
            attack,
        ),
    }
    print(
        f"{'':30}{'median':>9}{'95 %':>9}{'torch':>9}{'ratio':>7}{'code':>9}{'as sent':>9}{'rest':>9}"
    )
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as temporary:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for name, (shown, work) in measured.items():
            folder = Path(temporary) / shown.kind
            page = shown.page()
            figure.write(page, folder)
            html = figure.opening(page, ".") + figure.CLOSING
            (folder / "index.html").write_text(f"<!doctype html>{html}")
            handler = functools.partial(_Quiet, directory=str(folder))
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            tab = browser.new_page()
            tab.goto(f"http://127.0.0.1:{server.server_address[1]}/")
            tab.wait_for_selector("course-figure[ready]", state="attached")
            times = sorted(tab.evaluate(SLIDE, MOVES))
            tab.close()
            server.shutdown()
            code = next(folder.glob("*.mjs")).read_bytes()
            rest = sum(path.stat().st_size for path in folder.glob("*.bin"))
            median, ours = statistics.median(times), torch_time(work)
            print(
                f"{name:30}{median:6.1f} ms{times[int(0.95 * MOVES)]:6.1f} ms{ours:6.1f} ms"
                f"{median / ours:7.1f}{len(code):9,}{len(gzip.compress(code)):9,}{rest:9,}"
            )
        browser.close()


if __name__ == "__main__":
    main()
