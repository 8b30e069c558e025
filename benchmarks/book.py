"""What the book costs: each chapter's run, a build from nothing, a rebuild after an edit, a page's bytes.

Builds a copy of the checkout, so that nothing here touches your own build.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".venv", ".tools", "_build", ".git", "notebooks", "*_cache")


def timed(top: Path, *command: str) -> tuple[float, float, str]:
    """Run a command in ``top`` and return wall seconds, CPU seconds and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(top)}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run = subprocess.run(
        [sys.executable, *command], cwd=top, env=environment, capture_output=True, text=True
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if run.returncode:
        sys.exit(run.stdout + run.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, run.stdout


def build(top: Path) -> tuple[float, float, list[str]]:
    """Build the book and also return the lines that name an executed chapter."""
    wall, cpu, printed = timed(top, "-m", "course_lib.cli", "book")
    return wall, cpu, re.findall(r"(\S+\.md): Executed notebook in ([\d.]+) seconds", printed)


def row(name: str, wall: float, cpu: float, note: str) -> None:
    """Print one line of the table."""
    print(f"{name:34} {wall:8.1f} s wall {cpu:8.1f} s CPU  {note}", flush=True)


def main() -> None:
    """Measure and print."""
    bare = min(timed(ROOT, "-c", "pass")[0] for _ in range(5))
    ours = min(timed(ROOT, "-c", "import course_lib")[0] for _ in range(5))
    print(
        f"import course_lib: {1000 * (ours - bare):.0f} ms over {1000 * bare:.0f} ms for Python itself"
    )
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary) / "copy"
        shutil.copytree(ROOT, top, ignore=LEFT_OUT)
        wall, cpu, executed = build(top)
        row("build from nothing", wall, cpu, f"{len(executed)} chapters executed")
        for path, seconds in executed:
            print(f"    {Path(path).name:30} {float(seconds):8.1f} s")
        print(f"    {'all chapters':30} {sum(float(s) for _, s in executed):8.1f} s")
        row("nothing changed", *build(top)[:2], "")
        chapter = top / "book" / "represent" / "pca.md"
        chapter.write_text(chapter.read_text() + "\nOne more sentence.\n")
        wall, cpu, executed = build(top)
        row("a sentence added to one chapter", wall, cpu, f"{len(executed)} chapters executed")
        chapter.write_text(
            chapter.read_text() + "\n```{code-cell} ipython3\nassert 1 + 1 == 2\n```\n"
        )
        wall, cpu, executed = build(top)
        row("a cell added to one chapter", wall, cpu, f"{len(executed)} chapters executed")
        plots = top / "course_lib" / "plots.py"
        plots.write_text(plots.read_text() + "\n# another state of the package\n")
        wall, cpu, executed = build(top)
        row("a comment added to course_lib", wall, cpu, f"{len(executed)} chapters executed")
        for page in sorted((top / "_build" / "html").rglob("*.html")):
            html = page.read_text(encoding="utf-8")
            pictures = {page.parent / name for name in re.findall(r'src="([^"]+\.png)"', html)}
            size = page.stat().st_size + sum(
                path.stat().st_size for path in pictures if path.exists()
            )
            print(
                f"    {page.relative_to(top / '_build' / 'html')!s:34} {size / 1e3:8.0f} kB with pictures"
            )


if __name__ == "__main__":
    main()
