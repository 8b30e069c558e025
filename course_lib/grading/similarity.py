"""Near-identical submissions: what a person may want to look at, and never a verdict.

Short correct answers look alike, so a pair is judged against its class. Code is read as tokens, without
spaces, and with all strings alike. Runs of tokens that the assignment gave, or that many of the class
share, prove nothing and are left out. What is left of two submissions is compared twice: as it stands,
with names and the words of comments; and as a shape, with names replaced by the order in which they
come, so that a copy with new names is found too. A pair is reported when enough is left, nearly all of it
agrees, and some of it is rare in the class.

Runs of tokens as fingerprints: Schleimer, Wilkerson and Aiken, *Winnowing* (2003).
"""

from __future__ import annotations

import builtins
import io
import keyword
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations, islice

from course_lib.grading.intake import printable

#: Of the class, the share that makes a run of tokens common, and the share up to which it is rare; in a
#: small class, how many students that is at least.
COMMON, RARE, FEW = 0.2, 0.02, 4
#: Tokens in a run, of the text and of the shape. A shape says less, so it needs a longer run.
RUN_TEXT, RUN_SHAPE = 5, 9
#: How many tokens must be left of a submission, and how many rare runs two must share.
LEAST_TEXT, LEAST_SHAPE, LEAST_RARE = 40, 60, 15
#: How much of what is left must agree, as it stands and as a shape.
TEXT, SHAPE = 0.85, 0.95
#: The most tokens of a submission that are read, and of its characters.
MAX_TOKENS, MAX_CHARACTERS = 2_000, 40_000

_WORD = re.compile(r"\w+")
# For a source that is no Python: strings, comments, names, numbers and single signs.
_ROUGH = re.compile(
    r"""(?P<string>(?:'[^'\n]*'|"[^"\n]*"))|(?P<comment>\#[^\n]*)|(?P<name>[^\W\d]\w*)|(?P<number>\d[\w.]*)"""
    r"""|(?P<sign>[^\w\s])"""
)
_SKIP = {
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
}
_KEPT = {*keyword.kwlist, *dir(builtins)}


@dataclass(frozen=True)
class Pair:
    """Two submissions that agree: ``text`` and ``shape`` say how much, in [0, 1].

    ``tokens`` is how many of each were compared, the smaller number; a measure for which too little was
    left is 0. ``shared`` lists names and comments that both have and few others.
    """

    first: str
    second: str
    text: float
    shape: float
    tokens: int
    shared: tuple[str, ...] = ()

    @property
    def agreement(self) -> float:
        """Return the larger of the two measures."""
        return max(self.text, self.shape)


def pairs(
    answers: Mapping[str, Mapping[str, str]],
    stubs: Mapping[str, str],
    *,
    text: float = TEXT,
    shape: float = SHAPE,
) -> list[Pair]:
    """Return the pairs of submissions that agree more than their class explains, the closest first.

    ``answers`` holds each student's sources by grade_id, ``stubs`` what the assignment gave there. An
    answer that is as it was given counts for nothing. ``text`` and ``shape`` are how much of what is
    left must agree, in (0, 1]: one of them is enough.

    Raises ``ValueError`` for another range.
    """
    for name, value in (("text", text), ("shape", shape)):
        if not 0 < value <= 1:
            raise ValueError(f"{name}: expected a share in (0, 1], got {value}")
    given = [_tokens(source) for source in stubs.values()]
    students, token_lists = [], []
    for student, cells in answers.items():
        written: list[list[tuple[str, str]]] = []
        for name in stubs:
            if name in cells and cells[name].strip() != stubs[name].strip():
                room = MAX_TOKENS - sum(map(len, written))
                written.append(_tokens(cells[name], room))
        if any(written):
            students.append(student)
            token_lists.append(written)
    kinds = (
        (_as_text, text, RUN_TEXT, LEAST_TEXT),
        (_as_shape, shape, RUN_SHAPE, LEAST_SHAPE),
    )
    found: dict[tuple[int, int], list[float]] = {}
    left: list[list[int]] = []
    for kind, (as_words, threshold, run, least) in enumerate(kinds):
        own, rare = _own(
            [[as_words(tokens) for tokens in written] for written in token_lists],
            [as_words(tokens) for tokens in given],
            run,
        )
        left.append([len(kept) for kept in own])
        for i, j, ratio in _close(own, rare, threshold, least):
            found.setdefault((i, j), [0.0, 0.0])[kind] = ratio
    marks = [_marks(written) for written in token_lists]
    many = Counter(mark for each in marks for mark in each)
    told = {mark for tokens in given for mark in _marks([tokens])}
    result = [
        Pair(
            students[i],
            students[j],
            round(as_text, 4),
            round(as_shape, 4),
            min(left[0 if as_text else 1][one] for one in (i, j)),
            tuple(_listed(marks[i] & marks[j] - told, many, len(students))),
        )
        for (i, j), (as_text, as_shape) in found.items()
    ]
    return sorted(
        result,
        key=lambda pair: (-pair.agreement, -pair.text, -pair.tokens, pair.first, pair.second),
    )


def _tokens(source: str, most: int = MAX_TOKENS) -> list[tuple[str, str]]:
    """Return kind and text of a source's tokens: name, keyword, number, sign, string or comment."""
    source = source[:MAX_CHARACTERS]
    tokens: list[tuple[str, str]] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if len(tokens) >= most:
                break
            if token.type in _SKIP:
                continue
            if token.type == tokenize.COMMENT:
                tokens.append(("comment", token.string))
            elif token.type == tokenize.NAME:
                kind = "keyword" if keyword.iskeyword(token.string) else "name"
                tokens.append((kind, token.string))
            elif token.type == tokenize.NUMBER:
                tokens.append(("number", token.string))
            elif token.type == tokenize.OP:
                tokens.append(("sign", token.string))
            else:
                tokens.append(("string", ""))
    except (tokenize.TokenError, SyntaxError, ValueError, RecursionError):
        rough = islice(_ROUGH.finditer(source), most)
        tokens = [(hit.lastgroup or "sign", hit[0]) for hit in rough]
    return tokens


def _as_text(tokens: Sequence[tuple[str, str]]) -> list[str]:
    """Return tokens as words, comments word by word."""
    words: list[str] = []
    for kind, text in tokens:
        if kind == "comment":
            words += [f"#{word}" for word in _WORD.findall(text.casefold())]
        else:
            words.append("''" if kind == "string" else text)
    return words


def _as_shape(tokens: Sequence[tuple[str, str]]) -> list[str]:
    """Return tokens without comments, and names as how many other names came since their last use."""
    words: list[str] = []
    seen: list[str] = []  # the latest last
    before = ""
    for kind, text in tokens:
        if kind == "comment":
            continue
        if kind == "string":
            words.append("''")
        # What stands after a dot is a library's, and is no name that a copyist could change.
        elif kind == "name" and before != "." and text not in _KEPT:
            words.append(f"n{len(seen) - seen.index(text)}" if text in seen else "n")
            if text in seen:
                seen.remove(text)
            seen = [*seen[-30:], text]
        else:
            words.append(text)
        before = text
    return words


def _own(
    documents: Sequence[Sequence[Sequence[str]]], given: Sequence[Sequence[str]], run: int
) -> tuple[list[str], list[set[str]]]:
    """Return of each document what is not common, as a string with one character per token.

    And the runs in it that are rare. ``documents`` holds a list of words per answer.
    """
    letters: dict[str, str] = {}

    def spell(words: Iterable[str]) -> str:
        # Any 1,000,000 characters that are no surrogates will do.
        return "".join(
            letters.setdefault(word, chr(0x10000 + len(letters) % 1_000_000)) for word in words
        )

    spelled = [[spell(words) for words in document] for document in documents]
    handed_out = {piece for words in given for piece in _runs(spell(words), run)}
    many = Counter(
        piece
        for document in spelled
        for piece in {piece for text in document for piece in _runs(text, run)}
    )
    common = max(FEW, COMMON * len(documents))
    few = max(FEW, RARE * len(documents))
    own, rare = [], []
    for document in spelled:
        kept: list[str] = []
        mine: set[str] = set()
        for text in document:
            reach = 0  # up to where tokens are kept
            for i, piece in enumerate(_runs(text, run)):
                if piece in handed_out or many[piece] > common:
                    continue
                kept.append(text[max(reach, i) : i + run])
                reach = i + run
                if 2 <= many[piece] <= few:  # what only one has joins no two
                    mine.add(piece)
        own.append("".join(kept))
        rare.append(mine)
    return own, rare


def _runs(text: str, run: int) -> Iterator[str]:
    return (text[i : i + run] for i in range(len(text) - run + 1))


def _close(
    own: Sequence[str], rare: Sequence[Set[str]], threshold: float, least: int
) -> Iterator[tuple[int, int, float]]:
    """Yield the pairs of long enough strings whose similarity reaches the threshold.

    Only those that share enough rare runs are compared: of a thousand submissions these are few.
    """
    from rapidfuzz.distance import Indel

    holders: dict[str, list[int]] = {}
    for i, pieces in enumerate(rare):
        if len(own[i]) >= least:
            for piece in pieces:
                holders.setdefault(piece, []).append(i)
    together: Counter[tuple[int, int]] = Counter()
    for holding in holders.values():
        together.update(combinations(holding, 2))
    for (i, j), count in sorted(together.items()):
        if count >= LEAST_RARE:
            ratio = Indel.normalized_similarity(own[i], own[j], score_cutoff=threshold)
            if ratio >= threshold:
                yield i, j, ratio


def _marks(written: Iterable[Sequence[tuple[str, str]]]) -> set[str]:
    """Return the names and comments of a submission, those of some length."""
    return {
        text.strip()
        for tokens in written
        for kind, text in tokens
        if (kind == "name" and len(text) > 2) or (kind == "comment" and len(text) > 8)
    }


def _listed(both: Iterable[str], many: Mapping[str, int], count: int) -> list[str]:
    """Return what two share and few others have, comments first and the rarest first."""
    few = max(FEW, RARE * count)
    rare = [mark for mark in both if many[mark] <= few]
    rare.sort(key=lambda mark: (not mark.startswith("#"), many[mark], mark))
    return [printable(mark)[:100] for mark in rare[:8]]
