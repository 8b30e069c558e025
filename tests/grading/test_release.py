"""The release: the same bytes from the same source, and no secret in anything that is published."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import tiny
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from course_lib.grading import rebuild, release

ROOT = Path(__file__).parents[2]
SECRET = "quotient_of_two = x / math.sqrt(4.0)"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a small assignment, which git tracks, and a little more."""
    root = tiny.make(tmp_path_factory.mktemp("repository"))
    for name in (
        "README.md",
        "tests/grading/test_it.py",
        "tests/test_it.py",
        "solutions/README.md",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("Read solutions/ with care.\n")
    subprocess.run(["git", "-C", str(root), "init", "-q"], check=True)
    subprocess.run(["git", "-C", str(root), "add", "-A"], check=True)
    (root / "untracked.txt").write_text("a note\n")
    return root


def sources(data: bytes) -> dict[str, str]:
    return {cell["id"]: "".join(cell["source"]) for cell in json.loads(data)["cells"]}


@pytest.mark.parametrize("name", release.names(ROOT))
def test_what_students_get_is_what_the_source_gives(name: str) -> None:
    committed = ROOT / "assignments" / name / f"{name}.ipynb"
    assert committed.read_bytes() == release.notebook(ROOT, name), f"run 'course release {name}'"
    master = rebuild.load(name, committed.read_bytes())
    assert len(master.of("setup")) == 1 and len(master.of("question")) == 1
    assert len(master.of("answer")) == len(master.of("grade")) >= 4


def test_there_are_assignments() -> None:
    assert release.names(ROOT)


def test_nothing_that_is_published_tells_a_secret(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    tree = tmp_path / "students"
    assert release.student_repo(ROOT, tree) > 100
    assert release.scan([wheel, tree, ROOT / "assignments"], ROOT) == []
    assert not (tree / ".git").exists() and not (tree / "tests/grading").exists()
    assert not (tree / "solutions").exists()
    for needed in ("Makefile", "book/_toc.yml", "course_lib/cli.py", "pyproject.toml"):
        assert (tree / needed).read_bytes() == (ROOT / needed).read_bytes()
    # What the search must find, it finds.
    secret = [
        ROOT / "solutions" / name / file
        for name in release.names(ROOT)
        for file in (f"{name}.py", "checks.py", "probe.py", "catalogue.py")
    ]
    found = release.scan(secret, ROOT)
    assert all(any(line.startswith(f"{path} tells") for line in found) for path in secret)


def test_the_release_has_stubs_for_solutions(root: Path) -> None:
    made = release.notebook(root, "tiny")
    assert made == release.notebook(root, "tiny")
    told = sources(made)
    stub = '    # YOUR CODE HERE\n    raise NotImplementedError("write this part")'
    assert told["half"] == f'def half(x):\n    """Return half of x."""\n{stub}'
    assert told["double"] == f"def double(x):\n{stub}"
    assert told["question"] == "YOUR ANSWER HERE"
    assert told["check_half"] == 'assert half(8) == 4, "divide by two"'
    notebook = json.loads(made)
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    by_id = {cell["id"]: cell["metadata"] for cell in notebook["cells"]}
    assert by_id["check_half"]["editable"] is False and by_id["check_half"]["deletable"] is False
    assert by_id["setup"]["tags"] == ["setup"]
    assert len(by_id) == len(notebook["cells"])
    assert all("checksum" in meta["nbgrader"] for meta in by_id.values() if "nbgrader" in meta)
    assert made.endswith(b"}\n") and b"/" + b"tmp" not in made


def changed(root: Path, tmp_path: Path, old: str, new: str) -> Path:
    other = tmp_path / "changed"
    shutil.copytree(root, other)
    path = other / "solutions/tiny/tiny.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return other


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"grade_id": "double"', '"grade_id": "half"', "duplicate"),
        ("### END SOLUTION", "", "no end solution"),
        ('"schema_version": 3', '"schema_version": 99', "schema|version|newer"),
    ],
)
def test_what_nbgrader_refuses_is_told(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], old: str, new: str, told: str
) -> None:
    with pytest.raises(ValueError, match=f"(?i)nbgrader can't release 'tiny': .*({told})"):
        release.notebook(changed(root, tmp_path, old, new), "tiny")
    assert capfd.readouterr() == ("", "")


def test_a_wrong_name_is_told(root: Path) -> None:
    for call in (release.notebook, release.write):
        with pytest.raises(ValueError, match=r"no assignment '../tiny' in .*; there are tiny"):
            call(root, "../tiny")


def test_write_leaves_alone_what_did_not_change(root: Path, tmp_path: Path) -> None:
    other = changed(root, tmp_path, "divide by two", "halve it")
    picture = other / "solutions/tiny/picture.svg"
    picture.write_text("<svg/>")
    path = release.write(other, "tiny")
    first = path.stat()
    assert "halve it" in path.read_text() and (path.parent / "picture.svg").is_file()
    assert release.write(other, "tiny") == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (first.st_mtime_ns, first.st_ino)
    picture.unlink()
    release.write(other, "tiny")
    assert sorted(file.name for file in path.parent.iterdir()) == ["tiny.ipynb"]


def test_nbgrader_validates_source_and_release(root: Path, tmp_path: Path) -> None:
    from nbgrader.validator import Validator

    teacher, student = tmp_path / "teacher.ipynb", tmp_path / "student.ipynb"
    teacher.write_bytes(release.teacher(root, "tiny"))
    student.write_bytes(release.notebook(root, "tiny"))
    assert Validator().validate(str(teacher)) == {}
    failed = Validator().validate(str(student))["failed"]
    assert [cell["source"] for cell in failed] == [
        'assert half(8) == 4, "divide by two"',
        "assert double(4) == 8",
        "YOUR ANSWER HERE",
    ]
    assert all("NotImplementedError" in cell["error"] for cell in failed[:2])


def plant(path: Path, text: str) -> None:
    """Write a text into a file in the way of its kind."""
    code = f"def half(x):\n    {text}\n"
    if path.suffix == ".ipynb":
        cell = {"cell_type": "code", "source": code.splitlines(keepends=True), "outputs": []}
        path.write_text(json.dumps({"cells": [cell], "metadata": {}}))
    elif path.suffix == ".html":
        path.write_text(
            f"<html><body>{highlight(code, PythonLexer(), HtmlFormatter())}</body></html>"
        )
    elif path.suffix == ".js":
        path.write_text(f"const page = {json.dumps({'code': code})};")
    elif path.suffix in (".whl", ".zip"):
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("course_lib/half.py", code)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner.zip" if path.suffix == ".zip" else "unused", inner.getvalue())
    elif path.suffix == ".gz":
        with tarfile.open(path, "w:gz") as bundle:
            member = tarfile.TarInfo("half.py")
            member.size = len(code)
            bundle.addfile(member, io.BytesIO(code.encode()))
    else:
        path.write_text(code)


@pytest.mark.parametrize(
    "name", ["a.ipynb", "a.html", "a.js", "a.whl", "a.zip", "a.tar.gz", "a.md", "below/a.txt"]
)
@pytest.mark.parametrize(
    ("secret", "where"),
    [
        (SECRET, "tiny.py"),
        ("quotient_of_two  =  x/math.sqrt( 4.0 )", "tiny.py"),
        ("draw_the_halves(1)", "checks.py"),
        ("y = lambda x: {'y': x}; draw=draw_the_halves, expect=lambda x: 1", "checks.py"),
        ("Halving is doubling seen in a mirror.", "tiny.py"),
    ],
)
def test_a_planted_leak_is_seen(
    root: Path, tmp_path: Path, name: str, secret: str, where: str
) -> None:
    path = tmp_path / "published" / name
    path.parent.mkdir(parents=True)
    plant(path, "return x")
    assert release.scan([tmp_path / "published"], root) == []
    plant(path, secret)
    found = release.scan([tmp_path / "published"], root)
    assert found and all(f"tells solutions/tiny/{where}" in line for line in found)
    assert all(str(path) in line for line in found)


def test_what_the_package_or_the_book_says_is_no_secret(root: Path, tmp_path: Path) -> None:
    other = shutil.copytree(root, tmp_path / "repository")
    assert release.scan([root / "solutions/tiny/tiny.py"], other)
    for name in ("course_lib/half.py", "book/half.md"):
        path = other / name
        path.parent.mkdir()
        path.write_text(
            f"    {SECRET}\n    return quotient_of_two\nHalving is doubling seen in a mirror.\n"
        )
        found = release.scan([root / "solutions/tiny/tiny.py"], other)
        assert not any("quotient" in line or "Halving" in line for line in found)
        shutil.rmtree(path.parent)
    # What only the grader itself says was never published on purpose.
    path = other / "course_lib/grading/half.py"
    path.parent.mkdir(parents=True)
    path.write_text(SECRET)
    assert release.scan([path], other)


def test_titles_and_messages_are_no_secrets(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "feedback.html"
    page.write_text("<p>half: of any number</p><p>import math, tiny, check_half, half, x, y</p>")
    assert release.scan([page], root) == []
    with pytest.raises(ValueError, match="nothing to scan"):
        release.scan([tmp_path / "absent.html"], root)


def test_a_students_tree_has_all_but_the_solutions(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "students"
    assert release.student_repo(root, target) == 3
    files = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert files == ["README.md", "assignments/tiny/tiny.ipynb", "tests/test_it.py"]
    assert [path.name for path in target.parent.iterdir()] == ["students"]
    with pytest.raises(ValueError, match="is not empty"):
        release.student_repo(root, target)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert release.student_repo(root, empty) == 3


def test_a_students_tree_leaves_out_what_is_for_teachers(root: Path, tmp_path: Path) -> None:
    other = shutil.copytree(root, tmp_path / "marked")
    said = "<!-- for teachers -->\n## {0}\n\n<!-- /for teachers -->\n\n"
    (other / "README.md").write_text(f"# A\n\n{said.format('B')}## C\n\n{said.format('D')}")
    release.student_repo(other, tmp_path / "students")
    assert (tmp_path / "students" / "README.md").read_text() == "# A\n\n## C\n"


def test_what_students_read_first_offers_no_grading() -> None:
    for name in ("README.md", "assignments/README.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        students = release._FOR_TEACHERS.sub("", text)
        assert len(students) < len(text) and "teachers -->" not in students
        for word in ("course grade", "course release", "../solutions"):
            assert word not in students, (name, word)


def test_wrong_targets_and_roots_are_refused(root: Path, tmp_path: Path) -> None:
    for target in (root, root / "students", root.parent):
        with pytest.raises(ValueError, match="inside the repository, or around it"):
            release.student_repo(root, target)
    inside = tmp_path / "link"
    inside.symlink_to(root)
    with pytest.raises(ValueError, match="inside the repository"):
        release.student_repo(root, inside / "students")
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ValueError, match="is no folder"):
        release.student_repo(root, file)
    with pytest.raises(ValueError, match="git does not list"):
        release.student_repo(tiny.make(tmp_path / "plain"), tmp_path / "students")
    assert file.read_text() == "mine" and not (tmp_path / "students").exists()


def test_a_students_tree_is_all_or_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "below" / "students"
    other = shutil.copytree(root, tmp_path / "leaking")
    (other / "README.md").write_text(SECRET)
    with pytest.raises(ValueError, match=r"a secret would get out: README.md tells solutions/tiny"):
        release.student_repo(other, target)
    assert list(target.parent.iterdir()) == []

    copied: list[Any] = []
    copy = shutil.copy2

    def full(*given: Any, **kind: Any) -> None:
        copied.append(given)
        if len(copied) == 3:
            raise OSError(28, "No space left on device")
        copy(*given, **kind)

    monkeypatch.setattr(release.shutil, "copy2", full)
    with pytest.raises(OSError, match="No space left"):
        release.student_repo(root, target)
    assert list(target.parent.iterdir()) == []
