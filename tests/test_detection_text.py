"""Reading as a language model does: closed forms on small models, and samplers against their rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_lib.detection import text

LETTERS = "abcdefgh"
#: What the small model thinks comes after each letter: a row of probabilities per letter.
AFTER = torch.tensor(
    [[0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.0078125]]
    + [[1 / 8] * 8] * 3
    + [[0.9] + [0.1 / 7] * 7] * 4,
    dtype=torch.float64,
)


class Bigram(nn.Module):
    """A language model that knows the last letter alone."""

    def __init__(self, table: Tensor = AFTER) -> None:
        super().__init__()
        self.table = nn.Parameter(table.log(), requires_grad=False)
        self.was_training: list[bool] = []

    def forward(self, input_ids: Tensor) -> Any:
        self.was_training.append(self.training)
        return SimpleNamespace(logits=self.table[input_ids])


class Letters:
    """A tokenizer of one token per letter."""

    def __call__(self, words: str) -> Any:
        return SimpleNamespace(input_ids=[LETTERS.index(c) for c in words])

    def decode(self, numbers: list[int]) -> str:
        return "".join(LETTERS[i] for i in numbers)


def read(*texts: str, **more: Any) -> text.TokenScores:
    return text.score_tokens(Bigram(), Letters(), list(texts), **more)


def scores_of(
    log_p: Tensor, h: Tensor | None = None, v: Tensor | None = None, rank: Tensor | None = None
) -> text.TokenScores:
    """Scores with given values, all of them read."""
    return text.TokenScores(
        rank=torch.ones_like(log_p, dtype=torch.int64) if rank is None else rank,
        log_probability=log_p,
        entropy=torch.ones_like(log_p) if h is None else h,
        variance=torch.ones_like(log_p) if v is None else v,
        read=torch.ones_like(log_p, dtype=torch.bool),
        tokens=tuple(("x",) * log_p.shape[1] for _ in log_p),
    )


def test_scores_of_a_small_model_are_those_on_paper() -> None:
    found = read("abab", "bc")
    assert found.read.tolist() == [[False, True, True, True], [False, True, False, False]]
    assert found.tokens == (("a", "b", "a", "b"), ("b", "c", "", ""))
    ln2 = math.log(2)
    expected = torch.tensor([[-2 * ln2, -3 * ln2, -2 * ln2], [-3 * ln2, 0, 0]])
    torch.testing.assert_close(found.log_probability[:, 1:], expected)
    # After "a": 1/2, 1/4, ... 1/128 and 1/128 again, whose entropy is 127/64 bits.
    p = AFTER[0]
    torch.testing.assert_close(found.entropy[0, 1].item(), 127 / 64 * ln2, atol=1e-6, rtol=0)
    variance = (p * p.log() ** 2).sum() - (p * p.log()).sum() ** 2
    torch.testing.assert_close(found.variance[0, 1].double(), variance, atol=1e-5, rtol=0)
    # After "b" all are equally likely: no word is ahead, and the variance is nothing.
    assert found.rank[0, 1:].tolist() == [2, 1, 2] and found.rank[1, 1] == 1
    assert abs(float(found.variance[1, 1])) < 1e-6
    torch.testing.assert_close(found.entropy[1, 1].item(), 3 * ln2, atol=1e-6, rtol=0)


def test_batches_and_longer_neighbours_change_nothing() -> None:
    words = ["abcdefgh", "ab", "hgfe", "aaaaaa", "cab"]
    together, alone = read(*words, batch=2), [read(word) for word in words]
    for i, one in enumerate(alone):
        n = len(words[i])
        for name in ("rank", "log_probability", "entropy", "variance", "read"):
            assert torch.equal(getattr(together, name)[i, :n], getattr(one, name)[0])
        assert not together.read[i, n:].any()
    for score in text.SCORES.values():
        torch.testing.assert_close(score(together), torch.cat([score(one) for one in alone]))


class Elsewhere(nn.Module):
    """A language model whose weights are on another device; what it says comes back on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, device="meta"))
        self.asked: set[str] = set()

    def forward(self, input_ids: Tensor) -> Any:
        self.asked.add(input_ids.device.type)
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, len(LETTERS)))


def test_a_model_is_asked_on_its_own_device() -> None:
    model = Elsewhere()
    found = text.score_tokens(model, Letters(), ["abc", "de"])
    assert model.asked == {"meta"}
    assert found.rank.device.type == "cpu" and found.tokens[0] == ("a", "b", "c")


def test_prompt_limit_and_first_leave_the_right_tokens() -> None:
    found = read("abcdefgh", prompt=3, limit=6)
    assert found.read.tolist() == [[False] * 3 + [True] * 3]
    assert found.tokens == (tuple("abcdef"),)
    assert found.first(2).read.tolist() == [[False] * 3 + [True] * 2 + [False]]
    assert torch.equal(found.first(99).read, found.read)
    whole = read("abcdefgh")
    torch.testing.assert_close(
        text.log_probability(found), whole.log_probability[:, 3:6].double().mean(1)
    )


def test_the_model_is_left_as_it_was() -> None:
    model = Bigram().train()
    text.score_tokens(model, Letters(), ["ab"])
    assert model.training and model.was_training == [False]
    with pytest.raises(ValueError):
        text.score_tokens(model, Letters(), ["ab"], prompt=2)
    assert model.training


def test_texts_are_chosen_with_their_tokens() -> None:
    found = read("abc", "bcd", "cde")
    for which in (torch.tensor([2, 0]), torch.tensor([True, False, True])):
        chosen = found[which]
        order = torch.arange(3)[which].tolist()
        assert chosen.tokens == tuple(found.tokens[i] for i in order)
        assert torch.equal(chosen.log_probability, found.log_probability[order])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 6))
def test_judge_agrees_with_its_definition(seed: int, v: int, n: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, v, generator=g, dtype=torch.float64) * 3
    token = torch.randint(0, v, (n,), generator=g)
    rank, log_p, entropy, variance = text.judge(logits, token)
    for i in range(n):
        p = np.exp(logits[i].numpy())
        p /= p.sum()
        assert rank[i] == sorted(p, reverse=True).index(p[token[i]]) + 1
        assert log_p[i].item() == pytest.approx(math.log(p[token[i]]), abs=1e-4)
        assert entropy[i].item() == pytest.approx(-(p * np.log(p)).sum(), abs=1e-4)
        mean = (p * np.log(p)).sum()
        assert variance[i].item() == pytest.approx((p * (np.log(p) - mean) ** 2).sum(), abs=1e-3)


def test_a_word_that_is_impossible_has_a_finite_score() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf]])
    rank, log_p, entropy, variance = text.judge(logits, torch.tensor([2]))
    assert rank.item() == 3 and log_p.item() <= -1e3
    assert entropy.item() == pytest.approx(math.log(2)) and abs(variance.item()) < 1e-6


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 40), st.floats(0.01, 1.0))
def test_nucleus_is_the_smallest_set_with_that_probability(seed: int, v: int, p: float) -> None:
    logits = torch.randn(3, v, generator=torch.Generator().manual_seed(seed)).double() * 2
    kept = text.nucleus(logits, p)
    share = logits.softmax(1)
    for i in range(3):
        inside = kept[i].isfinite()
        assert torch.equal(kept[i][inside], logits[i][inside])
        assert share[i][inside].sum() >= p - 1e-9
        assert share[i][inside].sum() - share[i][inside].min() < p + 1e-9  # not one too many
        if not bool(inside.all()):
            assert share[i][inside].min() >= share[i][~inside].max()


def test_top_k_keeps_just_the_likeliest() -> None:
    logits = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    for k in (1, 7, 30):
        kept = text.top_k(logits, k)
        assert (kept.isfinite().sum(1) == k).all()
        rank = text.judge(logits, kept.argmin(1).where(torch.tensor(k == 30), kept.argmax(1)))[0]
        assert (rank <= k).all()
        assert torch.equal(kept[kept.isfinite()], logits[kept.isfinite()])
    assert torch.equal(text.top_k(logits, 1).argmax(1), logits.argmax(1))


def test_draws_follow_the_probabilities_and_repeat() -> None:
    logits = AFTER[:1].log().repeat(8000, 1)
    token = text.draw(logits, torch.Generator().manual_seed(0))
    share = torch.bincount(token, minlength=8).double() / 8000
    assert (share - AFTER[0]).abs().max() < 4 * math.sqrt(0.25 / 8000)
    assert torch.equal(token, text.draw(logits, torch.Generator().manual_seed(0)))
    cut = text.draw(text.top_k(logits, 3), torch.Generator().manual_seed(1))
    assert int(cut.max()) == 2


def test_curvature_of_draws_from_the_model_is_standard_and_truncation_shows() -> None:
    """What is drawn from the model itself has mean 0 and variance 1, whatever the prediction."""
    g = torch.Generator().manual_seed(3)
    n, t = 400, 60
    logits = torch.randn(n * t, 50, generator=g) * (0.5 + 2 * torch.rand(n * t, 1, generator=g))
    found = {}
    for name, sampler in (("pure", lambda x: x), ("cut", lambda x: text.top_k(x, 10))):
        rank, *values = text.judge(logits, text.draw(sampler(logits), g))
        found[name] = scores_of(*(v.view(n, t) for v in values), rank=rank.view(n, t))
    z = text.curvature(found["pure"])
    assert abs(float(z.mean())) < 4 / math.sqrt(n) and 0.85 < float(z.std()) < 1.15
    assert float(text.curvature(found["cut"]).mean()) > 2
    assert float(text.surprise_ratio(found["pure"]).mean()) == pytest.approx(-1, abs=0.02)


def test_scores_are_their_closed_forms() -> None:
    log_p = torch.tensor([[-1.0, -3.0], [-2.0, -4.0]])
    h, v = torch.tensor([[1.0, 2.0], [2.0, 2.0]]), torch.tensor([[1.0, 3.0], [4.0, 4.0]])
    rank = torch.tensor([[1, 11], [100, 1001]])
    scores = scores_of(log_p, h, v, rank)
    assert text.log_probability(scores).tolist() == [-2, -3]
    assert text.entropy(scores).tolist() == [1.5, 2]
    assert text.share_of_top(scores).tolist() == [0.5, 0]
    assert text.share_of_top(scores, 1001).tolist() == [1, 1]
    torch.testing.assert_close(
        text.log_rank(scores), -torch.tensor([math.log(11) / 2, math.log(100 * 1001) / 2]).double()
    )
    torch.testing.assert_close(text.curvature(scores), torch.tensor([-0.5, -2 / 8**0.5]).double())
    torch.testing.assert_close(text.surprise_ratio(scores), torch.tensor([-4 / 3, -1.5]).double())
    assert text.histogram(scores).tolist() == [[0.5, 0.5, 0, 0], [0, 0.5, 0, 0.5]]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_the_histogram_is_a_distribution_whose_first_share_is_the_top_ten(seed: int) -> None:
    rank = torch.randint(1, 3000, (4, 25), generator=torch.Generator().manual_seed(seed))
    scores = scores_of(-torch.ones(4, 25), rank=rank)
    shares = text.histogram(scores)
    torch.testing.assert_close(shares.sum(1), torch.ones(4).double())
    for c, k in enumerate(text.EDGES):
        torch.testing.assert_close(shares[:, : c + 1].sum(1), text.share_of_top(scores, k))


def test_every_score_is_higher_where_the_model_is_surprised_less() -> None:
    likely = scores_of(-torch.ones(1, 9) * 0.5, rank=torch.full((1, 9), 2))
    unlikely = scores_of(-torch.ones(1, 9) * 5, rank=torch.full((1, 9), 900))
    for name, score in text.SCORES.items():
        assert float(score(likely)) > float(score(unlikely)), name


def test_the_histogram_detector_learns_what_separates_and_nothing_else() -> None:
    g = torch.Generator().manual_seed(0)
    low = torch.randint(1, 50, (60, 40), generator=g)
    high = torch.randint(1, 4000, (60, 40), generator=g)
    both = scores_of(-torch.ones(120, 40), rank=torch.cat([low, high]))
    labels = torch.tensor([1] * 60 + [0] * 60)
    detector = text.HistogramDetector.fit(both, labels)
    p = detector(both)
    assert p.shape == (120,) and float(p.min()) >= 0 and float(p.max()) <= 1
    assert float(p[:60].min()) > float(p[60:].max())
    coin = torch.randint(0, 2, (120,), generator=g)
    same = scores_of(-torch.ones(120, 40), rank=low.repeat(2, 1))
    again = text.HistogramDetector.fit(same, coin)(same)
    torch.testing.assert_close(again[:60], again[60:])


def test_a_shortcut_is_seen_and_equal_texts_have_none() -> None:
    human = [f"The year was {i}, and the people worked. It was good" for i in range(10, 40)]
    assert all(e.low <= 0.5 <= e.high for e in text.shortcut_auc(human, human).values())
    louder = [h.upper() for h in human]
    found = text.shortcut_auc(human, louder)
    assert found["capitals"].low > 0.9 and found["characters"].value == 0.5
    assert text.shortcut_auc(human, [h + "." for h in human])["ends a sentence"].value == 1


def test_a_table_becomes_scores_and_the_prompt_stays_out() -> None:
    x = torch.rand(2, 4, 3)
    x[:, 0] = torch.tensor([1.0, 40.0, 900.0])
    x[:, 1] *= -1
    found = text.TokenScores.of(x, [list("pqabc"), list("pqdef")])
    assert found.tokens == (tuple("abc"), tuple("def")) and bool(found.read.all())
    assert found.rank.tolist() == [[1, 40, 900]] * 2
    assert torch.equal(found.variance, x[:, 3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_kept_where_it_counts(dtype: torch.dtype) -> None:
    logits = torch.randn(6, 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert text.top_k(logits, 4).dtype == dtype and text.nucleus(logits, 0.5).dtype == dtype
    before = logits.clone()
    text.judge(logits, logits.argmax(1))
    text.nucleus(logits, 0.3)
    assert torch.equal(before, logits)


NAN = torch.tensor([[0.0, math.nan]])
GOOD = torch.zeros(1, 4)
ENDLESS = torch.tensor([[0.0, math.inf, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: read(), "texts: expected a list"),
        (lambda: text.score_tokens(Bigram(), Letters(), "ab"), "texts: expected a list"),
        (lambda: read("ab", ""), r"texts\[1\]: expected words, got an empty text"),
        (lambda: read("ab", "  "), "got an empty text"),
        (lambda: read("a"), "expected more than 1 tokens, got 1"),
        (lambda: read("abc", prompt=3), "expected more than 3 tokens, got 3"),
        (lambda: read("abc", prompt=0), "prompt, batch, limit"),
        (lambda: read("abc", limit=1), "prompt, batch, limit"),
        (lambda: read("abc", batch=0), "prompt, batch, limit"),
        (
            lambda: text.score_tokens(
                lambda input_ids: SimpleNamespace(logits=torch.zeros(*input_ids.shape, 4)),
                Letters(),
                ["agh"],
            ),
            "token: expected numbers from 0 to 3, the model's vocabulary; got 6 to 7",
        ),
        (
            lambda: text.score_tokens(
                lambda input_ids: SimpleNamespace(
                    logits=torch.full((*input_ids.shape, 8), math.nan)
                ),
                Letters(),
                ["ab"],
            ),
            "logits: expected numbers, got NaN",
        ),
        (
            lambda: text.score_tokens(
                lambda input_ids: SimpleNamespace(logits=torch.zeros(1, 1, 8)), Letters(), ["abc"]
            ),
            "model: expected logits",
        ),
        (lambda: text.judge(GOOD, torch.tensor([4])), "got 4 to 4: is this the model's tokenizer"),
        (lambda: text.judge(GOOD, torch.tensor([-1])), "token: expected numbers"),
        (lambda: text.judge(GOOD, torch.tensor([1.0])), "token: expected int64"),
        (lambda: text.judge(GOOD, torch.tensor([1, 2])), "token: expected int64"),
        (lambda: text.judge(NAN, torch.tensor([0])), "logits: expected numbers, got NaN"),
        (lambda: text.top_k(NAN, 1), "got NaN"),
        (lambda: text.top_k(GOOD, 0), "k: expected 1 to 4"),
        (lambda: text.top_k(GOOD, 5), "k: expected 1 to 4"),
        (lambda: text.top_k(GOOD[0], 1), "logits: expected floating point"),
        (lambda: text.nucleus(GOOD, 0.0), "p: expected a share"),
        (lambda: text.nucleus(GOOD, 1.1), "p: expected a share"),
        (lambda: text.nucleus(GOOD, math.nan), "p: expected a share"),
        (lambda: text.nucleus(GOOD.long(), 0.5), "logits: expected floating point"),
        (lambda: text.draw(GOOD - math.inf, torch.Generator()), "expected a finite value"),
        (lambda: text.judge(GOOD - math.inf, torch.tensor([0])), "expected a finite value"),
        (lambda: text.top_k(GOOD - math.inf, 2), "expected a finite value"),
        (lambda: text.nucleus(GOOD - math.inf, 0.5), "expected a finite value"),
        (lambda: text.judge(ENDLESS, torch.tensor([0])), "got plus infinity"),
        (lambda: text.nucleus(ENDLESS, 0.5), "got plus infinity"),
        (lambda: text.top_k(ENDLESS, 1), "got plus infinity"),
        (lambda: text.draw(ENDLESS, torch.Generator()), "got plus infinity"),
        (lambda: read("abc").first(0), "n: expected at least 1"),
        (lambda: read("abc")[torch.tensor([0.0])], "which: expected"),
        (lambda: scores_of(torch.tensor([[math.nan]])), "log_probability: expected finite"),
        (lambda: scores_of(torch.tensor([[1.0]])), "log_probability: expected finite"),
        (lambda: scores_of(-GOOD, rank=torch.zeros(1, 4).long()), "rank: expected finite"),
        (lambda: scores_of(-GOOD, rank=torch.ones(1, 4)), "rank: expected int64"),
        (lambda: scores_of(-GOOD, h=torch.ones(1, 3)), "entropy: expected shape"),
        (lambda: scores_of(torch.zeros(0, 4)), "rank: expected int64"),
        (lambda: text.TokenScores.of(torch.zeros(2, 3, 4), []), "x: expected shape"),
        (lambda: text.TokenScores.of(torch.zeros(1, 4, 3), [["a"]]), "tokens: expected 1 texts"),
        (lambda: text.share_of_top(read("abc"), 0), "k: expected at least 1"),
        (
            lambda: text.HistogramDetector.fit(read("abc", "abc"), torch.tensor([1, 1])),
            "labels: expected 2 of 0 .* and 1",
        ),
        (
            lambda: text.HistogramDetector.fit(read("abc", "abc"), torch.tensor([1])),
            "labels: expected 2",
        ),
        (lambda: text.shortcut_auc([], ["a"]), "human, machine: expected texts"),
        (lambda: text.shortcut_auc(["a"], [" "]), "human, machine: expected texts"),
    ],
)
def test_what_is_wrong_is_refused_by_name(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
