"""The texts: pairs that share a beginning and nothing else, and scores that fit each other."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from course_lib import write_texts
from course_lib.data.texts import EDITED, KINDS, OTHERS, PAIRED, PROMPT, READ, texts
from course_lib.detection import text


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_its_texts_and_they_are_what_the_table_says(kind: Any) -> None:
    found = texts(kind)
    assert len(found) == {**dict.fromkeys(EDITED, 100), "novel": 30, "famous": 8}.get(kind, 150)
    assert found.x.shape[1:] == (4, READ) and found.x.dtype == torch.float32
    assert set(found.y.tolist()) == {int(kind not in ("human", *OTHERS))}
    assert all(len(row) == PROMPT + READ for row in found.tokens)
    rank, log_p, entropy, variance = found.x.unbind(1)
    assert float(rank.min()) >= 1 and torch.equal(rank, rank.round())
    assert float(log_p.max()) <= 0 and float(entropy.min()) >= 0 and float(variance.min()) >= 0
    assert float(entropy.max()) <= np.log(49152) + 0.01
    # Of rank r, the r likeliest words have each at least its probability: r p <= 1.
    assert float((rank.log() + log_p).max()) <= 0.02


@pytest.mark.parametrize("kind", PAIRED[1:])
def test_a_machine_text_has_the_beginning_of_its_passage_and_another_end(kind: Any) -> None:
    human, machine = texts("human"), texts(kind)
    assert torch.equal(human.passage, machine.passage) and torch.equal(human.group, machine.group)
    for ours, its in zip(human.tokens, machine.tokens, strict=True):
        assert ours[:PROMPT] == its[:PROMPT]
        assert ours[PROMPT:] != its[PROMPT:]
        assert ours[PROMPT].startswith(" ") and its[PROMPT].startswith(" ")


def test_speakers_are_in_one_split_only_and_kinds_split_alike() -> None:
    for kind in PAIRED:
        train, test = texts(kind, "train"), texts(kind, "test")  # type: ignore[arg-type]
        assert (len(train), len(test)) == (50, 100)
        assert not set(train.by) & set(test.by)
        assert not set(train.group.tolist()) & set(test.group.tolist())
        assert not set(train.texts) & set(test.texts)
    for kind in EDITED:
        edited = texts(kind, "test")  # type: ignore[arg-type]
        assert torch.equal(edited.passage, texts("top-k 40", "test").passage)


@pytest.mark.parametrize("kind", KINDS)
def test_all_texts_are_plain_prose(kind: Any) -> None:
    for words in texts(kind).texts:
        assert re.fullmatch(r"[A-Za-z0-9 .,;:!?'\"$%-]+", words), words
        assert "  " not in words


@pytest.mark.parametrize("kind", ("top-k 40", "nucleus 0.95"))
def test_a_truncated_sampler_shows_in_the_ranks(kind: Any) -> None:
    """Where the text is cut into the tokens it was drawn as, no rank lies beyond what was kept."""
    rank = texts(kind).x[:, 0]
    beyond = {"top-k 40": 60, "nucleus 0.95": 20000}[kind]
    assert (rank > beyond).float().mean() < 0.01
    assert (texts("human").x[:, 0] > 60).float().mean() > 0.05


def test_what_is_drawn_from_the_model_is_as_likely_as_it_expects() -> None:
    """For pure sampling the mean of log p + entropy is 0, but for the signs that were barred."""
    x = texts("pure").x.double()
    excess = (x[:, 1] + x[:, 2]).sum(1) / x[:, 3].sum(1).sqrt()
    assert abs(float(excess.mean())) < 0.7
    assert 0.7 < float(excess.std()) < 1.4


def test_a_subset_keeps_texts_and_scores_together() -> None:
    everyone = texts("human", "test")
    chosen = everyone.subset(torch.tensor([7, 3]))
    assert chosen.tokens == (everyone.tokens[7], everyone.tokens[3])
    assert chosen.by == (everyone.by[7], everyone.by[3])
    assert torch.equal(chosen.x, everyone.x[[7, 3]])
    assert everyone.take(5, seed=1).tokens == everyone.take(5, seed=1).tokens


def test_loading_twice_gives_tensors_that_are_not_shared() -> None:
    first = texts("pure", "test")
    first.x.zero_()
    assert float(texts("pure", "test").x[:, 0].min()) == 1


def test_scores_can_be_read() -> None:
    found = texts("famous")
    scores = text.TokenScores.of(found.x, found.tokens)
    assert scores.tokens[0] == found.tokens[0][PROMPT:]
    torch.testing.assert_close(text.log_probability(scores), found.x[:, 1].double().mean(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: texts("gpt"), "kind: expected one of human, top-k 40"),  # type: ignore[arg-type]
        (lambda: texts("human", "valid"), "split: expected one of train"),  # type: ignore[arg-type]
        (lambda: texts("novel", "train"), "the kind 'novel' is for testing only"),
        (lambda: texts("top-k 40, typos", "train"), "is for testing only"),
    ],
)
def test_wrong_requests_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_quotes_dashes_and_spaces_are_made_alike() -> None:
    assert write_texts.plain(" “Well”—it’s  so\n--") == '"Well" - it\'s so -'


def test_a_typo_changes_every_nth_long_word_and_no_other() -> None:
    words = "The people of this nation have built a great republic"
    assert write_texts.typos(words, 2) == "The people of tihs nation hvae built a gerat republic"
    assert sorted(write_texts.typos(words, 1)) == sorted(words)


def test_rarer_words_are_other_words() -> None:
    assert write_texts.rarer("the people keep their great nation") == (
        "the populace retain their prodigious polity"
    )
    assert all(plain != rare for plain, rare in write_texts.RARER.items())
    assert all(re.fullmatch("[a-z]+", word) for pair in write_texts.RARER.items() for word in pair)


def test_without_the_packages_the_writer_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(write_texts, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install transformers gguf accelerate"):
        write_texts.load.__wrapped__()
