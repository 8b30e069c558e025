"""Rewrite MyST Markdown as the plain Markdown that every notebook front end shows.

The built site reads MyST itself. The notebooks that readers download open in JupyterLab, Colab or
VS Code, which show a directive as raw text: here each becomes what it means. A directive or role this
module does not know is an error, so that no notebook is published half-readable.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

_FENCE = re.compile(
    r"^(?P<indent>\s*)(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:-]+)\}[ \t]*(?P<title>.*)$"
)
_LABEL = re.compile(r"^\((?P<label>[\w:.-]+)\)=\s*$")
_ROLE = re.compile(r"\{(?P<role>[a-z]+(?::[a-z]+)?)\}`(?P<text>[^`]+)`")
_EQUATION_LABEL = re.compile(r"^\s*\$\$\s*\((?P<label>[\w:.-]+)\)\s*$")

_ADMONITIONS = frozenset(
    {"note", "tip", "warning", "important", "seealso", "caution", "admonition"}
)


class PlainError(ValueError):
    """A piece of MyST that has no plain form here."""


@dataclass
class Book:
    """What a chapter's text may refer to: titles by label and by file, references by key."""

    titles: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)


def plain(text: str, *, book: Book, folder: Path, values: Mapping[str, object]) -> str:
    """Return ``text`` without MyST: directives, roles, labels and targets resolved.

    ``folder`` is where the chapter lies (for included code), ``values`` what its cells glued.

    Raises ``PlainError`` for a directive, role or reference that is not known, and for a line that a
    wrapped percent sign has made a comment.
    """
    out: list[str] = []
    equations: dict[str, int] = {}
    lines = text.splitlines()
    for line in lines:
        if match := _EQUATION_LABEL.match(line):
            equations[match["label"]] = len(equations) + 1
    i = 0
    while i < len(lines):
        line = lines[i]
        if match := _FENCE.match(line):
            end = _closing(lines, i, match["fence"], match["indent"])
            options, body = _split_options(lines[i + 1 : end])

            def inner(part: list[str]) -> str:
                return plain("\n".join(part), book=book, folder=folder, values=values)

            out.append(
                _directive(match["name"], match["title"].strip(), options, body, inner, folder)
            )
            i = end + 1
            continue
        if line.lstrip().startswith("```"):  # ordinary code: nothing in it is MyST
            end = _closing(lines, i, re.match(r"\s*(`+)", line).group(1), "")  # type: ignore[union-attr]
            out.extend(lines[i : end + 1])
            i = end + 1
            continue
        i += 1
        if line.lstrip().startswith("%"):
            raise PlainError(
                f"a line that begins with % is a comment, and is not shown: {line.strip()}"
            )
        if _LABEL.match(line):
            continue
        if match := _EQUATION_LABEL.match(line):
            out.append(f"\\tag{{{equations[match['label']]}}}")
            out.append("$$")
            continue
        out.append(_ROLE.sub(lambda m: _role(m["role"], m["text"], book, values, equations), line))
    return "\n".join(out)


def _closing(lines: list[str], start: int, fence: str, indent: str) -> int:
    for j in range(start + 1, len(lines)):
        stripped = lines[j].strip()
        if stripped and set(stripped) == {fence[0]} and len(stripped) >= len(fence):
            return j
    raise PlainError(f"no end found for: {lines[start].strip()}")


def _split_options(body: list[str]) -> tuple[dict[str, str], list[str]]:
    if body and body[0].strip() == "---":
        end = next(j for j in range(1, len(body)) if body[j].strip() == "---")
        return dict(yaml.safe_load("\n".join(body[1:end])) or {}), body[end + 1 :]
    options = {}
    j = 0
    while j < len(body) and (match := re.match(r"^\s*:([\w-]+):[ \t]*(.*)$", body[j])):
        options[match[1]] = match[2]
        j += 1
    return options, body[j:]


def _quote(title: str, body: str) -> str:
    lines = ([f"**{title}**", ""] if title else []) + body.strip().splitlines()
    return "\n".join(f"> {line}".rstrip() for line in lines)


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body.strip()}\n\n</details>"


def _directive(
    name: str,
    title: str,
    options: Mapping[str, str],
    body: list[str],
    inner: Callable[[list[str]], str],
    folder: Path,
) -> str:
    if name in _ADMONITIONS:
        heading = (
            inner([title]) if title else ("See also" if name == "seealso" else name.capitalize())
        )
        shown = inner(body)
        return (
            _folded(heading, shown)
            if "dropdown" in options.get("class", "")
            else _quote(heading, shown)
        )
    if name == "dropdown":
        return _folded(inner([title]), inner(body))
    if name in ("exercise", "exercise-start"):
        return _quote(f"Exercise. {inner([title])}".strip().rstrip("."), inner(body))
    if name == "solution":
        return _folded("Solution", inner(body))
    if name == "math":
        return "\n".join(["$$", *body, "$$"])
    if name == "literalinclude":
        return _included(folder / title, options)
    raise PlainError(f"the directive {{{name}}} has no plain form; see course_lib/publish/plain.py")


def _included(path: Path, options: Mapping[str, str]) -> str:
    source = path.read_text(encoding="utf-8")
    if wanted := options.get("pyobject"):
        lines = source.splitlines()
        node = _find(ast.parse(source), wanted)
        if node is None:
            raise PlainError(f"{path.name} has no {wanted}")
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        source = "\n".join(lines[first - 1 : node.end_lineno])
    return f"```{options.get('language', 'python')}\n{source.rstrip()}\n```"


def _find(tree: ast.AST, wanted: str) -> ast.FunctionDef | ast.ClassDef | None:
    first, _, rest = wanted.partition(".")
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == first:
            return _find(child, rest) if rest else child
    return None


def _role(
    role: str,
    text: str,
    book: Book,
    values: Mapping[str, object],
    equations: Mapping[str, int],
) -> str:
    match = re.match(r"^(?P<shown>.*?)\s*<(?P<target>[^>]+)>$", text)
    shown, target = (match["shown"], match["target"]) if match else ("", text)
    if role == "glue:text":
        name, _, spec = text.partition(":")
        if name not in values:
            return "…"  # the notebook has not been executed; its own cell prints the value
        value = values[name]
        return format(value, spec) if spec else str(value)
    if role in ("cite:p", "cite:t", "cite"):
        found = [book.references.get(key.strip(), "") for key in text.split(",")]
        if not all(found):
            raise PlainError(f"no reference for {text!r} in the bibliography")
        return f"({'; '.join(found)})" if role != "cite:t" else "; ".join(found)
    if role in ("ref", "doc"):
        title = shown or book.titles.get(target.split("/")[-1])
        if not title:
            raise PlainError(f"nothing is labelled {target!r}")
        return f"*{title}*"
    if role == "eq":
        if target not in equations:
            raise PlainError(f"no equation is labelled {target!r} in this cell's text")
        return f"({equations[target]})"
    if role == "math":
        return f"${text}$"
    if role in ("term", "abbr"):
        return shown or text
    raise PlainError(f"the role {{{role}}} has no plain form; see course_lib/publish/plain.py")
