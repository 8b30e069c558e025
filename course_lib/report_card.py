"""The report card: one page on any detector of made portraits, and all that one number would hide.

``assess`` measures a detector, ``page`` writes what was found as one HTML file that needs nothing else;
``course report-card`` does both. Measured are the gate (what must not separate real from fake), real
against real, every generator under every processing, calibration, what an alarm is worth where fakes are
rare, and what an attacker does with and without access.

Chapter: book/detect/report_card.md
"""

from __future__ import annotations

import base64
import functools
import html
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from course_lib import attacks, device, forge, metrics, plots
from course_lib.attacks.gradient import margin
from course_lib.detection import cnn, compression, evaluate
from course_lib.detection.evaluate import Estimate
from course_lib.detection.race import evade
from course_lib.recipes import portrait_detectors

#: Images (N, 3, 64, 64) in [0, 1] to scores (N,) in [0, 1], higher for fake; a module gives logits.
Detector: TypeAlias = nn.Module | Callable[[Tensor], Tensor]

#: What the same photographs went through in the null that can fail.
HISTORY = "JPEG 75"
ONE_IN = (2, 10, 100, 1_000, 10_000)
#: How far an attacker with access may change a value, in levels of 255; and one without.
LEVELS = (1, 2, 4, 8)
LEVELS_BLIND = 4
FALSE_POSITIVE_RATE = 0.05
#: So many images are shown to the detector at a time.
BATCH = 200
#: Prepared portraits have a grey margin of so many pixels, which no attacker touches.
MARGIN = 4


@dataclass(frozen=True)
class ReportCard:
    """All that was measured of a detector.

    ``home``: the generator that it was made for; ``threshold``: for 5 % false alarms on validation
    photographs; ``seed``: of intervals and attacks. ``gate``: the AUC of every shortcut for each
    generator, their intervals at 95 % for all together (Bonferroni). ``null``: AUC of one half of
    the real test images against the other, drawn by lot, which checks the measuring. ``history``:
    AUC of the same real images, saved as JPEG against as they are: above 0.5 the detector takes a
    file's history for a forgery. ``matrix``: a report for each generator and processing.
    ``calibration`` and ``points``: on ``home``, unprocessed. ``with_access``: fakes still caught
    after PGD, by levels; None for a detector without gradients. ``without_access``: the same after
    what needs no access.
    """

    name: str
    home: str
    threshold: float
    n_real: int
    seed: int
    gate: dict[str, dict[str, Estimate]]
    null: Estimate
    history: Estimate
    matrix: dict[str, dict[str, evaluate.Report]]
    calibration: evaluate.Calibration
    points: tuple[evaluate.OperatingPoint, ...]
    with_access: dict[int, Estimate] | None
    without_access: dict[str, Estimate]

    @property
    def unseen(self) -> dict[str, Estimate]:
        """AUC on each generator but ``home``, unprocessed."""
        return {name: row["raw"].auc for name, row in self.matrix.items() if name != self.home}

    @property
    def shortcuts(self) -> dict[str, tuple[str, Estimate]]:
        """For each generator the shortcut that finds most, with its AUC: one that surely does first."""
        return {
            generator: max(found.items(), key=lambda pair: (pair[1].low > 0.5, pair[1].value))
            for generator, found in self.gate.items()
        }

    def to_json(self) -> str:
        """Return every number as JSON; what is not finite as null."""

        def plain(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.tolist()
            if isinstance(value, dict):
                return {str(key): plain(v) for key, v in value.items()}
            if isinstance(value, list | tuple):
                return [plain(v) for v in value]
            if isinstance(value, float) and not math.isfinite(value):
                return None
            return value

        return json.dumps(plain(asdict(self)), indent=1)


def scores(detector: Detector, x: Tensor) -> Tensor:
    """Return the scores (N,) of images (N, 3, 64, 64), checked; the images stay as they are.

    Raises ``ValueError`` where the detector gives another shape, or scores outside [0, 1].
    """
    own = x.clone()  # others are measured on these images too
    if isinstance(detector, nn.Module):
        return cnn.score(detector, own)
    with torch.no_grad():
        found = detector(own)
    if not isinstance(found, Tensor) or found.shape != (len(x),):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"detector: expected a tensor of {len(x)} scores, one each; got {got}")
    found = found.detach().float().cpu()
    if not (float(found.min()) >= 0 and float(found.max()) <= 1):  # NaN fails both
        raise ValueError(
            f"detector: expected scores in [0, 1], got [{float(found.min()):.3g}, "
            f"{float(found.max()):.3g}]"
        )
    return found


def _mixed(
    detector: Detector, sets: Mapping[str, Tensor], draw: torch.Generator
) -> dict[str, Tensor]:
    """Return the scores of each of several sets, whose images the detector is shown in one random order.

    Were a set shown by itself, its company or the number of calls before it would tell what it is.
    """
    x = torch.cat(list(sets.values()))
    order = torch.randperm(len(x), generator=draw)
    found = torch.empty(len(x))
    found[order] = torch.cat([scores(detector, x[part]) for part in order.split(BATCH)])
    return dict(zip(sets, found.split([len(part) for part in sets.values()]), strict=True))


def assess(
    detector: Detector,
    name: str,
    *,
    home: str = "dcgan",
    generators: tuple[str, ...] = tuple(forge.GENERATORS),
    attacked: int = 100,
    seed: int = 0,
) -> ReportCard:
    """Measure ``detector`` on the test portraits and the fakes of all ``generators``.

    ``detector``: a module (N, 3, 64, 64) -> logits (N,), or a function to scores (N,) in [0, 1]. All
    images are prepared by ``prepare_portrait``, and shown in one random order, real and fake together.
    ``home``: the generator that it was trained on, one of ``generators``; its threshold is set on
    validation photographs, which are training people: whoever trains a detector for this page leaves them
    out (``portrait_detectors.parts``). ``attacked``: how many fakes are attacked, which is what takes
    longest.

    Raises ``ValueError`` for an unknown generator, no fakes to attack, or a detector that does not give
    one score each.
    """
    if home not in generators:
        raise ValueError(f"home: expected one of {', '.join(generators)}; got {home!r}")
    if attacked < 1:
        raise ValueError(f"attacked: expected at least 1, got {attacked}")
    draw = device.generator(seed)
    held = portrait_detectors.parts(home, seed=0)["validation"]
    judged = _mixed(detector, {"real": held.real, "fake": held.fake}, draw)
    threshold = evaluate.threshold_at(judged["real"], FALSE_POSITIVE_RATE)
    parts = {g: portrait_detectors.held_out(g) for g in generators}
    # Most generators are told from the same photographs, which are then judged once.
    same = {g: f"photographs {hash(part.real.numpy().tobytes())}" for g, part in parts.items()}
    sets = {same[g]: part.real for g, part in parts.items()}
    sets |= {g: part.fake for g, part in parts.items()}
    found = {
        name: _mixed(detector, {key: change(x) for key, x in sets.items()}, draw)
        for name, change in compression.CONDITIONS.items()
    }
    matrix: dict[str, dict[str, evaluate.Report]] = {g: {} for g in generators}
    for change_name, judged in found.items():
        for generator, part in parts.items():
            s = torch.cat([judged[same[generator]], judged[generator]])
            y = torch.cat([torch.zeros(len(part.real)), torch.ones(len(part.fake))]).long()
            matrix[generator][change_name] = evaluate.report(
                s, y, threshold=threshold, n=200, seed=seed
            )
    real, fake = parts[home].real, parts[home].fake
    s_real, s_fake = found["raw"][same[home]], found["raw"][home]
    s = torch.cat([s_real, s_fake])
    y = torch.cat([torch.zeros(len(real)), torch.ones(len(fake))]).long()
    saved = compression.CONDITIONS[HISTORY](real)
    history = _mixed(detector, {"as they are": real, HISTORY: saved}, draw)
    levels = _with_access(detector, fake[:attacked], seed)
    blind = _without_access(detector, home, attacked, seed)
    tried = {"photographs": real, **blind, **{f"PGD {n}": x for n, x in (levels or {}).items()}}
    after = {name: _caught(s, threshold) for name, s in _mixed(detector, tried, draw).items()}
    # So many shortcuts are tried that a few intervals of 95 % would miss one half by chance.
    surely = 1 - 0.05 / (len(evaluate.SHORTCUTS) * len(generators))
    half = torch.randperm(len(real), generator=device.generator(seed)) % 2
    return ReportCard(
        name=name,
        home=home,
        threshold=threshold,
        n_real=len(real),
        seed=seed,
        gate={
            g: evaluate.shortcut_auc(part.real, part.fake, seed=seed, level=surely)
            for g, part in parts.items()
        },
        null=evaluate.report(s_real, half, seed=seed).auc,
        history=evaluate.report(
            torch.cat([history["as they are"], history[HISTORY]]),
            torch.arange(2).repeat_interleave(len(real)),
            groups=torch.arange(len(real)).repeat(2),
            n=200,
            seed=seed,
        ).auc,
        matrix=matrix,
        calibration=evaluate.calibration(s, y),
        points=evaluate.operating_points(s, y, threshold=threshold, one_in=ONE_IN),
        with_access=None if levels is None else {n: after[f"PGD {n}"] for n in levels},
        without_access={name: after[name] for name in blind},
    )


def _caught(found: Tensor, threshold: float) -> Estimate:
    k, n = int((found >= threshold).sum()), len(found)
    return Estimate(k / n, *metrics.wilson_interval(k, n))


def _pgd(seed: int) -> Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]:
    def attack(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
        # The margin, because where a detector is very sure the cross-entropy has no gradient left.
        return attacks.pgd(
            model, x, y, eps, eps / 6, 20, loss=margin, generator=device.generator(seed)
        )

    return attack


def _with_access(detector: Detector, fake: Tensor, seed: int) -> dict[int, Tensor] | None:
    """Return the fakes after PGD, by levels; None for a detector without gradients."""
    if not isinstance(detector, nn.Module):
        return None
    return {
        level: evade(detector, fake.clone(), _pgd(seed), eps=level / 255, margin=MARGIN)
        for level in LEVELS
    }


def _without_access(detector: Detector, home: str, attacked: int, seed: int) -> dict[str, Tensor]:
    """Return the fakes laundered, and moved by what fools a network that the attacker trained himself."""
    fake = portrait_detectors.held_out(home).fake[:attacked]
    found = {"nothing": fake}
    for name in ("JPEG 50", "half size", "blur 1 px"):
        found[name] = compression.CONDITIONS[name](fake)
    found["noise of 4 levels"] = compression.noise(fake, 4 / 255, seed=seed)
    # Whoever has no access has no copy either: the shipped network that is not the one examined.
    name = "meso" if _same(detector, portrait_detectors.load()[0]["xception"]) else "xception"
    found[f"{LEVELS_BLIND} levels against {name}"] = _fools(name, home, attacked, seed)
    return found


@functools.cache
def _fools(name: str, home: str, attacked: int, seed: int) -> Tensor:
    """Return fakes of ``home`` after an attack on one of the course's own detectors."""
    fake = portrait_detectors.held_out(home).fake[:attacked]
    known, _ = portrait_detectors.load()
    return evade(known[name], fake, _pgd(seed), eps=LEVELS_BLIND / 255, margin=MARGIN)


def _same(detector: Detector, other: nn.Module) -> bool:
    if not isinstance(detector, nn.Module):
        return False
    ours, theirs = detector.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def load(address: str) -> tuple[Detector, str]:
    """Return the detector at ``address``, and its name.

    ``portrait-detectors:meso`` is one of the course's; ``mine.py:detector`` is the object ``detector``
    of a file, which is **run as it is** to get it, with all that you may do and read: for a file of your
    own. Run somebody else's in a container that holds nothing else, or not at all. (The sandbox of
    ``course grade`` is for assignments: it has no weights, no gradients and little of the package.)

    Raises ``ValueError`` for an address, a file or a name that is not there, or no detector.
    """
    place, _, name = address.rpartition(":")
    if place == "portrait-detectors":
        known, _thresholds = portrait_detectors.load()
        if name not in known:
            raise ValueError(f"detector: {place} has {', '.join(known)}; got {name!r}")
        return known[name], f"{place}:{name}"
    path = Path(place)
    if not place or not name or path.suffix != ".py" or not path.is_file():
        raise ValueError(
            "detector: expected portrait-detectors:NAME or FILE.py:NAME, of a file that is there; "
            f"got {address!r}"
        )
    spec = importlib.util.spec_from_file_location(f"_examined_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass of the file looks for itself
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path}: running it failed: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if isinstance(found, type) or not callable(found):
        raise ValueError(f"{path}: expected a module or a function called {name!r}")
    return found, f"{path.name}:{name}"


def matrix_figure(card: ReportCard) -> tuple[Figure, str]:
    """Draw the AUC of every generator under every processing; return the figure and its alt text."""
    rows, columns = list(card.matrix), list(compression.CONDITIONS)
    auc = [[card.matrix[row][column].auc for column in columns] for row in rows]
    figure, axis = plt.subplots(figsize=(7.2, 0.9 + 0.36 * len(rows)))
    values = [[e.value for e in line] for line in auc]
    _ = axis.imshow(values, vmin=0, vmax=1, cmap="PuOr", aspect="auto")
    for i, line in enumerate(auc):
        for j, e in enumerate(line):
            sure = e.low > 0.5 or e.high < 0.5
            _ = axis.text(
                j,
                i,
                f"{e.value:.2f}",
                ha="center",
                va="center",
                fontsize=8.5,
                color="white" if abs(e.value - 0.5) > 0.3 else plots.INK,
                fontweight="bold" if sure else "normal",
            )
    _ = axis.set_xticks(range(len(columns)), columns, fontsize=8.5)
    labels = [f"{row} (its own)" if row == card.home else row for row in rows]
    _ = axis.set_yticks(range(len(rows)), labels, fontsize=8.5)
    axis.grid(visible=False)
    _ = axis.set_title("AUC: generator by processing")
    best = card.matrix[card.home]["raw"].auc
    worst_row = min(rows, key=lambda row: card.matrix[row]["raw"].auc.value)
    alt = (
        f"A table of {len(rows)} generators by {len(columns)} ways of processing, coloured by AUC. On "
        f"its own generator, unprocessed, {best.value:.2f}; lowest unprocessed on {worst_row} with "
        f"{card.matrix[worst_row]['raw'].auc.value:.2f}."
    )
    return figure, alt


def attack_figure(card: ReportCard) -> tuple[Figure, str]:
    """Draw the fakes still caught after each attack; return the figure and its alt text."""
    rows = [(name, e, plots.REAL) for name, e in card.without_access.items()]
    if card.with_access:
        rows += [
            (f"PGD, {level} level{'s' if level > 1 else ''}", e, plots.ATTACK)
            for level, e in card.with_access.items()
        ]
    figure, axis = plt.subplots(figsize=(7.2, 0.7 + 0.3 * len(rows)))
    for y, (_, e, colour) in enumerate(reversed(rows)):
        error = [[max(0, e.value - e.low)], [max(0, e.high - e.value)]]
        _ = axis.errorbar([e.value], [y], xerr=error, fmt="o", color=colour, markersize=5)
    _ = axis.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)], fontsize=8.5)
    _ = axis.set(xlim=(-0.02, 1.02), xlabel="fakes still caught")
    _ = axis.set_title("An attacker without access (blue) and with access (purple)")
    lowest = min(rows, key=lambda row: row[1].value)
    alt = (
        f"The share of {card.home}'s fakes that raise an alarm, with intervals, after each attack: "
        f"{rows[0][1].value:.0%} when nothing is done, and {lowest[1].value:.0%} after the strongest, "
        f"{lowest[0]}."
    )
    return figure, alt


def calibration_figure(card: ReportCard) -> tuple[Figure, str]:
    """Draw how often each score is right; return the figure and its alt text."""
    figure, axis = plt.subplots(figsize=(3.4, 2.8))
    _ = axis.plot([0, 1], [0, 1], color=plots.MUTED, linewidth=0.9, linestyle="--")
    c = card.calibration
    _ = axis.scatter(c.score, c.share, s=8 + 120 * c.count / c.count.sum(), color=plots.INK)
    _ = axis.set(xlabel="score", ylabel="share that is fake", xlim=(-0.05, 1.05))
    _ = axis.set_title("Calibration")
    ece = card.matrix[card.home]["raw"].ece
    alt = (
        "The share of fakes against the score, in bins, larger dots for more images, beside the "
        f"diagonal of a calibrated detector. Expected calibration error {ece.value:.2f}."
    )
    return figure, alt


_CSS = """
body{font:16px/1.55 system-ui,sans-serif;color:#1f2933;background:#fff;max-width:52rem;margin:2rem auto;
padding:0 1rem}h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;margin:.8rem 0;font-size:.92rem}
th,td{white-space:nowrap;border-bottom:1px solid #d5dbe1;padding:.3rem .7rem;text-align:right}
th:first-child,td:first-child{text-align:left}img{max-width:100%;height:auto}.note{color:#4a5661}
dt{font-weight:600;margin-top:.5rem}dd{margin:0 0 0 1.2rem}
.wide{overflow-x:auto}
"""


#: What the page's words mean, for a reader who has not read the chapter.
WORDS = {
    "AUC": "the chance that a fake gets a higher score than a photograph: 1 is perfect, 0.5 a coin, and "
    "below 0.5 it takes fakes for more real than photographs",
    "EER": "equal error rate: the share of errors at the threshold where as many photographs are accused "
    "as fakes missed, in per cent",
    "calibration error": "how far, on average, a score of 0.8 is from being right in 80 of 100 cases",
    "shortcut": "one thing about a file that says nothing about how the image was made: grid (values off "
    "the 256 levels of a file), black and white (the share of such pixels), level (the mean), frame (the "
    "outermost two pixels)",
    "PGD": "projected gradient descent: an attack that knows the detector and moves each value by at most "
    "so many levels of 255, against its gradient",
}


def verdict(card: ReportCard) -> list[str]:
    """Return what a reader must know first: at home, and where it is worst; a sentence each."""
    own = card.matrix[card.home]["raw"]
    said = [
        f"On untouched images of {card.home}, its own generator, it catches {own.tpr.value:.0%} of "
        f"the fakes and accuses {own.fpr.value:.0%} of the photographs (AUC {own.auc})."
    ]
    if card.unseen:
        worst = min(card.unseen, key=lambda g: card.unseen[g].value)
        said.append(f"Of the other generators it does worst on {worst}: AUC {card.unseen[worst]}.")
    accused = {c: r.fpr.value for c, r in card.matrix[card.home].items()}
    harsh = max(accused, key=lambda c: accused[c])
    changed = "untouched" if harsh == "raw" else f"after {harsh}"
    said.append(f"It accuses most photographs {changed}: {accused[harsh]:.0%}.")
    tried = dict(card.without_access)
    if card.with_access is not None:
        tried |= {f"PGD of {levels} levels": e for levels, e in card.with_access.items()}
    if tried:
        best = min(tried, key=lambda a: tried[a].value)
        said.append(f"An attacker does best with {best}: {tried[best].value:.0%} still caught.")
    return said


def page(card: ReportCard) -> str:
    """Return the report card as one HTML page (text) that loads nothing and runs nothing."""

    def picture(drawn: tuple[Figure, str]) -> str:
        content, told = plots.png(drawn[0], alt=drawn[1])
        data = base64.b64encode(content).decode()
        return (
            f'<img src="data:image/png;base64,{data}" alt="{html.escape(told["alt"])}" '
            f'width="{told["width"]}" height="{told["height"]}">'
        )

    def table(head: list[str], rows: list[list[str]]) -> str:
        def cells(kind: str, row: list[str]) -> str:
            scope = ' scope="col"' if kind == "th" else ""
            return "".join(f"<{kind}{scope}>{html.escape(cell)}</{kind}>" for cell in row)

        body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
        return (
            f'<div class="wide" tabindex="0"><table><thead><tr>{cells("th", head)}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def per_cent(e: Estimate, digits: int = 0) -> str:
        return f"{e.value:.{digits}%} [{e.low:.{digits}%}, {e.high:.{digits}%}]"

    own = card.matrix[card.home]["raw"]
    leaks = [name for name, (_, e) in card.shortcuts.items() if e.low > 0.5]
    gate = (
        f"A shortcut is left for {', '.join(leaks)}: what is said of them may be about it."
        if leaks
        else "Every interval reaches 0.5 (they are wide enough for all of them together)."
    )
    harmed = {name: card.matrix[card.home][name].fpr for name in compression.CONDITIONS}
    first = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in verdict(card))
    made = {name: forge.GENERATORS[name] for name in card.matrix}
    words = "".join(
        f"<dt>{html.escape(word)}</dt><dd>{html.escape(meaning)}</dd>"
        for word, meaning in (WORDS | made).items()
    )
    access = (
        "The detector was given as a function without gradients: an attacker with access was not tried."
        if card.with_access is None
        else "With access: projected gradient descent, 20 steps, the result saved in 8 bits."
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Report card: {html.escape(card.name)}</title><style>{_CSS}</style></head><body>
<h1>Report card: {html.escape(card.name)}</h1>
<ul>{first}</ul>
<p class="note">{card.n_real} test photographs, and fakes of {len(card.matrix)} generators (the face
swap's beside the frames that it changed), 64 x 64 pixels, prepared alike. In brackets: intervals of 95 %
over test images; they know nothing of another training run. An alarm is a score of at least
{card.threshold:.3g}: the threshold that {
        FALSE_POSITIVE_RATE:.0%} of other photographs reach, a place on this
detector's own scale. Seed {card.seed}. The words are explained at the end.</p>
<h2>On its own generator, {html.escape(card.home)}</h2>
{
        table(
            ["AUC", "EER", "fakes caught", "photographs accused", "calibration error"],
            [[str(own.auc), per_cent(own.eer), per_cent(own.tpr), per_cent(own.fpr), str(own.ece)]],
        )
    }
<h2>May it be believed at all?</h2>
<p>Detectors that must not work, each on one thing that says nothing about how an image was made. The one
that finds most, for each generator:</p>
{
        table(
            ["generator", "shortcut", "AUC"],
            [[g, shortcut, str(e)] for g, (shortcut, e) in card.shortcuts.items()],
        )
    }
<p>{gate}</p>
{
        table(
            ["photographs against photographs", "AUC"],
            [
                ["one half against the other, by lot (must hold 0.5)", str(card.null)],
                [f"the same people, after {HISTORY} against as they are", str(card.history)],
            ],
        )
    }
<p class="note">In the last row a detector far from 0.5 takes a file's history for a forgery, or for a proof
of honesty.</p>
<h2>Other generators, other processing</h2>
<p>The AUC on fakes that it was not made for, a row each, after what happens to pictures on their way, a
column each.</p>
<div class="wide" tabindex="0">{picture(matrix_figure(card))}</div>
<p class="note">Bold: the interval does not reach 0.5. Far below 0.5 it finds these fakes more real than
photographs.</p>
<h3>Photographs accused, at the same threshold</h3>
{table(["processing", "accused"], [[name, per_cent(e)] for name, e in harmed.items()])}
<h2>What a score means</h2>
<p>If a score is a probability, the dots lie on the line: of all images with a score of 0.8, 80 in 100 are
fake. That holds at best for a test in which half the images are.</p>
{picture(calibration_figure(card))}
<h2>What an alarm is worth</h2>
<p>Where fakes are rare, most alarms are false, however good the detector. This is the best case: its own
generator, untouched.</p>
{
        table(
            ["one fake in", "alarms that are true", "false alarms for each true one"],
            [
                [
                    f"{point.one_in:,.0f}",
                    per_cent(point.precision, 1),
                    "no fake is caught"
                    if math.isinf(point.false_per_true)
                    else f"{point.false_per_true:,.1f}",
                ]
                for point in card.points
            ],
        )
    }
<h2>Against an attacker</h2>
<div class="wide" tabindex="0">{picture(attack_figure(card))}</div>
<p class="note">{
        access
    } A level is 1/255. Without access: processing, noise, and what fools a network
of the attacker's own.</p>
<h2>The words</h2>
<dl>{words}</dl>
<h2>What this page cannot say</h2>
<p>Small generators of small portraits were tried, and no others. A detector that does well here has
passed an examination, and can accuse nobody. Its code ran beside the examiner's: if it was written to
deceive, the numbers say nothing.</p>
</body></html>
"""
