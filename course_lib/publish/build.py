"""Build the site: chapters executed once, pages, notebooks to download, the package's wheel."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from course_lib.publish import cache, chapters, site

#: Sphinx colours its lines even for a file.
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


class BuildError(RuntimeError):
    """The site could not be built; the message says what to look at."""


def html() -> Path:
    """Return the folder of the built site."""
    return chapters.root() / "_build" / "html"


def book(*, clean: bool = False) -> Iterator[str]:
    """Build the site, yielding the lines of progress.

    Chapters whose code and package are unchanged are not executed again; ``clean`` forgets all that
    was executed and builds every page.

    Raises ``BuildError`` if a cell fails, a reference is broken or anything else warns.
    """
    top = chapters.root()
    if clean:
        for folder in ("html", ".doctrees", ".executed"):
            shutil.rmtree(top / "_build" / folder, ignore_errors=True)
    chapters.chapters()  # a page that does not exist is named before anything runs
    command = [
        *(sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "book"),
        *("--config", "_config.yml", "--path-output", "."),
        *("-W", "-n", "--keep-going"),
    ]
    lines: list[str] = []
    # A chapter's kernel imports the package from the checkout, and MPL must not ask for a screen.
    # Its live figures are for a page: no kernel will be there to answer a widget.
    environment = {
        **os.environ,
        "MPLBACKEND": "agg",
        "PYTHONUNBUFFERED": "1",
        "COURSE_FIGURES": "page",
    }
    with subprocess.Popen(
        command,
        cwd=top,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            # The kernel's remark on its local sockets is the same for every chapter, and no news.
            text = _COLOUR.sub("", line).rstrip()
            if text and "[IPKernelApp]" not in text:
                lines.append(text)
                yield text
    if process.returncode:
        found = [line for line in lines if "WARNING" in line or "ERROR" in line]
        raise BuildError(
            "the book was not built"
            + (
                "; what stopped it:\n  " + "\n  ".join(found[:20])
                if found
                else ": see the lines above"
            )
        )
    yield from _notebooks()
    yield from _wheel()


def _notebooks() -> Iterator[str]:
    index = chapters.book_index()
    count = 0
    for page in chapters.chapters():
        if page.executed:
            nb = chapters.published(
                page, book=index, values=cache.glued(page), install=site.requirement()
            )
            chapters.write(nb, html() / "notebooks" / f"{page.name}.ipynb")
            count += 1
    yield f"{count} notebooks to download"


def _wheel() -> Iterator[str]:
    """Put the package's wheel beside the pages: Colab installs it from there."""
    stamp = html() / f".{site.WHEEL}.digest"
    if stamp.is_file() and stamp.read_text() == cache.digest() and (html() / site.WHEEL).is_file():
        return
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "hatchling",
            "build",
            "--target",
            "wheel",
            "--directory",
            str(html()),
        ],
        cwd=chapters.root(),
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise BuildError(f"the wheel was not built:\n{run.stdout}{run.stderr}")
    stamp.write_text(cache.digest())
    yield f"{site.WHEEL} beside the pages"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a request per picture is no news."""


def server(port: int = 0) -> http.server.ThreadingHTTPServer:
    """Return a server of the built site on 127.0.0.1, not yet serving; port 0 takes a free one.

    Raises ``BuildError`` if nothing is built yet or the port is taken.
    """
    if not (html() / "index.html").is_file():
        raise BuildError("there is no built site yet: run `make book` (or `course book`) first")
    handler = functools.partial(_Quiet, directory=str(html()))
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise BuildError(
            f"port {port} cannot be used ({error}): choose another with --port"
        ) from error


def serve_in_background() -> tuple[http.server.ThreadingHTTPServer, str]:
    """Serve the built site from a thread that ends with this process; return server and address."""
    running = server()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    return running, f"http://127.0.0.1:{running.server_address[1]}/"
