"""The report card: what it says of detectors whose truth is known, and that its page is safe."""

from __future__ import annotations

import html.parser
import itertools
import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from course_lib import forge, report_card
from course_lib.cli import app
from course_lib.detection import compression, evaluate
from course_lib.recipes import portrait_detectors

SOME = ("dcgan", "diffusion")


class Roughness(nn.Module):
    """A detector that everybody can check: minus the mean squared difference of neighbours."""

    def forward(self, x: Tensor) -> Tensor:
        inner = x[:, :, 4:-4, 4:-4]
        rough = (inner[..., 1:] - inner[..., :-1]).square().flatten(1).mean(1)
        return 4 + rough.log()


@pytest.fixture(scope="module")
def rough() -> report_card.ReportCard:
    return report_card.assess(Roughness(), "rough <b>", generators=SOME)


def test_the_matrix_is_the_report_of_each_generator_after_each_change(
    rough: report_card.ReportCard,
) -> None:
    assert list(rough.matrix) == [*SOME]
    for generator, change in (("dcgan", "JPEG 50"), ("diffusion", "raw")):
        part = portrait_detectors.held_out(generator)
        alter = compression.CONDITIONS[change]
        images = torch.cat([alter(part.real), alter(part.fake)])
        labels = torch.cat([torch.zeros(len(part.real)), torch.ones(len(part.fake))]).long()
        with torch.no_grad():
            s = torch.sigmoid(Roughness()(images))
        expected = evaluate.report(s, labels, threshold=rough.threshold, n=200)
        # Sums of other batches differ in their last digits.
        for name, value in asdict(expected).items():
            assert asdict(rough.matrix[generator][change])[name] == pytest.approx(value, abs=1e-6)
    assert set(rough.unseen) == {"diffusion"}


def test_the_gate_and_the_null_hold_on_the_portraits(rough: report_card.ReportCard) -> None:
    for found in rough.gate.values():
        assert all(e.low <= 0.5 for e in found.values())
        # Prepared portraits share all but their mean's last digit, so only that can tell anything.
        assert {name for name, e in found.items() if e.low == e.high == 0.5} == {
            *("grid", "black", "white", "frame")
        }
    assert all(name == "level" or e.value == 0.5 for name, e in rough.shortcuts.values())
    assert rough.null.low <= 0.5 <= rough.null.high
    # 5 % on validation photographs; on the test photographs about that.
    assert rough.matrix["dcgan"]["raw"].fpr.value < 0.15


def test_attacks_take_away_what_was_caught_and_no_more_than_there_was(
    rough: report_card.ReportCard,
) -> None:
    assert rough.with_access is not None
    caught = [rough.with_access[level].value for level in report_card.LEVELS]
    assert caught == sorted(caught, reverse=True)
    assert caught[0] <= rough.without_access["nothing"].value
    assert set(rough.without_access) > {"JPEG 50", "half size", "blur 1 px"}


def test_a_detector_that_says_the_same_of_all_gets_one_half_and_catches_nobody() -> None:
    card = report_card.assess(lambda x: torch.full((len(x),), 0.3), "same", generators=("dcgan",))
    assert all(r.auc.value == 0.5 for r in card.matrix["dcgan"].values())
    assert card.with_access is None
    assert card.points[-1].precision.value == 0 and math.isinf(card.points[-1].false_per_true)
    text = report_card.page(card)
    assert "without gradients" in text and "no fake is caught" in text
    assert json.loads(card.to_json())["points"][0]["false_per_true"] is None


def test_a_detector_of_files_is_found_out_by_photographs_alone() -> None:
    def blocks(x: Tensor) -> Tensor:
        step = (x[..., 1:] - x[..., :-1]).abs().mean(dim=(1, 2))
        border = torch.arange(1, x.shape[-1]) % 8 == 0
        return torch.sigmoid(30 * (step[:, border].mean(1) / step[:, ~border].mean(1) - 1.1))

    card = report_card.assess(blocks, "blocks", generators=("dcgan",), attacked=2)
    assert card.history.low > 0.6 and card.null.low <= 0.5 <= card.null.high


def test_counting_calls_tells_nothing_about_any_set() -> None:
    calls = 0

    def counts(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.full((len(x),), 0.9 if calls % 2 else 0.1)

    card = report_card.assess(counts, "counts", generators=("dcgan",), attacked=2)
    seen = [card.history, *(r.auc for r in card.matrix["dcgan"].values())]
    assert all(0.35 < e.value < 0.65 for e in seen)


def test_real_and_fake_are_shown_together_in_no_order_and_each_once() -> None:
    part = portrait_detectors.held_out("dcgan")
    key = {image.numpy().tobytes(): True for image in part.fake}
    key |= {image.numpy().tobytes(): False for image in part.real}
    shown: list[list[bool]] = []

    def watches(x: Tensor) -> Tensor:
        shown.append([key[i.numpy().tobytes()] for i in x if i.numpy().tobytes() in key])
        return torch.full((len(x),), 0.5)

    report_card.assess(watches, "watches", generators=("dcgan",), attacked=2)
    raw = [fakes for fakes in shown if sum(fakes) > 2]
    assert sum(map(len, raw)) == len(part.real) + len(part.fake)
    for fakes in raw:
        assert 0.3 < sum(fakes) / len(fakes) < 0.7
        assert sum(a != b for a, b in itertools.pairwise(fakes)) > len(fakes) / 4


class Fading(Roughness):
    """The same detector, but it darkens what it is handed."""

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x)
        with torch.no_grad():
            x.mul_(0.8)
        return found


def test_a_detector_that_changes_its_images_changes_no_number() -> None:
    def numbers(detector: nn.Module) -> str:
        def called(x: Tensor) -> Tensor:
            return torch.sigmoid(detector(x))

        return report_card.assess(called, "x", generators=("dcgan",), attacked=2).to_json()

    assert numbers(Fading()) == numbers(Roughness())
    x = portrait_detectors.held_out("dcgan").real
    before = x.clone()
    report_card.scores(Fading(), x)
    assert torch.equal(x, before)


class Reader(html.parser.HTMLParser):
    """Collects tags, and images without an alternative text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.bare = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        if tag == "img" and len(given.get("alt") or "") < 40:
            self.bare += 1


def test_the_page_holds_everything_loads_nothing_and_escapes_the_name(
    rough: report_card.ReportCard,
) -> None:
    text = report_card.page(rough)
    reader = Reader()
    reader.feed(text)
    assert reader.tags.count("img") == 3 and reader.bare == 0
    assert "script" not in reader.tags and "b" not in reader.tags and "link" not in reader.tags
    assert "rough &lt;b&gt;" in text and "http" not in text.replace("http-equiv", "")
    assert "10,000" in text and len(text) < 500_000
    for word in (*report_card.WORDS, *SOME):
        assert f"<dt>{word}</dt>" in text


def test_the_verdict_names_the_worst_of_each_kind(rough: report_card.ReportCard) -> None:
    home, unseen, processing, attacker = report_card.verdict(rough)
    assert f"{rough.matrix['dcgan']['raw'].tpr.value:.0%} of the fakes" in home
    lowest = min(rough.unseen.values(), key=lambda e: e.value)
    assert str(lowest) in unseen
    assert f"{max(r.fpr.value for r in rough.matrix['dcgan'].values()):.0%}" in processing
    left = [*rough.without_access.values(), *(rough.with_access or {}).values()]
    assert f"{min(e.value for e in left):.0%} still caught" in attacker


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (lambda x: torch.zeros(len(x), 1), "expected a tensor of"),
        (lambda x: [0.5] * len(x), "expected a tensor of .* got list"),
        (lambda x: torch.full((len(x),), math.nan), r"expected scores in \[0, 1\]"),
        (lambda x: torch.full((len(x),), 1.5), r"expected scores in \[0, 1\]"),
    ],
)
def test_a_detector_that_gives_no_scores_is_told_so(detector: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        report_card.assess(detector, "x", generators=("dcgan",))  # type: ignore[arg-type]


def test_an_unknown_home_or_generator_is_named() -> None:
    with pytest.raises(ValueError, match="home: expected one of"):
        report_card.assess(Roughness(), "x", home="vae", generators=("dcgan",))
    with pytest.raises(ValueError, match="generator: expected one of"):
        report_card.assess(Roughness(), "x", generators=("dcgan", "stylegan"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("portrait-detectors:best", "portrait-detectors has "),
        ("meso", "expected portrait-detectors:NAME or FILE.py:NAME"),
        ("nowhere.py:detector", "of a file that is there"),
        ("{folder}/mine.py:missing", "expected a module or a function called 'missing'"),
        ("{folder}/mine.py:Net", "expected a module or a function called 'Net'"),
        ("{folder}/broken.py:detector", "running it failed: ZeroDivisionError"),
    ],
)
def test_an_address_without_a_detector_is_explained(
    address: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Net:\n    depth: int = 1\n",
        encoding="utf-8",
    )
    (tmp_path / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        report_card.load(address.format(folder=tmp_path))


def test_the_command_writes_a_page_and_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def detector(x):\n    return x.mean(dim=(1, 2, 3))\n", encoding="utf-8")
    defaults = {**(report_card.assess.__kwdefaults__ or {}), "generators": SOME, "attacked": 10}
    monkeypatch.setattr(report_card.assess, "__kwdefaults__", defaults)
    out = tmp_path / "deep" / "card.html"
    result = CliRunner().invoke(app, ["report-card", f"{mine}:detector", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "mine.py:detector" in out.read_text("utf-8")
    assert json.loads(out.with_suffix(".json").read_text("utf-8"))["home"] == "dcgan"
    bad = CliRunner().invoke(app, ["report-card", f"{mine}:detector", "--out", "card.pdf"])
    assert bad.exit_code != 0 and "ends in .html" in str(bad.exception)
    assert forge.GENERATORS
