"""The command line ``course``: the roof of the package.

Each command says in one line what went wrong, names what to do about it, and ends with exit code 1;
a traceback is for bugs.

Chapter: book/welcome/how_to_use.md
"""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="course",
    help="Build, run and extend the course.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
data_app = typer.Typer(help="The data sets: what there is, and how to get the full ones.")
app.add_typer(data_app, name="data", no_args_is_help=True)


def main() -> None:
    """Run the command line, turning foreseen errors into one clear line."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit("interrupted; what was finished is kept, run the same command again to go on")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            sys.exit(
                f"error: the disk is full ({error.filename or 'no space left'}): free some space"
            )
        sys.exit(f"error: {error}")
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")


@app.command()
def book(
    serve: Annotated[bool, typer.Option(help="Open the site locally when it is built.")] = False,
    port: Annotated[int, typer.Option(help="The port to serve it on.")] = 8000,
    clean: Annotated[bool, typer.Option(help="Forget everything that was executed.")] = False,
) -> None:
    """Execute the chapters that changed and build the site into _build/html."""
    from course_lib.publish import build

    for line in build.book(clean=clean):
        print(line, flush=True)
    print(f"The site is at {build.html() / 'index.html'}")
    if serve:
        with build.server(port) as running:
            print(
                f"Serving it on http://127.0.0.1:{running.server_address[1]}/ (Ctrl-C stops)",
                flush=True,
            )
            running.serve_forever()


@app.command()
def lab(
    chapter: Annotated[str | None, typer.Argument(help="A chapter to open, e.g. pca.")] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Open the chapters as notebooks in JupyterLab.

    They are copied to notebooks/. A copy that you have changed is never overwritten.
    """
    from course_lib.publish import chapters, copies

    folder = chapters.root() / "notebooks"
    name = chapters.chapter(chapter).name if chapter else None
    for line in copies.refresh(folder):
        print(line)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    if name:
        command.append(f"--LabApp.default_url=/lab/tree/{name}.ipynb")
    if not browser:
        command.append("--no-browser")
    raise typer.Exit(subprocess.call(command))


@app.command()
def notebooks(
    folder: Annotated[Path, typer.Option(help="Where to write them.")] = Path("_build/notebooks"),
) -> None:
    """Convert the chapters to the notebooks that nbval runs."""
    from course_lib.publish import chapters

    for path in chapters.convert(folder):
        print(path)


@app.command()
def train(
    name: Annotated[str | None, typer.Argument(help="The checkpoint to make anew.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    steps: Annotated[
        int | None, typer.Option(help="Training steps (default: the recipe's).")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Where to write it; COURSE_CHECKPOINTS set to it makes it be used.")
    ] = Path("checkpoints"),
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed, ...")] = "32-true",
) -> None:
    """Run the recipe of a checkpoint; without a name, list the recipes."""
    from tqdm import tqdm

    from course_lib import device, recipes

    if name is None:
        print("\n".join(recipes.names()))
        return
    if name not in recipes.names():
        raise ValueError(f"no recipe {name!r}; there are {', '.join(recipes.names())}")
    fabric = device.launch(seed=seed, accelerator=accelerator, precision=precision)  # type: ignore[arg-type]
    print(f"{name} on {device.describe(fabric)}, seed {seed}")
    last = None
    with tqdm(unit="step", disable=None) as bar:
        for last in recipes.make(name, out, fabric, seed=seed, steps=steps):
            bar.total = last.steps
            bar.update(last.step - bar.n)
            bar.set_postfix_str(last.text)
    if last is not None and last.measures:
        for key, value in last.measures.items():
            print(f"{key:30} {value:.4g}")
    print(f"written to {out / name}.safetensors, with its card beside it")


@data_app.command("list")
def data_list() -> None:
    """List the data sets and what of each is at hand."""
    from course_lib import data

    for card in data.cards():
        splits = ", ".join(f"{name} {count:,}" for name, count in card.splits.items())
        print(f"{card.name:16}{card.summary}\n{'':16}{splits or 'as many as are asked for'}")


@data_app.command("card")
def data_card(name: Annotated[str, typer.Argument(help="A data set, e.g. mnist.")]) -> None:
    """Print a data set's card: source, licence, shapes, splits, hashes, limits."""
    from course_lib import data

    print(data.card(name).to_markdown())


@data_app.command("fetch")
def data_fetch(name: Annotated[str, typer.Argument(help="A data set, e.g. mnist.")]) -> None:
    """Fetch a full data set, verified; a download that was cut goes on where it stopped."""
    from course_lib import data

    print(data.fetch(name))


@app.command()
def doctor() -> None:
    """Say what this machine offers and what is missing, with what to do about it."""
    import importlib.util

    import torch

    from course_lib import __version__, checkpoints, data, device

    fabric = device.launch()
    free = shutil.disk_usage(Path.home()).free / 1e9
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    rows = {
        "course_lib": __version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "runs on": device.describe(fabric),
        "free disk": f"{free:.0f} GB",
        "data": ", ".join(card.name for card in data.cards()),
        "checkpoints": ", ".join(checkpoints.names()) or "none",
        "book tools": "yes"
        if importlib.util.find_spec("jupyter_book")
        else "no (make book installs them)",
        "Chromium": chromium or "no (only the site's browser tests need it: apt install chromium)",
    }
    for key, value in rows.items():
        print(f"{key:12} {value}")


if __name__ == "__main__":
    main()
