"""Reading a text as a language model does: how likely is each word, and was it chosen or drawn?

``score_tokens`` asks any causal language model; ``top_k``, ``nucleus`` and ``draw`` are how a text is
sampled from one; ``SCORES`` and ``HistogramDetector`` turn what it says of the tokens into a verdict.

Chapter: book/detect/reading.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor

from course_lib.detection.evaluate import Estimate, report

#: GLTR's classes of rank: among the model's 10, 100, 1,000 first choices, or beyond.
EDGES = (10, 100, 1000)


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the ``k`` largest logits of each row and set the others to minus infinity.

    ``logits``: (N, V). Raises ``ValueError`` for another shape, NaN, plus infinity, a row without any
    finite logit, or unless 1 <= k <= V.
    Source: Fan, Lewis and Dauphin (2018).
    """
    _check_logits(logits)
    if not 1 <= k <= logits.shape[1]:
        raise ValueError(f"k: expected 1 to {logits.shape[1]}, the vocabulary's size; got {k}")
    kept = logits.topk(k, dim=1)
    return torch.full_like(logits, -torch.inf).scatter(1, kept.indices, kept.values)


def nucleus(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest words of each row whose probabilities sum to ``p`` or more.

    ``logits``: (N, V); the others become minus infinity. Raises ``ValueError`` for another shape, NaN,
    plus infinity, a row without any finite logit, or unless 0 < p <= 1. Source: Holtzman et al. (2020).
    """
    _check_logits(logits)
    if not 0 < p <= 1:
        raise ValueError(f"p: expected a share in (0, 1], got {p}")
    largest, order = logits.sort(dim=1, descending=True)
    share = largest.softmax(dim=1)
    before = share.cumsum(dim=1) - share  # what the likelier words have together
    kept = largest.masked_fill(before >= p, -torch.inf)
    kept[:, 0] = largest[:, 0]  # the first choice stays whatever the rounding
    return torch.empty_like(logits).scatter(1, order, kept)


def draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one token per row of ``logits`` (N, V) from its softmax: int64 (N,).

    Raises ``ValueError`` for another shape, NaN, plus infinity, or a row without any finite logit.
    """
    _check_logits(logits)
    return torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)


@dataclass(frozen=True, eq=False)
class TokenScores:
    """What a language model thought of each token of N texts, given the tokens before it.

    ``rank``: int64 (N, T), 1 for the model's first choice. ``log_probability``: of the token, in nats;
    ``entropy``: of the prediction, which is minus the log-probability to be expected; ``variance``: of
    the log-probability under the prediction; all three floating (N, T). ``read``: bool (N, T), which
    places count: not the prompt, and nothing after the end of a shorter text. ``tokens``: T strings per
    text, empty after its end.

    Raises ``ValueError`` for shapes that differ, no text, a text of which nothing is read, or values
    at places that are read that are not finite or out of range.
    """

    rank: Tensor
    log_probability: Tensor
    entropy: Tensor
    variance: Tensor
    read: Tensor
    tokens: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        """Refuse what is not a table of scores."""
        shape = self.rank.shape
        if len(shape) != 2 or 0 in shape or self.rank.dtype != torch.int64:
            raise ValueError(
                f"rank: expected int64 (N, T), N and T > 0; got {self.rank.dtype} {tuple(shape)}"
            )
        for name in ("log_probability", "entropy", "variance", "read"):
            value: Tensor = getattr(self, name)
            if value.shape != shape:
                raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(value.shape)}")
        if self.read.dtype != torch.bool or not bool(self.read.any(dim=1).all()):
            raise ValueError("read: expected a bool mask that leaves a token of every text")
        if len(self.tokens) != len(self.rank) or any(len(t) != shape[1] for t in self.tokens):
            raise ValueError(f"tokens: expected {shape[0]} texts of {shape[1]} strings each")
        for name, low, high in (
            ("log_probability", -torch.inf, 1e-3),
            ("entropy", -1e-3, torch.inf),
            ("variance", -1e-3, torch.inf),
            ("rank", 1, torch.inf),
        ):
            value = getattr(self, name)[self.read].double()
            if not bool((value.isfinite() & (value >= low) & (value <= high)).all()):
                raise ValueError(f"{name}: expected finite values in [{low}, {high}] where read")

    @classmethod
    def of(cls, x: Tensor, tokens: Sequence[Sequence[str]]) -> Self:
        """Take the scores from a table (N, 4, T): rank, log-probability, entropy and variance.

        ``tokens``: the last T strings of each text are those that were read; the ones before them were
        the prompt. Raises ``ValueError`` for another shape, or as the scores themselves do.
        """
        if x.ndim != 3 or x.shape[1] != 4 or 0 in x.shape:
            raise ValueError(f"x: expected shape (N, 4, T), N and T > 0; got {tuple(x.shape)}")
        if len(tokens) != len(x) or any(len(row) < x.shape[2] for row in tokens):
            raise ValueError(f"tokens: expected {len(x)} texts of {x.shape[2]} strings or more")
        rank, log_probability, entropy, variance = x.unbind(dim=1)
        return cls(
            rank=rank.long(),
            log_probability=log_probability,
            entropy=entropy,
            variance=variance,
            read=torch.ones_like(rank, dtype=torch.bool),
            tokens=tuple(tuple(row[len(row) - x.shape[2] :]) for row in tokens),
        )

    def __len__(self) -> int:
        """Return how many texts there are."""
        return len(self.rank)

    def __getitem__(self, which: Tensor) -> Self:
        """Return the texts that ``which``, a bool mask (N,) or int64 indices, selects."""
        if which.ndim != 1 or which.dtype not in (torch.bool, torch.int64):
            raise ValueError(f"which: expected a bool mask or int64 indices, got {which.dtype}")
        index = torch.arange(len(self))[which]
        return type(self)(
            **{name: getattr(self, name)[index] for name in _TENSORS},
            tokens=tuple(self.tokens[i] for i in index.tolist()),
        )

    def first(self, n: int) -> Self:
        """Return the same texts, of which only the first ``n`` tokens that count are read.

        Raises ``ValueError`` for ``n`` below 1.
        """
        if n < 1:
            raise ValueError(f"n: expected at least 1 token, got {n}")
        return replace(self, read=self.read & (self.read.cumsum(dim=1) <= n))


_TENSORS = ("rank", "log_probability", "entropy", "variance", "read")


def judge(logits: Tensor, token: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return rank, log-probability, entropy and variance of the ``token`` that came, each (N,).

    ``logits``: (N, V), the model's prediction; ``token``: int64 (N,) in [0, V). The rank counts the
    words that the model thought strictly likelier, plus 1. The variance is that of log p(w) for w
    drawn from the prediction (Bao et al. 2024).

    Raises ``ValueError`` for other shapes, NaN, plus infinity, a row without any finite logit, or a
    token that the vocabulary does not hold.
    """
    _check_logits(logits)
    if token.shape != logits.shape[:1] or token.dtype != torch.int64:
        raise ValueError(
            f"token: expected int64 ({len(logits)},), got {token.dtype} {tuple(token.shape)}"
        )
    if int(token.min()) < 0 or int(token.max()) >= logits.shape[1]:
        raise ValueError(
            f"token: expected numbers from 0 to {logits.shape[1] - 1}, the model's vocabulary; "
            f"got {int(token.min())} to {int(token.max())}: is this the model's tokenizer?"
        )
    # Impossible words: a log-probability that is finite, for 0 times infinity is not a number.
    log_p = logits.float().log_softmax(dim=1).clamp_min(-1e4)
    p = log_p.exp()
    came = log_p.gather(1, token[:, None])
    rank = 1 + (log_p > came).sum(dim=1)
    expected = (p * log_p).sum(dim=1)
    variance = (p * (log_p - expected[:, None]) ** 2).sum(dim=1)
    return rank, came.squeeze(1), -expected, variance


@torch.no_grad()
def score_tokens(
    model: Callable[..., Any],
    tokenizer: Callable[[str], Any],
    texts: Sequence[str],
    *,
    prompt: int = 1,
    limit: int | None = None,
    batch: int = 8,
) -> TokenScores:
    """Ask a causal language model how likely each token of each text was, given those before it.

    ``model``: called as ``model(input_ids=(n, T))``, returns something with ``.logits`` (n, T, V), as
    transformers' models do; one in training mode is put into evaluation mode meanwhile, and one that
    has parameters gets its input on their device.
    ``tokenizer(text)`` has ``.input_ids``, a list of numbers; ``tokenizer.decode([number])`` the
    token's text. ``prompt``: how many tokens of each text are given and not read, at least the first,
    which nothing predicts; ``limit``: at most so many tokens of each text; ``batch``: texts at a time.

    Raises ``ValueError`` for no text, an empty one, one with no token after the prompt, numbers that
    the model's vocabulary does not hold, and logits that are no numbers or have another shape.
    Source: Gehrmann, Strobelt and Rush (2019), GLTR.
    """
    if isinstance(texts, str) or len(texts) == 0:
        raise ValueError("texts: expected a list of one text or more")
    if prompt < 1 or batch < 1 or (limit is not None and limit <= prompt):
        raise ValueError(
            f"prompt, batch, limit: expected at least 1, 1 and {prompt + 1}; "
            f"got {prompt}, {batch}, {limit}"
        )
    numbers: list[list[int]] = []
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"texts[{i}]: expected words, got an empty text")
        found = list(tokenizer(text).input_ids)[:limit]
        if len(found) <= prompt:
            raise ValueError(
                f"texts[{i}]: expected more than {prompt} tokens, got {len(found)}: {text[:40]!r}"
            )
        numbers.append(found)
    n, longest = len(numbers), max(map(len, numbers))
    ids = torch.zeros(n, longest, dtype=torch.int64)
    read = torch.zeros(n, longest, dtype=torch.bool)
    for i, found in enumerate(numbers):
        ids[i, : len(found)] = torch.tensor(found)
        read[i, prompt : len(found)] = True
    scores = {
        "rank": torch.ones(n, longest, dtype=torch.int64),
        **{name: torch.zeros(n, longest) for name in ("log_probability", "entropy", "variance")},
    }
    parameters = getattr(model, "parameters", tuple)
    where = next(iter(parameters()), ids).device
    training = bool(getattr(model, "training", False))
    if training:
        model.eval()  # type: ignore[attr-defined]
    try:
        for start in range(0, n, batch):
            rows = ids[start : start + batch]
            # Nothing has to be masked: what fills up a row comes after it, and the model is causal.
            logits = model(input_ids=rows.to(where)).logits
            if logits.ndim != 3 or logits.shape[:2] != rows.shape:
                raise ValueError(
                    f"model: expected logits {(*rows.shape, 'V')}, got {tuple(logits.shape)}"
                )
            for i, row in enumerate(rows):
                length = len(numbers[start + i])
                judged = judge(logits[i, : length - 1].cpu(), row[1:length])
                for name, value in zip(scores, judged, strict=True):
                    scores[name][start + i, 1:length] = value.to(scores[name].dtype)
    finally:
        if training:
            model.train()  # type: ignore[attr-defined]
    decode = getattr(tokenizer, "decode", lambda number: str(number[0]))
    tokens = tuple(
        tuple(decode([number]) for number in found) + ("",) * (longest - len(found))
        for found in numbers
    )
    return TokenScores(**scores, read=read, tokens=tokens)


def _mean(scores: TokenScores, value: Tensor) -> Tensor:
    """Mean over the tokens that are read: (N,), double."""
    read = scores.read.double()
    return torch.where(scores.read, value, 0).double().sum(dim=1) / read.sum(dim=1)


def log_probability(scores: TokenScores) -> Tensor:
    """Return the mean log-probability of each text's tokens, in nats: (N,); high: "too likely"."""
    return _mean(scores, scores.log_probability)


def log_rank(scores: TokenScores) -> Tensor:
    """Return minus the mean log-rank of each text's tokens: (N,), at most 0.

    Source: Mitchell et al. (2023), one of the scores that DetectGPT is compared with.
    """
    return -_mean(scores, scores.rank.double().log())


def share_of_top(scores: TokenScores, k: int = 10) -> Tensor:
    """Return the share of each text's tokens among the model's ``k`` first choices: (N,) in [0, 1].

    Raises ``ValueError`` for ``k`` below 1.
    """
    if k < 1:
        raise ValueError(f"k: expected at least 1, got {k}")
    return _mean(scores, (scores.rank <= k).double())


def entropy(scores: TokenScores) -> Tensor:
    """Return the mean entropy of the model's predictions, in nats: (N,), at least 0."""
    return _mean(scores, scores.entropy)


def curvature(scores: TokenScores) -> Tensor:
    """Return by how many standard deviations each text is likelier than the model expected: (N,).

    The sum of log p and entropy over the tokens, divided by the root of the summed variances: what one
    draws from the model itself has mean about 0 and variance about 1, whatever it is about.
    Source: Bao et al. (2024), Fast-DetectGPT, with one model for both parts.
    """
    excess = _mean(scores, scores.log_probability + scores.entropy)
    spread = _mean(scores, scores.variance).clamp_min(1e-12)
    return excess * (scores.read.sum(dim=1) / spread).sqrt()


def surprise_ratio(scores: TokenScores) -> Tensor:
    """Return minus the ratio of surprise to the surprise expected: (N,), around -1 for draws.

    Source: Hans et al. (2024), Binoculars, with one model in place of its two.
    """
    return log_probability(scores) / entropy(scores).clamp_min(1e-12)


#: Scores of a text, each higher for what looks more like a machine's: (N texts) -> (N,).
SCORES: Mapping[str, Callable[[TokenScores], Tensor]] = MappingProxyType(
    {
        "log-probability": log_probability,
        "log-rank": log_rank,
        "share of top 10": share_of_top,
        "curvature": curvature,
        "surprise ratio": surprise_ratio,
    }
)


def histogram(scores: TokenScores) -> Tensor:
    """Return which share of each text's tokens has which of GLTR's colours: (N, 4), rows sum to 1.

    Rank up to 10, up to 100, up to 1,000, and beyond: ``EDGES``.
    Source: Gehrmann, Strobelt and Rush (2019), GLTR.
    """
    edges = torch.tensor(EDGES, device=scores.rank.device)
    colour = torch.bucketize(scores.rank, edges)  # 0 where rank <= 10
    return torch.stack([_mean(scores, (colour == c).double()) for c in range(4)], dim=1)


@dataclass(frozen=True, eq=False)
class HistogramDetector:
    """A logistic regression on GLTR's four colours: ``weight`` (4,) and ``bias``."""

    weight: Tensor
    bias: float

    @classmethod
    def fit(cls, scores: TokenScores, labels: Tensor) -> Self:
        """Learn from texts and ``labels`` (N,), 1 for a machine's and 0 for a person's, both present.

        Raises ``ValueError`` for other labels.
        """
        from sklearn.linear_model import LogisticRegression

        if labels.shape != (len(scores),) or set(labels.tolist()) != {0, 1}:
            raise ValueError(
                f"labels: expected {len(scores)} of 0 (person) and 1 (machine), both present; "
                f"got shape {tuple(labels.shape)} with {sorted(set(labels.flatten().tolist()))[:5]}"
            )
        model = LogisticRegression(C=100.0, max_iter=1000)
        model.fit(histogram(scores).cpu().numpy(), labels.cpu().numpy())
        return cls(torch.from_numpy(model.coef_[0]).double(), float(model.intercept_[0]))

    def __call__(self, scores: TokenScores) -> Tensor:
        """Return for each text how likely it is a machine's, to this detector: (N,) in (0, 1)."""
        shares = histogram(scores)
        return torch.sigmoid(shares @ self.weight.to(shares.device) + self.bias)


#: What tells nothing of who wrote a text, or should not: one number of its characters.
SHORTCUTS: Mapping[str, Callable[[str], float]] = MappingProxyType(
    {
        "characters": lambda text: float(len(text)),
        "spaces": lambda text: text.count(" ") / len(text),
        "punctuation": lambda text: sum(c in ".,;:!?" for c in text) / len(text),
        "quotes and dashes": lambda text: sum(c in "'\"-" for c in text) / len(text),
        "capitals": lambda text: sum(c.isupper() for c in text) / len(text),
        "digits": lambda text: sum(c.isdigit() for c in text) / len(text),
        "ends a sentence": lambda text: float(text.rstrip()[-1:] in tuple(".!?")),
    }
)


def shortcut_auc(
    human: Sequence[str], machine: Sequence[str], *, groups: Tensor | None = None, seed: int = 0
) -> dict[str, Estimate]:
    """Return how well each of ``SHORTCUTS`` alone tells two lists of texts apart, with its interval.

    An interval that leaves 0.5 out, above or below, is a way to be right without reading. ``groups``:
    as in ``evaluate.report``, for the human texts and then the machine's. Raises ``ValueError`` for an
    empty list or text.
    """
    both = [*human, *machine]
    if not human or not machine or not all(text.strip() for text in both):
        raise ValueError("human, machine: expected texts in both, none of them empty")
    labels = torch.tensor([0] * len(human) + [1] * len(machine))
    found = {}
    for name, number in SHORTCUTS.items():
        values = torch.tensor([number(text) for text in both], dtype=torch.float64)
        # An AUC asks for the order alone, and a report for scores up to 1.
        found[name] = report(
            values / values.max().clamp_min(1), labels, groups=groups, seed=seed
        ).auc
    return found


def _check_logits(logits: Tensor) -> None:
    if logits.ndim != 2 or 0 in logits.shape or not logits.is_floating_point():
        raise ValueError(
            f"logits: expected floating point (N, V), got {logits.dtype} {tuple(logits.shape)}"
        )
    if bool(logits.isnan().any()):
        raise ValueError("logits: expected numbers, got NaN")
    if bool(logits.isposinf().any()):
        raise ValueError("logits: expected numbers or minus infinity, got plus infinity")
    if not bool(logits.isfinite().any(dim=1).all()):
        raise ValueError(
            "logits: expected a finite value in every row, got a row of minus infinity"
        )
