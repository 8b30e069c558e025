"""A student's feedback: one page that needs nothing else, shows her own work, and runs nothing.

What the student wrote, and what came of running it, is hostile text here. Every string goes through
``render``, which escapes it and makes what is invisible visible; how much of it is shown is limited, so
that a page stays below 300 kB. The page carries a Content-Security-Policy under which no script runs
and nothing is loaded. It holds no hidden input, no reference, no flag and nobody else's work.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_lib.grading import results
from course_lib.grading.checks import Failure, explain
from course_lib.grading.intake import printable, unusable
from course_lib.grading.rebuild import Cell, Master

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

#: How much of an answer is shown: lines and characters.
MAX_LINES, MAX_SOURCE = 400, 40_000
#: The most bytes that all answers' HTML takes, and the most characters of other texts.
_CODE_BYTES = 110_000
_TEXT, _ERROR, _WRITTEN = 400, 500, 6_000
#: What stays as it is in a text: honest line breaks, tabs, hard spaces, joiners in names and emoji.
_KEEP = "\n\t\u00a0\u200c\u200d\ufe0f"

#: What a status means to the student.
STATUS = {
    "timeout": "Part of your code took too long and was stopped. What was earned in the rest counts.",
    "memory": "Part of your code used more memory than there is for one submission and was stopped. "
    "What was earned in the rest counts.",
    "crashed": "The process that ran your code ended in the middle. What was earned in the rest counts.",
}

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src '{{ hash }}'; \
img-src data:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{% block title %}{% endblock %}</title>
<style>{{ css }}</style>
</head>
<body>
{% block body %}{% endblock %}
</body>
</html>
"""

_FEEDBACK = """\
{% extends "page" %}
{% block title %}{{ name }}: feedback for {{ student }}{% endblock %}
{% block body %}
<header>
<p class="eyebrow">Feedback for {{ student }}</p>
<h1>{{ heading }}</h1>
<p class="total"><strong>{{ points|points }}</strong> of {{ of|points }} points</p>
<svg class="meter" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">\
<rect class="track" width="100" height="4"/><rect class="fill" width="{{ share }}" height="4"/></svg>
<p>{{ summary }}</p>
{% if pending %}
<p class="muted">Points that a person gives, and has not given yet: {{ pending|points }}.</p>
{% endif %}
</header>
<main>
{% for text in notes %}
<div class="note warn"><p>{{ text|cap(1000) }}</p></div>
{% endfor %}
<section aria-labelledby="overview">
<header><h2 id="overview">At a glance</h2></header>
<table>
<thead><tr><th scope="col">Part</th><th scope="col" class="n">Points</th>\
<th scope="col" class="n">Checks</th></tr></thead>
<tbody>
{% for part in parts %}
<tr><th scope="row"><a href="#{{ part.anchor }}">{{ part.title }}</a></th>\
<td class="n">{{ part.told }}</td><td class="n">{{ part.counted }}</td></tr>
{% endfor %}
</tbody>
</table>
</section>
{% for part in parts %}
<section aria-labelledby="{{ part.anchor }}">
<header><h2 id="{{ part.anchor }}">{{ part.title }}</h2>\
<span class="got {{ part.mark }}">{{ part.told }}</span></header>
{% if part.comment %}
<div class="note"><p><strong>Comment:</strong> {{ part.comment|cap(2000) }}</p></div>
{% endif %}
<div class="{{ 'pair' if part.rows and part.answers else '' }}">
{% if part.rows %}
<div>
<h3>Checks</h3>
<ul class="checks">
{% for row in part.rows %}
<li class="{{ row.mark }}"><span class="sign" aria-hidden="true">{{ row.sign }}</span>\
<div class="row"><span>{{ row.title|cap }}</span>\
<span class="got {{ row.mark }}">{{ row.told }}</span></div>
{% if row.message %}
<p class="message">{{ row.message|cap }}\
{% if row.link %} <a href="#{{ row.link }}">See {{ row.place }}.</a>{% endif %}</p>
{% endif %}
</li>
{% endfor %}
</ul>
</div>
{% endif %}
{% if part.answers %}
<div>
<h3>Your answer</h3>
{% for answer in part.answers %}
<div class="answer" id="{{ answer.anchor }}">
{% if answer.empty %}
<p class="muted">Nothing has been written in <code>{{ answer.id }}</code> yet.</p>
{% else %}
{% if answer.error %}
<p class="said">{{ answer.error|cap(700) }}</p>
{% endif %}
{{ answer.html }}
{% if answer.cut %}
<p class="muted">{{ answer.cut }}</p>
{% endif %}
{% endif %}
</div>
{% endfor %}
</div>
{% endif %}
</div>
</section>
{% endfor %}
</main>
<footer>
<p>A check sends your function new inputs and compares what comes back with the formula. It gives all of \
its points, or none. Where a line of your answer is marked, that is where Python stopped.</p>
</footer>
{% endblock %}
"""


def page(
    result: Mapping[str, Any],
    master: Master,
    *,
    manual: Mapping[str, tuple[float | None, str]] | None = None,
    max_manual: Mapping[str, float] | None = None,
) -> str:
    """Return the feedback page of one result, as HTML.

    ``manual`` holds, by grade_id, what a person gave and wrote: points, or None while there are none, and
    a comment. Points of a person replace those of the checks. ``max_manual`` says what a question is
    worth where that is not what the master says.
    """
    manual = manual or {}
    worth = {cell.id: cell.points for cell in master.of("question")} | dict(max_manual or {})
    answers = _answers(result, master)
    parts = list(_parts(result, master, manual, worth, answers))
    earned = sum(part.earned for part in parts if part.earned is not None)
    of = sum(part.of for part in parts if part.earned is not None)
    pending = sum(part.of for part in parts if part.earned is None)
    passed = sum(row["points"] >= row["of"] for row in result["checks"])
    notes = [STATUS[result["status"]]] if result["status"] in STATUS else []
    summary = _summary(passed, len(result["checks"]))
    if result["status"] == "rejected":
        summary = "Nothing could be checked. The note below says why, and what to do."
        notes = [f"Your file could not be graded: {result['note']}"]
    return render(
        _FEEDBACK,
        name=master.name,
        student=result["student"],
        heading=heading(master),
        points=earned,
        of=of,
        share=round(100 * min(1.0, max(0.0, earned / of)), 1) if of else 0,
        summary=summary,
        pending=pending,
        notes=notes,
        parts=parts,
    )


def write(
    course: Path,
    result: Mapping[str, Any],
    master: Master,
    *,
    manual: Mapping[str, tuple[float | None, str]] | None = None,
    max_manual: Mapping[str, float] | None = None,
) -> Path:
    """Write a student's page to ``feedback/<student>/<name>/<name>.html`` and return where it is.

    Raises ``ValueError`` for a student whose name cannot be that of a folder.
    """
    path = place(course, result["student"], master.name)
    text = page(result, master, manual=manual, max_manual=max_manual)
    results.write(path, text.encode())
    return path


def place(course: Path, student: str, name: str) -> Path:
    """Return where a student's feedback lies. Raises ``ValueError`` for a name that is no folder's."""
    for what in (student, name):
        if why := unusable(what):
            raise ValueError(f"no feedback for {what[:200]!a}: {why}")
    return course / "feedback" / student / name / f"{name}.html"


def heading(master: Master) -> str:
    """Return the title of an assignment: its first heading, or its name."""
    return next((cell.title for cell in master.cells if cell.title), master.name).replace("`", "")


def points(value: float) -> str:
    """Return points as a person writes them: 2.5, and 3 rather than 3.0."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _summary(passed: int, count: int) -> str:
    if count and passed == count:
        return "Every check found what it looked for. Well done."
    if passed == 0:
        return "No check has passed yet. The messages below say where to begin."
    return f"{passed} of {count} checks passed. The messages below say what to look at next."


# --- the parts of the page ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Answer:
    """An answer cell as it is shown: highlighted and cut to size."""

    id: str
    anchor: str
    html: Markup | str = ""
    empty: bool = False
    error: str = ""
    cut: str = ""


@dataclass(frozen=True)
class _Part:
    """A check cell or a question: its points (None while a person has not given any) and what is shown."""

    anchor: str
    title: str
    earned: float | None
    of: float
    counted: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    answers: Sequence[_Answer] = ()
    comment: str = ""
    told: str = field(init=False)
    mark: str = field(init=False)

    def __post_init__(self) -> None:
        if self.earned is None:
            told = "not marked yet"
        else:
            told = f"{points(self.earned)} of {points(self.of)}"
        object.__setattr__(self, "told", told if self.of else "")
        object.__setattr__(self, "mark", _mark(self.earned, self.of))


def _mark(earned: float | None, of: float) -> str:
    return "" if earned is None or not of else "all" if earned >= of else "some"


def _parts(
    result: Mapping[str, Any],
    master: Master,
    manual: Mapping[str, tuple[float | None, str]],
    worth: Mapping[str, float],
    answers: Mapping[str, _Answer],
) -> Iterator[_Part]:
    """Yield a part per check cell and question in the master's order, each with the answers before it."""
    before: list[Cell] = []
    parts = 0
    for cell in master.cells:
        if cell.role == "answer":
            before.append(cell)
            continue
        if cell.role not in ("grade", "question"):
            continue
        parts += 1
        comments = [manual[one.id][1] for one in (*before, cell) if one.id in manual]
        given = manual[cell.id][0] if cell.id in manual else None
        anchor, title = f"part-{parts}", cell.title.replace("`", "") or cell.id
        comment = "\n".join(text for text in comments if text.strip())
        if cell.role == "question":
            written = result["written"].get(cell.id, "")
            shown = _written(cell.id, written, cell.id in result["empty"] or not written.strip())
            of = worth.get(cell.id, 0.0)
            yield _Part(anchor, title, given, of, answers=[shown], comment=comment)
            continue
        rows = [row for row in result["checks"] if row["cell"] == cell.id]
        here = {one.id for one in before}
        passed = sum(row["points"] >= row["of"] for row in rows)
        yield _Part(
            anchor,
            title,
            sum(row["points"] for row in rows) if given is None else given,
            sum(row["of"] for row in rows) or cell.points,
            counted=f"{passed} of {len(rows)}" if rows else "",
            rows=list(_rows(rows, result, here, answers)),
            answers=[answers[one.id] for one in before if one.id in answers],
            comment=comment,
        )
        before = []
    if left := [answers[one.id] for one in before if one.id in answers]:
        yield _Part(f"part-{parts + 1}", "The rest of your code", 0.0, 0.0, answers=left)


def _rows(
    rows: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any],
    here: Set[str],
    answers: Mapping[str, _Answer],
) -> Iterator[dict[str, Any]]:
    """Yield checks as they are shown, with a link where a message is about an answer elsewhere."""
    said = ""
    for row in rows:
        mark = _mark(row["points"], row["of"])
        # The reason why a file was rejected is said once, above.
        message = "" if mark == "all" or row["message"] == result["note"] else row["message"]
        elsewhere = row["answer"] in answers and row["answer"] not in here
        yield {
            "title": row["title"],
            "mark": mark,
            "sign": "✓" if mark == "all" else "○",
            "told": f"{points(row['points'])} of {points(row['of'])}",
            "message": "The same." if message and message == said else message,
            "link": answers[row["answer"]].anchor if elsewhere and message else "",
            "place": f"line {row['line']} of {row['answer']}" if row["line"] else row["answer"],
        }
        said = message


def _answers(result: Mapping[str, Any], master: Master) -> dict[str, _Answer]:
    """Return the student's answers as they are shown; together they keep within ``_CODE_BYTES``."""
    marked: dict[str, set[int]] = {}
    for row in result["checks"]:
        if row["points"] < row["of"] and row["line"]:
            marked.setdefault(row["answer"], set()).add(row["line"])
    for name, error in result["errors"].items():
        marked.setdefault(name, set()).add(error["line"])
    anchors = {cell.id: f"answer-{i}" for i, cell in enumerate(master.of("answer"), 1)}
    texts = {
        name: result["answers"][name]
        for name in anchors
        if name in result["answers"] and name not in result["empty"]
    }
    shown = {
        name: _Answer(name, anchors[name], empty=True)
        for name in anchors
        if name in result["answers"] and name in result["empty"]
    }
    left = _CODE_BYTES
    # Short ones first: what they leave is for the long ones.
    for i, name in enumerate(sorted(texts, key=lambda name: len(texts[name]))):
        html, cut = code(texts[name], marked.get(name, set()), left // (len(texts) - i))
        left -= len(html.encode())
        error = result["errors"].get(name)
        shown[name] = _Answer(name, anchors[name], html, False, _error(error), cut)
    return shown


def _error(error: Mapping[str, Any] | None) -> str:
    """Say what happened when an answer's cell ran."""
    if error is None:
        return ""
    if error["type"] in ("timeout", "memory", "crashed", "wire"):
        return f"When this cell ran: {explain(Failure(error['type']))}"
    if error["type"] == "NotImplementedError":
        return explain(Failure(error["type"]))
    where = f" in line {error['line']}" if error["line"] else ""
    text = printable(str(error["text"]), _KEEP)[:_ERROR].strip()
    return f"When this cell ran, Python raised {error['type']}{where}{': ' if text else ''}{text}"


def _written(name: str, text: str, empty: bool) -> _Answer:
    """Return an answer in words as it is shown."""
    from markupsafe import Markup

    if empty:
        return _Answer(name, f"written-{name}", empty=True)
    shown = printable(text, _KEEP)
    cut = "" if len(shown) <= _WRITTEN else f"The first {_WRITTEN:,} characters of it."
    html = Markup('<pre class="plain written">{}</pre>').format(shown[:_WRITTEN])
    return _Answer(name, f"written-{name}", html, cut=cut)


# --- code --------------------------------------------------------------------------------------


def code(source: str, marked: Set[int], most: int) -> tuple[Markup, str]:
    """Return a source as numbered, highlighted lines, some of them marked, and a note where it was cut.

    ``most``: the bytes that the HTML may take. A source that needs more is shown in one colour, and less
    of it where even that is too much.
    """
    from markupsafe import Markup, escape

    text = printable(source.replace("\r\n", "\n").rstrip(), "\n\t")
    shown = "\n".join(text[:MAX_SOURCE].split("\n")[:MAX_LINES])
    # Colours make a source two or three times as long: with no room for that, none are looked for.
    html = _lines(_highlight(shown), marked) if 2 * len(shown) <= most else ""
    if not html or len(html.encode()) > most:
        rows: list[str] = []
        left = most
        for line in shown.split("\n"):
            row = escape(line)
            left -= len(row.encode()) + len('<mark class="line"></mark>')
            if left < 0:
                break
            rows.append(row)
        # One long line: an escaped character is at most six bytes.
        rows = rows or [escape(shown.split("\n")[0][: most // 6])]
        html = _lines(rows, marked)
        shown = str(Markup("\n").join(map(Markup, rows)).unescape())
    return Markup(
        html
    ), "" if shown == text else "The rest of it is not shown here: it is too long."


def _lines(rows: Sequence[str], marked: Set[int]) -> str:
    tags = ("mark" if number in marked else "span" for number in range(1, len(rows) + 1))
    inner = "".join(
        f'<{tag} class="line">{row}</{tag}>' for tag, row in zip(tags, rows, strict=True)
    )
    return f"<pre><code>{inner}</code></pre>"


def _highlight(source: str) -> list[str]:
    """Return the lines of a Python source as HTML; each closes the tags that it opens."""
    from pygments import highlight  # type: ignore[import-untyped]
    from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
    from pygments.lexers import PythonLexer  # type: ignore[import-untyped]

    lexer = PythonLexer(stripnl=False, ensurenl=False)
    html: str = highlight(source, lexer, HtmlFormatter(nowrap=True))
    return html.removesuffix("\n").split("\n") if not source.endswith("\n") else html.split("\n")


# --- HTML --------------------------------------------------------------------------------------


def render(template: str, **values: Any) -> str:
    """Fill a template that extends ``page``: every string in it is escaped and visible.

    Filters: ``points`` writes a number of points, ``cap`` cuts a text to 400 characters or as many as
    it is given.
    """
    return _template(template).render(css=_css()[0], hash=_css()[1], **values)


@cache
def _css() -> tuple[Markup, str]:
    """Return the style sheet, and its hash as a Content-Security-Policy names it."""
    from markupsafe import Markup

    text = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode()).digest()
    return Markup(text), f"sha256-{base64.b64encode(digest).decode()}"


@cache
def _template(source: str) -> Template:
    from jinja2 import DictLoader, Environment, StrictUndefined

    def visible(value: Any) -> Any:
        return printable(value, _KEEP) if type(value) is str else value

    def cap(text: str, most: int = _TEXT) -> str:
        text = printable(text, _KEEP)
        return text if len(text) <= most else f"{text[:most]} ..."

    environment = Environment(
        autoescape=True,
        finalize=visible,
        loader=DictLoader({"page": _PAGE}),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"points": points, "cap": cap}
    return environment.from_string(source)
