"""The teacher's view of an assignment: one page for the class.

It is made like a student's page (``feedback.render``): everything escaped, no script, nothing loaded. It
names students, so it is for the teacher only.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import quote

from course_lib.grading import results as store
from course_lib.grading.feedback import heading, points, render
from course_lib.grading.intake import printable, unusable
from course_lib.grading.rebuild import Master
from course_lib.grading.similarity import Pair

#: The most that is shown: flags of one student and their characters, students with flags or problems,
#: pairs in a table and with their differences, lines of a difference, slow submissions.
_FLAGS, _FLAG_TEXT, _FLAGGED = 6, 240, 150
_PAIRS, _DIFFS, _DIFF_LINES, _SLOW = 100, 20, 80, 10
#: The longest line, and the most lines of an answer, that differences are looked for in.
_DIFF_WIDTH, _DIFF_SOURCE = 160, 300
#: The most bars of the distribution.
_BARS = 30

#: What a status means to the teacher.
STATUS = {
    "graded": "graded",
    "timeout": "too slow",
    "memory": "too much memory",
    "crashed": "process ended",
    "rejected": "not gradable",
}

_SUMMARY = """\
{% extends "page" %}
{% macro who(student) %}
{% if student.link %}<a href="{{ student.link }}">{{ student.id }}</a>{% else %}{{ student.id }}{% endif %}
{% if student.name %} <span class="muted">{{ student.name }}</span>{% endif %}
{% endmacro %}
{% macro head(columns) %}
<thead><tr>
{% for text, kind in columns %}<th scope="col" class="{{ kind }}">{{ text }}</th>{% endfor %}
</tr></thead>
{% endmacro %}
{% block title %}{{ name }}: the class{% endblock %}
{% block body %}
<header>
<p class="eyebrow">Class summary of {{ name }}</p>
<h1>{{ heading }}</h1>
<dl class="facts">
{% for label, value in facts %}
<div><dt>{{ label }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>
</header>
<main>
<section aria-labelledby="distribution">
<header><h2 id="distribution">Distribution</h2></header>
{% if bars %}
<figure>
<svg viewBox="0 0 640 230" role="img" aria-labelledby="distribution-alt">
<title id="distribution-alt">{{ alt }}</title>
<line class="axis" x1="30" x2="630" y1="200.5" y2="200.5"/>
{% for bar in bars %}
<rect class="fill" x="{{ bar.x }}" y="{{ bar.y }}" width="{{ bar.width }}" height="{{ bar.height }}"/>
{% if bar.count %}
<text x="{{ bar.middle }}" y="{{ bar.y - 5 }}" text-anchor="middle">{{ bar.count }}</text>
{% endif %}
{% if bar.tick %}
<text x="{{ bar.middle }}" y="217" text-anchor="middle">{{ bar.label }}</text>
{% endif %}
{% endfor %}
</svg>
<figcaption class="muted">Students by points from the checks, out of {{ of|points }}.</figcaption>
</figure>
<details><summary>The same as a table</summary>
<table>
{{ head([("Points", "n"), ("Students", "n")]) }}
<tbody>
{% for bar in bars %}
<tr><th scope="row" class="n">{{ bar.label }}</th><td class="n">{{ bar.count }}</td></tr>
{% endfor %}
</tbody>
</table>
</details>
{% else %}
<p>No submission has been graded yet.</p>
{% endif %}
</section>

<section aria-labelledby="checks">
<header><h2 id="checks">Checks most missed</h2></header>
{% if checks %}
<div class="scroll" tabindex="0" role="region" aria-label="Table of the checks">
<table>
{{ head([("Check", ""), ("Points", "n"), ("Missed by", "n"), ("Most often told", "")]) }}
<tbody>
{% for check in checks %}
<tr><th scope="row">{{ check.title|cap }}</th><td class="n">{{ check.of|points }}</td>\
<td class="n">{{ check.share }}</td>\
<td>{{ check.message|cap }} <span class="muted">{{ check.times }}</span></td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% else %}
<p>There is nothing to show.</p>
{% endif %}
</section>

<section aria-labelledby="problems">
<header><h2 id="problems">Stopped or not gradable</h2></header>
{% if problems %}
<table>
{{ head([("Student", ""), ("Status", ""), ("What was said", "")]) }}
<tbody>
{% for student in problems %}
<tr><th scope="row">{{ who(student) }}</th><td class="status">{{ student.status }}</td>\
<td>{{ student.note|cap(300) }}</td></tr>
{% endfor %}
</tbody>
</table>
{% if more_problems %}
<p class="muted">And {{ more_problems }} more; the table of students says which.</p>
{% endif %}
{% else %}
<p>Every submission was graded to the end.</p>
{% endif %}
</section>

<section aria-labelledby="flags">
<header><h2 id="flags">Flags</h2></header>
<p class="muted">What a notebook has that was not the student's to change. None of it had an effect on the
points, and most of it happens by accident.</p>
{% if flagged %}
<table>
{{ head([("Student", ""), ("Flags", "")]) }}
<tbody>
{% for student in flagged %}
<tr><th scope="row">{{ who(student) }}</th><td><ul class="plain">
{% for flag in student.flags %}
<li>{{ flag|cap(flag_text) }}</li>
{% endfor %}
{% if student.more %}<li>and {{ student.more }} more</li>{% endif %}
</ul></td></tr>
{% endfor %}
</tbody>
</table>
{% if more_flagged %}<p class="muted">And {{ more_flagged }} more students with flags.</p>{% endif %}
{% else %}
<p>There are none.</p>
{% endif %}
</section>

<section aria-labelledby="alike">
<header><h2 id="alike">Alike submissions</h2></header>
<div class="note"><p>This is a reason to look, and no verdict. Two short correct answers are alike by
nature; two students may have learned from the same page. What was given, and what many in the class have,
is left out before submissions are compared: as they stand, and as a shape with all names replaced.</p>
</div>
{% if pairs %}
<div class="scroll" tabindex="0" role="region" aria-label="Table of alike submissions">
<table>
{{ head([("Students", ""), ("Text", "n"), ("Shape", "n"), ("Tokens compared", "n"),
("Shared, and rare in the class", "")]) }}
<tbody>
{% for pair in pairs %}
<tr><th scope="row">{{ who(pair.first) }}<br>{{ who(pair.second) }}</th><td class="n">{{ pair.text }}</td>\
<td class="n">{{ pair.shape }}</td><td class="n">{{ pair.tokens }}</td>\
<td>{{ pair.shared|cap(600) }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% if more_pairs %}<p class="muted">And {{ more_pairs }} more pairs, less alike than these.</p>{% endif %}
{% for pair in pairs if pair.differences %}
<details><summary>What differs: {{ pair.first.id }} (−) and {{ pair.second.id }} (+)</summary>
{% for cell, lines in pair.differences %}
<h3 class="name">{{ cell }}</h3>
{% if lines %}
<pre class="plain"><code>
{%- for kind, text in lines %}<span class="{{ kind }}">{{ text }}
</span>{% endfor %}</code></pre>
{% else %}
<p>The same, character by character.</p>
{% endif %}
{% endfor %}
</details>
{% endfor %}
{% else %}
<p>No two submissions are more alike than the class explains.</p>
{% endif %}
</section>

{% if slowest %}
<section aria-labelledby="time">
<header><h2 id="time">Time</h2></header>
<p>{{ time }}</p>
<table>
{{ head([("Slowest", ""), ("Seconds", "n")]) }}
<tbody>
{% for student, seconds in slowest %}
<tr><th scope="row">{{ who(student) }}</th><td class="n">{{ seconds }}</td></tr>
{% endfor %}
</tbody>
</table>
</section>
{% endif %}

<section aria-labelledby="students">
<header><h2 id="students">Students</h2></header>
<div class="scroll" tabindex="0" role="region" aria-label="Table of the students">
<table>
<thead><tr><th scope="col">Student</th><th scope="col" class="n">Points</th>\
{% for part in parts %}<th scope="col" class="n wide">{{ part.title }}</th>{% endfor %}\
<th scope="col">Status</th></tr></thead>
<tbody>
{% for student in students %}
<tr><th scope="row">{{ who(student) }}</th><td class="n">{{ student.points|points }}</td>\
{% for value in student.parts %}<td class="n">{{ value|points }}</td>{% endfor %}\
<td class="status">{{ student.status }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</section>
</main>
<footer><p>Points are those of the checks. What a person gives, and what is taken off for being late, is
in the grade book.</p></footer>
{% endblock %}
"""


def page(
    name: str,
    results: Sequence[Mapping[str, Any]],
    master: Master,
    *,
    seconds: Mapping[str, float] | None = None,
    pairs: Sequence[Pair] = (),
    people: Mapping[str, str] | None = None,
) -> str:
    """Return the class's page for the assignment ``name``, as HTML.

    ``results``: one per student. ``seconds``: how long each student's took; ``pairs``: those of
    ``similarity.pairs``; ``people``: names by student id, where they are known.
    """
    ordered = sorted(results, key=lambda result: str(result["student"]))
    people = people or {}
    parts = [cell for cell in master.of("grade") if cell.points or _has_checks(ordered, cell.id)]
    students = [_student(result, name, parts, people) for result in ordered]
    by_id = {student["raw"]: student for student in students}
    of = max((result["of"] for result in ordered), default=0.0)
    bars = _bars([result["points"] for result in ordered], of)
    problems = [student for student in students if student["stopped"]]
    flagged = [student for student in students if student["flags"]]
    alike = [pair for pair in pairs if pair.first in by_id and pair.second in by_id]
    answers = {result["student"]: result["answers"] for result in ordered}
    timed = sorted((seconds or {}).items(), key=lambda item: -item[1])
    return render(
        _SUMMARY,
        name=name,
        heading=heading(master),
        facts=_facts(ordered, of),
        of=of,
        bars=bars,
        alt=_alt(bars, of),
        checks=_checks(ordered),
        problems=problems[:_FLAGGED],
        more_problems=max(0, len(problems) - _FLAGGED),
        flagged=flagged[:_FLAGGED],
        more_flagged=max(0, len(flagged) - _FLAGGED),
        flag_text=_FLAG_TEXT,
        pairs=[
            {
                "first": by_id[pair.first],
                "second": by_id[pair.second],
                "text": _percent(pair.text),
                "shape": _percent(pair.shape),
                "tokens": f"{pair.tokens:,}",
                "shared": ", ".join(pair.shared),
                "differences": _differences(answers[pair.first], answers[pair.second], master)
                if position < _DIFFS
                else [],
            }
            for position, pair in enumerate(alike[:_PAIRS])
        ],
        more_pairs=max(0, len(alike) - _PAIRS),
        time=_time([value for _, value in timed]),
        slowest=[(by_id[student], f"{value:.2f}") for student, value in timed if student in by_id][
            :_SLOW
        ],
        parts=[{"title": printable(cell.title.replace("`", "") or cell.id)[:60]} for cell in parts],
        students=students,
    )


def write(
    course: Path,
    name: str,
    results: Sequence[Mapping[str, Any]],
    master: Master,
    *,
    seconds: Mapping[str, float] | None = None,
    pairs: Sequence[Pair] = (),
    people: Mapping[str, str] | None = None,
) -> Path:
    """Write the class's page to ``summary/<name>.html`` and return where it is."""
    path = course / "summary" / f"{name}.html"
    text = page(name, results, master, seconds=seconds, pairs=pairs, people=people)
    store.write(path, text.encode())
    return path


def _has_checks(results: Sequence[Mapping[str, Any]], cell: str) -> bool:
    return any(row["cell"] == cell for result in results[:1] for row in result["checks"])


def _student(
    result: Mapping[str, Any], name: str, parts: Sequence[Any], people: Mapping[str, str]
) -> dict[str, Any]:
    """Return one student as the tables show her."""
    student = str(result["student"])
    flags = [flag for flag in result["flags"] if isinstance(flag, str)]
    link = "/".join(quote(part, safe="") for part in ("feedback", student, name, f"{name}.html"))
    earned: Counter[str] = Counter()
    for row in result["checks"]:
        earned[row["cell"]] += row["points"]
    return {
        "raw": student,
        "id": _short(student),
        "name": _short(people.get(student, "")),
        "link": "" if unusable(student) else f"../{link}",
        "points": result["points"],
        "parts": [earned[cell.id] for cell in parts],
        "status": STATUS.get(result["status"], str(result["status"])),
        "stopped": result["status"] != "graded",
        "note": result["note"],
        "flags": flags[:_FLAGS],
        "more": max(0, len(flags) - _FLAGS),
    }


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _facts(results: Sequence[Mapping[str, Any]], of: float) -> list[tuple[str, str]]:
    """Return the figures at the head of the page."""
    earned = [result["points"] for result in results]
    statuses = Counter(str(result["status"]) for result in results)
    facts = [("Submissions", f"{len(results):,}")]
    facts += [(STATUS[key].capitalize(), f"{statuses[key]:,}") for key in STATUS if statuses[key]]
    if earned:
        low, middle, high = (
            quantiles(earned, n=4, method="inclusive") if len(earned) > 1 else earned * 3
        )
        facts += [
            ("Median", f"{points(middle)} of {points(of)}"),
            ("Quartiles", f"{points(low)} to {points(high)}"),
            ("All points", f"{sum(value >= of for value in earned):,}"),
        ]
    return facts


def _bars(earned: Sequence[float], of: float) -> list[dict[str, Any]]:
    """Return the bars of the distribution: one per point, or ranges of points where they are many."""
    if not earned or of <= 0:
        return []
    step = max(1, -(-int(of) // _BARS))
    count = int(of) // step + 1
    tall = Counter(min(count - 1, max(0, int(value // step))) for value in earned)
    most = max(tall.values())
    width = 600 / count
    return [
        {
            "count": tall[i],
            "label": f"{i * step}"
            if step == 1
            else f"{i * step} to {points(min(of, (i + 1) * step - 1))}",
            "x": round(30 + i * width + width * 0.1, 1),
            "middle": round(30 + (i + 0.5) * width, 1),
            "width": round(width * 0.8, 1),
            "y": round(200 - 170 * tall[i] / most, 1),
            "height": round(170 * tall[i] / most, 1),
            "tick": i % (1 if step == 1 and count <= 16 else 5) == 0,
        }
        for i in range(count)
    ]


def _alt(bars: Sequence[Mapping[str, Any]], of: float) -> str:
    """Say in words what the distribution shows."""
    if not bars:
        return ""
    peak = max(bars, key=lambda bar: bar["count"])
    return (
        f"Bars from 0 to {points(of)} points; the most students, {peak['count']}, are at "
        f"{peak['label']} points. The table below has every bar."
    )


def _checks(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the checks, those that most students missed first, with what was said most often."""
    graded = [result for result in results if result["status"] != "rejected"]
    rows: dict[str, dict[str, Any]] = {}
    for result in graded:
        for row in result["checks"]:
            told = rows.setdefault(
                row["name"],
                {"title": row["title"], "of": row["of"], "missed": 0, "said": Counter()},
            )
            if row["points"] < row["of"]:
                told["missed"] += 1
                # The line differs from student to student; what it means does not.
                told["said"][re.sub(r" \(line \d+ of your answer\)", "", row["message"])] += 1
    listed = sorted(rows.values(), key=lambda row: -row["missed"])
    for row in listed:
        (row["message"], row["times"]) = (row["said"].most_common(1) or [("", 0)])[0]
        row["times"] = f"({row['times']})" if row["times"] else ""
        row["share"] = f"{row['missed']} ({_percent(row['missed'] / len(graded))})"
    return listed


def _percent(share: float) -> str:
    """Return a share as a percentage, cut and not rounded: 100 % is all of it."""
    return f"{int(100 * share)} %" if share else "–"


def _time(seconds: Sequence[float]) -> str:
    if not seconds:
        return ""
    return (
        f"{sum(seconds):,.1f} seconds for {len(seconds):,} submissions, each in "
        f"{median(seconds):.2f} (the median)."
    )


def _differences(
    first: Mapping[str, str], second: Mapping[str, str], master: Master
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return, per answer cell, the lines in which two students' answers differ; none when they do not."""
    return [
        (cell.id, list(_difference(first.get(cell.id, ""), second.get(cell.id, ""))))
        for cell in master.of("answer")
    ]


def _difference(first: str, second: str) -> Iterator[tuple[str, str]]:
    if first == second:
        return
    old, new = (
        [printable(line, "\t")[:_DIFF_WIDTH] for line in text.splitlines()[:_DIFF_SOURCE]]
        for text in (first, second)
    )
    kinds = {"-": "gone", "+": "new", " ": "same"}
    lines = list(difflib.unified_diff(old, new, n=2, lineterm=""))[2:]
    for line in lines[:_DIFF_LINES]:
        yield (kinds[line[0]], line) if line[0] in kinds else ("muted", "...")
    if len(lines) > _DIFF_LINES or not lines:
        yield "muted", "... the rest is not shown here"
