from __future__ import annotations

import random
import re

import pytest

from course_lib.grading import similarity

STUB = "def fit(x, k):\n    # YOUR CODE HERE\n    raise NotImplementedError\n"
NAMES = "mean centred cov values vectors order picked share total scaled left right".split()
CALLS = "sum mean sqrt abs sort clone flip cumsum square matmul norm diag".split()


def own(seed: int, lines: int = 16) -> str:
    """Return an answer that nobody else would write."""
    rng = random.Random(seed)
    body = [
        f"    {rng.choice(NAMES)} = torch.{rng.choice(CALLS)}({rng.choice(NAMES)}, {rng.randrange(90)})"
        f" {rng.choice('+-*/')} {rng.choice(NAMES)}.{rng.choice(CALLS)}()"
        for _ in range(lines)
    ]
    return "def fit(x, k):\n" + "\n".join(body) + "\n    return x\n"


def renamed(source: str) -> str:
    for i, name in enumerate(NAMES):
        source = re.sub(rf"(?<!\.)\b{name}\b", f"q{i}", source)
    return source


def reformatted(source: str) -> str:
    source = (
        source.replace("    ", "\t").replace(", ", ",").replace(" = ", "=").replace("\n", "\n\n")
    )
    return source.replace("return x", '"""Mine."""\n\n\t# all of it is mine\n\treturn (  x  )')


CLASS = {f"s{i}": {"fit": own(i)} for i in range(30)}


def found(answers: dict[str, dict[str, str]], **more: float) -> set[tuple[str, str]]:
    return {(pair.first, pair.second) for pair in similarity.pairs(answers, {"fit": STUB}, **more)}


@pytest.mark.parametrize(
    "change", [str, renamed, reformatted, lambda text: reformatted(renamed(text))]
)
def test_a_copy_is_found_however_it_was_dressed(change: object) -> None:
    assert callable(change)
    assert found(CLASS) == set()
    assert found(CLASS | {"copy": {"fit": change(own(7))}}) == {("s7", "copy")}


def test_the_measures_say_what_was_changed() -> None:
    answers = CLASS | {"copy": {"fit": renamed(own(7))}, "same": {"fit": own(8)}}
    same, copy = similarity.pairs(answers, {"fit": STUB})
    assert (same.first, same.second) == ("s8", "same") and same.text == same.shape == 1.0
    assert (copy.first, copy.second) == ("s7", "copy") and copy.text < copy.shape == 1.0


def test_a_copy_of_half_is_no_near_copy() -> None:
    half = own(7, 8).removesuffix("    return x\n") + own(99, 8).removeprefix("def fit(x, k):\n")
    assert found(CLASS | {"half": {"fit": half}}) == set()
    assert ("s7", "half") in found(CLASS | {"half": {"fit": half}}, text=0.4)


def test_what_the_class_has_in_common_proves_nothing() -> None:
    # Ten of forty write the same answer: that is how it is written.
    usual = {f"u{i}": {"fit": own(500)} for i in range(10)}
    assert found(CLASS | usual) == set()
    # Two who have the usual answer and beyond it the same odd part stand out.
    odd = own(500) + own(501).replace("def fit", "def helper")
    assert found(CLASS | usual | {"a": {"fit": odd}, "b": {"fit": odd}}) == {("a", "b")}


def test_short_answers_and_what_was_given_prove_nothing() -> None:
    short = "def fit(x, k):\n    m = x.mean(0)\n    return m, (x - m).T @ (x - m)\n"
    given = own(3)
    few = {"a": {"fit": short}, "b": {"fit": short}, "c": {"fit": STUB}, "d": {"fit": STUB}}
    assert found(CLASS | few) == set()
    both = {name: {"fit": given + f"\n# {name}\n"} for name in ("a", "b")}
    assert similarity.pairs(both, {"fit": given}) == []


def test_shared_names_and_comments_are_told_when_few_have_them() -> None:
    text = own(7) + "# why does this work\u202e\ntmp_gradient_2 = 1\n"
    pair, *_ = similarity.pairs(CLASS | {"a": {"fit": text}, "b": {"fit": text}}, {"fit": STUB})
    assert pair.shared == (r"# why does this work\u202e", "tmp_gradient_2")


def test_answers_that_are_no_python_are_compared_too() -> None:
    broken = own(7).replace("(x, k):", "(x, k")
    assert found(CLASS | {"a": {"fit": broken}, "b": {"fit": broken + "'''"}}) >= {("a", "b")}


@pytest.mark.parametrize(
    "source",
    [
        "(" * 50_000,
        "'" * 50_000,
        "f'{" * 20_000,
        "\\\n" * 20_000,
        "\0",
        "\udc80",
        "if x:\n" + "  y\n z\n" * 5_000,
        "",
        " ".join(f"v{i}" for i in range(50_000)),
    ],
)
def test_hostile_sources_are_bounded(source: str) -> None:
    answers = CLASS | {"a": {"fit": source}, "b": {"fit": source}, "c": {"other": "x"}}
    assert {"s0", "s1"}.isdisjoint(name for pair in found(answers) for name in pair)


def test_many_submissions_are_compared_at_once() -> None:
    answers = {f"s{i}": {"fit": own(i)} for i in range(400)} | {"copy": {"fit": renamed(own(7))}}
    assert found(answers) == {("s7", "copy")}


def test_a_threshold_is_a_share() -> None:
    for name in ("text", "shape"):
        with pytest.raises(ValueError, match=f"{name}: expected a share"):
            similarity.pairs({}, {}, **{name: 1.5})
    assert similarity.pairs({}, {"fit": STUB}) == []
    assert similarity.pairs({"a": {"fit": own(1)}}, {"fit": STUB}) == []
