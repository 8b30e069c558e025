"""The command line ``course``: the roof of the package.

Each command says in one line what went wrong, names what to do about it, and ends with exit code 1;
a traceback is for bugs.

Chapter: book/welcome/how_to_use.md
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from course_lib.grading.course import Grading

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
    rights = _as_root()
    for line in copies.refresh(folder):
        print(line)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}", *rights]
    if name:
        command.append(f"--LabApp.default_url=/lab/tree/{name}.ipynb")
    if not browser:
        command.append("--no-browser")
    raise typer.Exit(subprocess.call(command))


#: What Docker, Podman and the cluster managers leave for a process to see that it is in a container.
_CONTAINER_FILES = (Path("/.dockerenv"), Path("/run/.containerenv"))
_CONTAINER_NAMES = ("container", "KUBERNETES_SERVICE_HOST")


def _as_root() -> list[str]:
    """Return what JupyterLab is to be told when it starts as root: in a container, that it may.

    Raises ``ValueError`` for root outside of one: every cell could change the whole machine.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return []
    if not (
        any(path.exists() for path in _CONTAINER_FILES)
        or any(os.environ.get(name) for name in _CONTAINER_NAMES)
    ):
        raise ValueError(
            "you are root, and this is no container: notebooks would run with all rights on this "
            "machine. Start it as an ordinary user"
        )
    print(
        "note: you are root in a container, so notebooks run with all rights in it, also over what "
        "is mounted from outside",
        file=sys.stderr,
    )
    return ["--allow-root"]


@app.command()
def notebooks(
    folder: Annotated[Path, typer.Option(help="Where to write them.")] = Path("_build"),
) -> None:
    """Convert the chapters, and the assignments with their solutions, to notebooks for nbval."""
    from course_lib.grading import release as releasing
    from course_lib.publish import chapters

    for path in chapters.convert(folder / "notebooks"):
        print(path)
    (folder / "solutions").mkdir(parents=True, exist_ok=True)
    for name in releasing.names(chapters.root()):
        path = folder / "solutions" / f"{name}.ipynb"
        releasing.put(path, releasing.teacher(chapters.root(), name))
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
    print(f"{name} on {device.describe(fabric)}, seed {seed}", flush=True)
    last, shown = None, time.monotonic()
    # Without a terminal, a line every half minute, so that a log shows that it lives.
    with tqdm(unit="step", disable=None) as bar:
        for last in recipes.make(name, out, fabric, seed=seed, steps=steps):
            if bar.total is None:
                bar.total = last.steps
            if last.resumed:
                bar.initial = bar.n = last.step
                print(last.text, flush=True)
            bar.update(last.step - bar.n)
            bar.set_postfix_str(last.text)
            if last.samples is not None:
                bar.set_description(f"samples in {out / name}.png")
            if bar.disable and time.monotonic() - shown > 30:
                shown = time.monotonic()
                print(f"step {last.step:,} of {last.steps:,}: {last.text}", flush=True)
    if last is not None and last.measures:
        for key, value in last.measures.items():
            print(f"{key:30} {value:.4g}")
    print(f"written to {out / name}.safetensors, with its card beside it")


@app.command()
def bench(
    name: Annotated[str | None, typer.Argument(help="The experiment to run.")] = None,
    out: Annotated[
        Path, typer.Option(help="Where to write it; COURSE_EXPERIMENTS set to it makes it be used.")
    ] = Path("experiments"),
    workers: Annotated[
        int, typer.Option(help="Trainings side by side (default: as many as there are cores).")
    ] = 0,
    fresh: Annotated[bool, typer.Option(help="Measure every row anew.")] = False,
) -> None:
    """Run the experiment behind a chapter's table, what is missing of it; without a name, list them."""
    from tqdm import tqdm

    from course_lib import experiments

    if name is None:
        print("\n".join(experiments.names()))
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tqdm(unit="row", disable=None) as bar:
        for done, total, row in experiments.run(
            name, out, workers=workers or cores or 1, fresh=fresh
        ):
            bar.total = total
            bar.update(done - bar.n)
            if row:
                numbers = ", ".join(
                    f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                    for key, value in {**row["cell"], **row["result"]}.items()
                )
                bar.write(f"{numbers} ({row['cpu_seconds']:.1f} s)")
    print(f"{total} rows in {out / name}.jsonl")


@app.command("report-card")
def report_card(
    detector: Annotated[
        str,
        typer.Argument(
            help="portrait-detectors:NAME, or FILE.py:NAME of your own. The file is run as it is, with all "
            "that you may do: somebody else's only in a container, or not at all."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page; its numbers go beside it as .json.")] = Path(
        "report-card.html"
    ),
    home: Annotated[str, typer.Option(help="The generator that it was trained on.")] = "dcgan",
    seed: Annotated[int, typer.Option(help="Seed of intervals and attacks.")] = 0,
) -> None:
    """Examine a detector of made portraits, and write all that was found on one page."""
    from course_lib import checkpoints, report_card

    if out.suffix != ".html":
        raise ValueError(f"out: expected a file that ends in .html, got {out}")
    found, name = report_card.load(detector)
    print(f"examining {name}: a minute or so, several on a slow machine")
    card = report_card.assess(found, name, home=home, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    files = {out.name: report_card.page(card), out.with_suffix(".json").name: card.to_json()}
    checkpoints.write(out.parent, {name: text.encode() for name, text in files.items()})
    print("\n".join(report_card.verdict(card)))
    print(f"written to {out} and {out.with_suffix('.json')}")


Course = Annotated[Path, typer.Option(help="The course directory: nbgrader's, with the results.")]


@app.command()
def release(
    names: Annotated[list[str] | None, typer.Argument(help="Assignments (default: all).")] = None,
    student_repo: Annotated[
        Path | None, typer.Option(help="Write a tree without solutions there, to publish.")
    ] = None,
) -> None:
    """Make the notebooks that students get, in assignments/, from solutions/."""
    from course_lib.grading import course as grading
    from course_lib.grading import release as releasing

    root = grading.root()
    there = releasing.names(root)
    for name in names or there:
        if name not in there:
            raise ValueError(f"no assignment {name!r}; there are {', '.join(there)}")
        print(releasing.write(root, name))
    if student_repo is not None:
        count = releasing.student_repo(root, student_repo)
        print(f"{student_repo}: {count} files, no solutions")


@app.command()
def grade(
    submissions: Annotated[
        list[Path],
        typer.Argument(help="nbgrader's submitted/, folders, notebooks, or an LMS's zip files."),
    ],
    course: Course = Path("grading"),
    workers: Annotated[int | None, typer.Option(help="Processes (default: one per core).")] = None,
    dask: Annotated[
        str | None,
        typer.Option(help="A Dask scheduler's address, or 'local' for a cluster on this machine."),
    ] = None,
    watch: Annotated[bool, typer.Option(help="Go on, and grade what arrives.")] = False,
    every: Annotated[float, typer.Option(help="With --watch: look every so many seconds.")] = 10.0,
    timeout: Annotated[
        float, typer.Option(help="Seconds for one call of a student's code.")
    ] = 10.0,
    memory: Annotated[float, typer.Option(help="Gigabytes for one submission.")] = 1.0,
) -> None:
    """Grade submissions in the sandbox; what was graded before and has not changed is kept."""
    from course_lib.grading import course as grading
    from course_lib.grading import run
    from course_lib.grading.jail import Limits

    for path in submissions:
        if not path.exists():
            raise ValueError(f"there is no {path}")
    if timeout <= 0 or memory <= 0 or (workers or 1) < 1 or every <= 0:
        raise ValueError("--timeout, --memory, --workers and --every must be above 0")
    limits = Limits(
        memory=int(memory * (1 << 30)), call=timeout, cells=3 * timeout, total=9 * timeout
    )
    count = workers or run.cores()
    interrupted = threading.Event()

    def interrupt(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt  # which a library may swallow if it comes at a bad moment

    signal.signal(signal.SIGINT, interrupt)
    with grading.alone(course):
        pool = run.Cluster(dask, count) if dask else run.Pool(count)
        try:
            grader = grading.Grading(course, grading.root(), pool, limits=limits)
            while True:
                problems = _grade_once(grader, submissions, quiet=watch)
                if not watch:
                    break
                if interrupted.is_set():
                    raise KeyboardInterrupt
                time.sleep(every)
        finally:
            pool.close()
    if problems:
        raise typer.Exit(1)


def _grade_once(grader: Grading, submissions: list[Path], *, quiet: bool) -> bool:
    """Grade what is new, tell it, and say whether something could not be graded."""
    from tqdm import tqdm

    counts: Counter[str] = Counter()
    problems = []
    with tqdm(unit="submission", disable=True if quiet else None) as bar:
        for one in grader.grade(submissions):
            bar.update()
            if one.result is None:
                problems.append(f"{one.student} ({one.assignment}): not graded: {one.problem}")
                continue
            counts[str(one.result["status"])] += 1
            counts["new"] += one.new
            if quiet and one.new:
                points = f"{one.result['points']:g} of {one.result['of']:g}"
                print(
                    f"{one.assignment} {one.student}: {points} ({one.result['status']})", flush=True
                )
    for line in [*grader.warnings, *problems]:
        print(f"note: {line}", file=sys.stderr)
    if not quiet:
        new = counts.pop("new", 0)
        told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        print(f"{sum(counts.values())} submissions, {new} of them new: {told or 'nothing found'}")
        if counts:
            print(
                f"marks: {grader.course / 'gradebook.db'}; the class: {grader.course / 'summary'}"
            )
            _unmarked(grader.course)
    return bool(problems)


def _unmarked(course: Path, assignment: str | None = None) -> None:
    """Say how many answers a person has still to mark, and where, if there are any."""
    from course_lib.grading import gradebook

    left = {
        name: count
        for name, count in gradebook.waiting(course).items()
        if assignment in (None, name)
    }
    if not left:
        return
    total = sum(left.values())
    told = ", ".join(f"{name} {count}" for name, count in left.items())
    print(
        f"{total} answer{' is' if total == 1 else 's are'} not marked by hand yet ({told}): start "
        f"'jupyter lab' in {course}, then Nbgrader, Formgrader, Manual Grading"
    )


@app.command()
def feedback(
    assignment: Annotated[str | None, typer.Argument(help="One assignment (default: all).")] = None,
    course: Course = Path("grading"),
) -> None:
    """Write every student's feedback page, with the marks and comments given by hand."""
    from course_lib.grading import course as grading

    count = sum(1 for _ in grading.feedback(course, grading.root(), assignment))
    if not count:
        raise ValueError(f"nothing is graded in {course}: 'course grade' comes first")
    print(f"{count} pages in {course / 'feedback'}")


class Platform(StrEnum):
    """What ``course export`` writes for."""

    CANVAS = "canvas"
    MOODLE = "moodle"
    GRADESCOPE = "gradescope"
    CSV = "csv"


@app.command()
def export(
    to: Annotated[Platform, typer.Argument(help="Where the marks go.")],
    assignment: Annotated[str | None, typer.Option(help="One assignment (default: all).")] = None,
    course: Course = Path("grading"),
    roster: Annotated[
        Path | None, typer.Option(help="The CSV that Canvas or Moodle exported, to be filled in.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write (default: in COURSE/export).")
    ] = None,
) -> None:
    """Write the marks as the CSV of Canvas or Moodle, Gradescope's results.json, or a plain CSV."""
    from course_lib.grading import course as grading

    paths, unknown = grading.export(course, str(to), assignment=assignment, roster=roster, out=out)
    for path in paths[:3]:
        print(path)
    if len(paths) > 3:
        print(f"... {len(paths)} files in all")
    _unmarked(course, assignment)
    for student in unknown:
        print(f"note: {student} is not in {roster}", file=sys.stderr)


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
        "sandbox": _sandbox(),
        "Chromium": chromium or "no (only the site's browser tests need it: apt install chromium)",
    }
    for key, value in rows.items():
        print(f"{key:12} {value}")


def _sandbox() -> str:
    """Start the sandbox that grading needs, and say what it is made of, or what it lacks."""
    try:
        from course_lib.grading.jail import Missing
        from course_lib.grading.sandbox import Sandbox
    except ImportError as error:
        return f"no: {error} (make env installs what grading needs)"
    try:
        with Sandbox() as sandbox, sandbox.child() as child:
            child.cells([])
            own = f"user {sandbox.own_user}" if sandbox.own_user else "the grader's own user"
            return (
                f"yes: namespaces, Landlock version {sandbox.report['landlock']}, seccomp "
                f"{sandbox.report['seccomp']}; students' code runs as {own}"
            )
    except Missing as error:
        return f"no, so 'course grade' refuses. {error}"


if __name__ == "__main__":
    main()
