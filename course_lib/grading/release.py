"""Make what students get: released notebooks, a tree with no solutions, and a search for leaks.

nbgrader makes the release from ``solutions/<name>/<name>.py``; here it gets the same bytes every time.
``scan`` looks for secrets in anything that is published. A secret is

- a line of a solution, or two lines that follow each other, of at least ``LINE`` characters that are
  no space (``PAIR`` for two);
- a sentence of the model answer to a written question, as long;
- a line of code of ``checks.py``, ``probe.py`` and ``catalogue.py`` of at least ``PAIR`` characters
  (shorter ones are everybody's), and a comment or a line of a docstring of ``LINE``. Titles and
  messages are told to students, so strings alone are none;
- the name of a function, class or constant of these three files, of at least ``NAME`` characters, if
  it is of more than one word.

What the released notebooks, the package (but for this part of it) and the book say themselves is no
secret: the package has the course's own implementations, to be read.

Chapter: book/teach/grading.md
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import html
import io
import itertools
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from course_lib.grading import results

#: How many characters, without spaces, make a line, two lines together, and a name a secret.
LINE, PAIR, NAME = 25, 40, 9
#: What a student's tree lacks: files of these beginnings.
WITHHELD = ("solutions/", "tests/grading/", "tests/site/test_no_solutions", "benchmarks/grading")

#: What stands in Markdown between two such comments stays with the teacher, too.
_FOR_TEACHERS = re.compile(r"<!-- for teachers -->.*?<!-- /for teachers -->\n*", re.DOTALL)

_STUB = '# YOUR CODE HERE\nraise NotImplementedError("write this part")'
_BLOCK = re.compile(r"(?ms)^[ \t]*### BEGIN SOLUTION[^\n]*\n(.*?)^[ \t]*### END SOLUTION")
_PICTURES = (".png", ".svg")
#: Files that hold no text: they are not searched.
_OPAQUE = {
    *(
        ".avif",
        ".gif",
        ".ico",
        ".jpeg",
        ".jpg",
        ".mp4",
        ".npy",
        ".npz",
        ".png",
        ".pt",
        ".wav",
        ".webp",
    ),
    *(".otf", ".safetensors", ".ttf", ".woff", ".woff2"),
}
_HIDDEN = ("checks.py", "probe.py", "catalogue.py")


def names(root: Path) -> list[str]:
    """Return the assignments that the repository at ``root`` has a source of."""
    return sorted(
        path.parent.name for path in root.glob("solutions/*/*.py") if path.stem == path.parent.name
    )


def notebook(root: Path, name: str) -> bytes:
    """Return the notebook that students get, made by nbgrader from ``solutions/<name>/<name>.py``.

    The same source gives the same bytes. Raises ``ValueError`` for a name that there is not, and with
    nbgrader's words for a source that it refuses.
    """
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import Config

    source = teacher(root, name)
    told = _Told()
    with tempfile.TemporaryDirectory() as folder:
        course = Path(folder).resolve()
        path = course / "source" / name / f"{name}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_bytes(source)
        config = Config()
        config.CourseDirectory.root = str(course)
        config.CourseDirectory.assignment_id = name
        config.CourseDirectory.db_url = f"sqlite:///{course / 'gradebook.db'}"
        config.ClearSolutions.code_stub = {"python": _STUB}
        config.ClearSolutions.text_stub = "YOUR ANSWER HERE"
        config.GenerateAssignment.no_database = True
        logger = logging.Logger("release")
        logger.addHandler(told)
        directory = CourseDirectory(config=config, log=logger)
        try:
            converter = GenerateAssignment(coursedir=directory, config=config, log=logger)
            # no_database alone leaves the step that writes to it.
            converter.preprocessors = [
                step for step in converter.preprocessors if step.__name__ != "SaveCells"
            ]
            converter.start()
            made = course / "release" / name / f"{name}.ipynb"
            return normal(made.read_bytes())
        except Exception as error:  # whatever a preprocessor throws is about the source
            raise ValueError(f"nbgrader can't release {name!r}: {told.why or error}") from None


def teacher(root: Path, name: str) -> bytes:
    """Return the teacher's notebook, with its solutions, from ``solutions/<name>/<name>.py``."""
    import jupytext
    import nbformat

    path = root / "solutions" / name / f"{name}.py"
    if name not in names(root):
        raise ValueError(
            f"no assignment {name!r} in {root}; there are {', '.join(names(root)) or 'none'}"
        )
    read = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    used: set[str] = set()
    for position, cell in enumerate(read.cells):
        grade_id = str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", grade_id) or grade_id in used:
            grade_id = hashlib.sha256(f"{name} {position}".encode()).hexdigest()[:12]
        cell["id"] = grade_id
        used.add(grade_id)
    return normal(nbformat.writes(read, version=4).encode())


def normal(data: bytes) -> bytes:
    """Return a notebook's JSON in one fixed form, without what depends on a machine or a version."""
    read = json.loads(data)
    read["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    read["nbformat"], read["nbformat_minor"] = 4, 5
    return json.dumps(read, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"


def write(root: Path, name: str) -> Path:
    """Write ``assignments/<name>/<name>.ipynb``, and pictures beside it, where they changed."""
    folder = root / "assignments" / name
    target = folder / f"{name}.ipynb"
    put(target, notebook(root, name))
    source = root / "solutions" / name
    pictures = {path.name: path for path in source.iterdir() if path.suffix in _PICTURES}
    for picture in pictures.values():
        put(folder / picture.name, picture.read_bytes())
    for left in folder.iterdir():
        if left.suffix in _PICTURES and left.name not in pictures:
            left.unlink()
    return target


def put(path: Path, data: bytes) -> None:
    """Write a file whole, or leave it alone where it holds this already."""
    if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
        return
    results.write(path, data)


def student_repo(root: Path, target: Path) -> int:
    """Write the repository at ``root`` to ``target`` without its solutions; return how many files.

    It holds what git tracks, as it is on the disk, and none of its history. In Markdown, what stands
    between the comments ``for teachers`` and ``/for teachers`` is left out. All of it or nothing is
    written. Raises ``ValueError`` for a target that is in the repository or holds something, for a
    root that git does not know, and when a secret would get out.
    """
    root, target = root.resolve(), target.absolute()
    inside = target.resolve()
    if inside == root or root in inside.parents or inside in root.parents:
        raise ValueError(
            f"{target} is inside the repository, or around it: name a folder beside it"
        )
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ValueError(f"{target} is there and is no folder: name a new one")
    if target.is_dir() and any(target.iterdir()):
        raise ValueError(f"{target} is not empty: name a new folder")
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z"], capture_output=True, check=False
    )
    if listed.returncode:
        raise ValueError(
            f"git does not list {root}: {listed.stderr.decode(errors='replace').strip()}"
        )
    files = [os.fsdecode(line) for line in listed.stdout.split(b"\0") if line]
    files = [
        file for file in files if not file.startswith(WITHHELD) and os.path.lexists(root / file)
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        for file in files:
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / file, tree / file, follow_symlinks=False)
            if file.endswith(".md") and not (tree / file).is_symlink():
                text = (tree / file).read_bytes().decode()
                if _FOR_TEACHERS.search(text):
                    students = _FOR_TEACHERS.sub("", text).rstrip() + "\n"
                    (tree / file).write_bytes(students.encode())
        leaks = scan([tree], root)
        if leaks:
            told = [leak.removeprefix(f"{tree}{os.sep}") for leak in leaks[:5]]
            raise ValueError("a secret would get out: " + "; ".join(told))
        if target.is_dir():
            target.rmdir()
        os.rename(tree, target)
    return len(files)


def scan(paths: Iterable[Path], root: Path) -> list[str]:
    """Return where files, folders, zips and wheels tell a secret of the repository at ``root``.

    Notebooks, JSON, HTML and archives are decoded before they are searched. Each line names the file,
    the secret's own file and its beginning.
    """
    lines, words = _secrets(root)
    windows = _windows(lines)
    found = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"nothing to scan at {path}")
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in below:
            if file.is_symlink() or not file.is_file():
                continue
            for label, text in _texts(str(file), file.read_bytes()):
                hits = {line: lines[line] for line in _within(_packed(text), windows)}
                hits |= {word: words[word] for word in set(re.findall(r"\w+", text)) & words.keys()}
                found += [f"{label} tells {where}: {secret[:60]}" for secret, where in hits.items()]
    return list(dict.fromkeys(found))


def _secrets(root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the secret lines, without spaces, and the secret words, each with where it is from."""
    lines: dict[str, str] = {}
    words: dict[str, str] = {}
    public = [
        path.read_text(encoding="utf-8")
        for folder, kinds in (("course_lib", (".py", ".js", ".json")), ("book", (".md", ".bib")))
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in kinds and path.is_file()
        if (root / "course_lib" / "grading") not in path.parents
    ]
    for name in names(root):
        folder = root / "solutions" / name
        where = f"solutions/{name}/{name}.py"
        for cell in json.loads(teacher(root, name))["cells"]:
            source = "".join(cell["source"])
            meta = cell["metadata"].get("nbgrader", {})
            if not meta.get("solution"):
                public.append(source)
            elif cell["cell_type"] == "markdown":
                lines |= dict.fromkeys(_sentences(source), where)
            else:
                public.append(_BLOCK.sub("", source) if _BLOCK.search(source) else "")
                for block in _BLOCK.findall(source) or [source]:
                    lines |= dict.fromkeys(_code(block, LINE, pairs=True), where)
                    lines |= dict.fromkeys(_comments(block), where)
        for file in _HIDDEN:
            if (folder / file).is_file():
                text = (folder / file).read_text(encoding="utf-8")
                where = f"solutions/{name}/{file}"
                lines |= dict.fromkeys(
                    [*_code(text, PAIR), *_comments(text), *_docstrings(text)], where
                )
                words |= dict.fromkeys(_defined(text), where)
    said = _packed("\n".join(public))
    spoken = set(re.findall(r"\w+", "\n".join(public)))
    return (
        {line: where for line, where in lines.items() if line not in said},
        {word: where for word, where in words.items() if word not in spoken},
    )


#: Every ``_STEP``-th window of a text is looked up; each secret is long enough to hold one of them.
_STEP = 8
_WINDOW = LINE - _STEP + 1


def _windows(lines: Iterable[str]) -> dict[str, list[str]]:
    """Return the first windows of each secret, and whose they are."""
    windows: dict[str, list[str]] = {}
    for line in lines:
        for start in range(_STEP):
            windows.setdefault(line[start : start + _WINDOW], []).append(line)
    return windows


def _within(packed: str, windows: Mapping[str, list[str]]) -> list[str]:
    """Return the secrets in a text, at a cost that does not grow with their number."""
    seen = {
        packed[start : start + _WINDOW] for start in range(0, len(packed) - _WINDOW + 1, _STEP)
    } & windows.keys()
    candidates = dict.fromkeys(line for window in sorted(seen) for line in windows[window])
    return [line for line in candidates if line in packed]


def _packed(text: str) -> str:
    return "".join(text.split())


def _sentences(text: str) -> Iterator[str]:
    """Return the sentences of prose that are long enough to be told from others."""
    for sentence in re.split(r"(?<=[.!?:])\s+|\n\s*\n|\n\s*[-*]\s", text):
        if len(_packed(sentence)) >= LINE:
            yield _packed(sentence)


def _code(text: str, least: int, *, pairs: bool = False) -> Iterator[str]:
    """Return the lines of code, and pairs of them, that are more than words and strings."""
    lines = []
    for line in text.splitlines():
        bare = re.sub(r"""^([^"'#]*)#.*""", r"\1", line).strip()
        packed = _packed(bare)
        inert = re.fullmatch(r"""[rbfRBF]?(["']).*\1[\s,()\]}]*""", bare) or bare.startswith(
            ("import ", "from ", '"""', "'''")
        )
        if packed and not inert:
            lines.append(packed if _is_code(bare) else "")
    yield from (line for line in lines if len(line) >= least)
    yield from (
        first + second
        for first, second in itertools.pairwise(lines)
        if pairs and first and second and len(first + second) >= PAIR
    )


def _is_code(line: str) -> bool:
    """Say whether a line has a sign that prose has not."""
    return bool(re.search(r"[=(\[]|^(return|for|if|while|with|raise|yield)\b", line))


def _comments(text: str) -> Iterator[str]:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(textwrap.dedent(text)).readline))
    except (tokenize.TokenError, SyntaxError):
        return
    for token in tokens:
        packed = _packed(token.string.lstrip("#: "))
        if token.type == tokenize.COMMENT and len(packed) >= LINE:
            yield packed


def _docstrings(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
            for line in (ast.get_docstring(node) or "").splitlines():
                if len(_packed(line)) >= LINE and not line.startswith("Chapter:"):
                    yield _packed(line)


def _defined(text: str) -> Iterator[str]:
    """Return the names that a file gives to functions, classes and its own constants."""
    tree = ast.parse(text)
    found = [
        node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    ]
    for node in tree.body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Name):
                found.append(target.id)
    # A single word, as "directions", is everybody's.
    yield from (name for name in found if len(name) >= NAME and "_" in name.strip("_"))


def _texts(label: str, data: bytes, depth: int = 3) -> Iterator[tuple[str, str]]:
    """Return the texts of a file, decoded in each way that it may be written."""
    suffix = Path(label).suffix.lower()
    if suffix in _OPAQUE:
        return
    if data[:4] == b"PK\x03\x04" and depth:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    yield from _texts(f"{label}/{member.filename}", archive.read(member), depth - 1)
        return
    if data[:2] == b"\x1f\x8b" and depth:
        try:
            plain = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            plain = b""  # two bytes that only look like it
        if tarfile.is_tarfile(io.BytesIO(plain)):
            with tarfile.open(fileobj=io.BytesIO(plain)) as bundle:
                for part in bundle:
                    file = bundle.extractfile(part)
                    if file is not None:
                        yield from _texts(f"{label}/{part.name}", file.read(), depth - 1)
            return
        data = plain or data
    text = data.decode("utf-8", errors="ignore")
    yield label, text
    if suffix in (".html", ".htm", ".xml", ".svg", ".js", ".json", ".ipynb") or "&lt;" in text:
        # Tags go first: what is left of &lt; and &gt; is text.
        yield label, html.unescape(re.sub(r"<[^>]*>", "", text))
        yield label, html.unescape(text)
    try:
        told = "\n".join(_strings(json.loads(text)))
    except (ValueError, RecursionError):
        if "\\n" in text or "\\u" in text:
            yield label, re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", _unescaped, text)
        return
    yield label, told
    if "<" in told:
        yield label, html.unescape(re.sub(r"<[^>]*>", "", told))


def _unescaped(match: re.Match[str]) -> str:
    if match[1]:
        return chr(int(match[1], 16))
    return {"n": "\n", "t": "\t", "r": "\r"}.get(match[2], match[2])


def _strings(value: Any) -> Iterator[str]:
    """Return the strings in a JSON value; a list of strings is one text, as in notebooks."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, Sequence):
        if value and all(isinstance(inner, str) for inner in value):
            yield "".join(value)
        else:
            for inner in value:
                yield from _strings(inner)


class _Told(logging.Handler):
    """Keeps what nbgrader logs off the terminal, and why it failed."""

    why = ""

    def emit(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if error is not None and not self.why:
            self.why = " ".join(str(error).split()) or type(error).__name__
