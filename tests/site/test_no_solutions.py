"""The published site, and the feedback students get, tell nothing of solutions and hidden checks."""

from __future__ import annotations

import re
from pathlib import Path

from course_lib.grading import release
from course_lib.publish import build, chapters


def test_the_site_tells_no_secret() -> None:
    assert release.names(chapters.root())
    assert release.scan([build.html()], chapters.root()) == []


def test_a_secret_on_the_site_would_be_seen(tmp_path: Path) -> None:
    source = (chapters.root() / "solutions" / "minimax" / "minimax.py").read_text(encoding="utf-8")
    solution = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", source, re.DOTALL)[-1]
    line = max(solution.splitlines(), key=len).strip()
    page = (build.html() / "index.html").read_text(encoding="utf-8")
    (tmp_path / "index.html").write_text(page.replace("</main>", f"<p>{line}</p></main>"))
    assert release.scan([tmp_path], chapters.root())
