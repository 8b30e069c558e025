"""Where the site and its repository live on the web, as far as this machine can know.

A fork publishes under its own name with nothing to edit: GitHub's own variables say it in a workflow,
the remote ``origin`` on a laptop. Where nothing is known, the page offers no link that would be dead.
"""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache

from course_lib import __version__
from course_lib.publish.chapters import root

#: The branch that the publishing workflow pushes the built site to; Colab reads notebooks from it.
PAGES_BRANCH = "gh-pages"
WHEEL = f"course_lib-{__version__}-py3-none-any.whl"


@cache
def repository() -> str:
    """Return the repository's web address (``https://github.com/<owner>/<name>``), or ``""``."""
    if os.environ.get("COURSE_REPOSITORY"):
        return os.environ["COURSE_REPOSITORY"].rstrip("/").removesuffix(".git")
    if os.environ.get("GITHUB_REPOSITORY"):
        server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
        return f"{server}/{os.environ['GITHUB_REPOSITORY']}"
    try:
        remote = subprocess.run(
            ["git", "-C", str(root()), "remote", "get-url", "origin"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.fullmatch(
        r"(?:https://|git@)github\.com[/:]([\w.-]+)/([\w.-]+?)(?:\.git)?/?", remote
    )
    return f"https://github.com/{match[1]}/{match[2]}" if match else ""


def address() -> str:
    """Return the published site's address with a closing slash, or ``""`` if it is not known."""
    if os.environ.get("COURSE_SITE"):
        return os.environ["COURSE_SITE"].rstrip("/") + "/"
    match = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+)", repository())
    return f"https://{match[1]}.github.io/{match[2]}/" if match else ""


def colab(pagename: str) -> str:
    """Return the link that opens a chapter's published notebook in Colab, or ``""``."""
    match = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", repository())
    if not match:
        return ""
    return (
        f"https://colab.research.google.com/github/{match[1]}/blob/{PAGES_BRANCH}/"
        f"notebooks/{pagename}.ipynb"
    )


def requirement() -> str:
    """Return what ``pip install`` takes to install this package, and all that chapters use, elsewhere.

    The wheel that was built with the site, where its address is known; else the checkout.
    """
    return f"course-lib[imagenet] @ {address()}{WHEEL}" if address() else f"{root()}[imagenet]"
