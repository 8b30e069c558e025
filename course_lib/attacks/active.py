"""Active learning: which images are worth a label, asked of an attack and of its rivals.

A *query* is a function ``query(model, labelled, pool, k, generator)`` that chooses the ``k`` images of
the pool to be labelled next; it sees images, never a label. ``active_learning`` is the loop around all
of them.

Chapter: book/deceive/active.md
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from course_lib.attacks.deepfool import deepfool
from course_lib.classifiers import check_examples, evaluating, fit


@dataclass(frozen=True)
class Asked:
    """What a query wants: labels for the images ``indices`` (k,) of the pool, and what it adds itself.

    ``twins`` (k, ...): a changed copy of each asked image, which gets the same label and stays in the
    training set. ``sure``: images (m,) of the pool that the model labels itself, as ``guesses`` (m,),
    for the next training only.
    """

    indices: Tensor
    twins: Tensor | None = None
    sure: Tensor | None = None
    guesses: Tensor | None = None


@dataclass(frozen=True)
class Round:
    """The model after a training, and what it was trained on.

    ``known``: int64 (M,), the places in x of the M labelled images in the order in which they were
    asked; ``y`` (M,): their labels; ``twins`` (T, ...): the changed copies of the last T of them.
    ``state``: all that ``active_learning`` needs to go on from here, to be saved with ``torch.save``.
    """

    model: nn.Module
    known: Tensor
    y: Tensor
    twins: Tensor
    state: Mapping[str, Any]


#: ``query(model, labelled (M, ...), pool (N, ...), k, generator)``, images in [0, 1].
Query: TypeAlias = Callable[[nn.Module, Tensor, Tensor, int, torch.Generator], Asked]
#: ``train(model, x, y, seed)`` trains the model in place.
Train: TypeAlias = Callable[[nn.Module, Tensor, Tensor, int], None]


def train_briefly(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    seed: int,
    *,
    steps: int = 60,
    batch_size: int = 32,
    lr: float = 1e-3,
) -> None:
    """Train ``model`` on ``x`` (N, ...) and ``y`` (N,) for ``steps`` batches, as ``classifiers.fit``."""
    for _ in fit(model, x, y, steps=steps, batch_size=batch_size, lr=lr, seed=seed):
        pass


def active_learning(
    make_model: Callable[[], nn.Module],
    x: Tensor,
    ask: Callable[[Tensor], Tensor],
    *,
    query: Query,
    generator: torch.Generator,
    batch: int = 10,
    budget: int = 1000,
    initial: int = 10,
    candidates: int = 300,
    train: Train = train_briefly,
    warm: bool = True,
    state: Mapping[str, Any] | None = None,
) -> Iterator[Round]:
    """Train, let ``query`` choose ``batch`` images, ask for their labels, and again up to ``budget``.

    ``x``: (N, ...) in [0, 1], all unlabelled, where ``make_model()`` puts its models. ``ask(places)``
    gives the labels, int64 (k,), of the images at ``places`` (k,): the only way to a label, called
    once for each image that is chosen. The first ``initial`` images are drawn at random. A query
    chooses among ``candidates`` images, drawn at random each time from those without a label.
    ``warm``: every training goes on from the last one's weights; else it begins anew. ``generator``:
    seeded, on the CPU; it alone decides what is drawn, dropout included. ``state``: a ``Round``'s,
    from which the loop goes on as if it had never stopped.

    Yields a ``Round`` after each training, the first with ``initial`` labels, the last with
    ``budget``. Its ``model`` is the one that is trained on: measure it before you go on.

    Raises ``ValueError`` for NaN, sizes that do not fit each other, and a query or an ``ask`` that
    returns something else than is said above. Source: Settles, "Active learning literature survey",
    2010, figure 1.
    """
    check_examples("x", x)
    if not 1 <= initial <= budget <= len(x):
        raise ValueError(
            f"initial, budget: expected 1 <= initial <= budget <= {len(x)} images, "
            f"got {initial} and {budget}"
        )
    if not 1 <= batch <= candidates:
        raise ValueError(
            f"batch, candidates: expected 1 <= batch <= candidates, got {batch} and {candidates}"
        )

    def rounds() -> Iterator[Round]:
        model: nn.Module | None = None
        if state is None:
            known = torch.randperm(len(x), generator=generator)[:initial].to(x.device)
            y, twins = _answers(ask, known), x[:0]
            images, labels = x[known], y
        else:
            with torch.random.fork_rng(devices=[]):
                model = make_model()
            model.load_state_dict(state["model"])
            known, y, twins = (state[name].to(x.device) for name in ("known", "y", "twins"))
            generator.set_state(state["generator"])
        while True:
            if state is None or len(known) > len(state["known"]):
                if model is None or not warm:
                    with _seeded(generator, x.device):
                        model = make_model()
                with _seeded(generator, x.device) as seed:
                    train(model, images, labels, seed)
                kept = {"model": model.state_dict(), "known": known, "y": y, "twins": twins}
                yield Round(model, known, y, twins, {**kept, "generator": generator.get_state()})
            if len(known) == budget:
                return
            hidden = torch.ones(len(x), dtype=torch.bool)
            hidden[known.cpu()] = False
            pool = hidden.nonzero()[:, 0]
            pool = pool[torch.randperm(len(pool), generator=generator)[:candidates]].to(x.device)
            k = min(batch, budget - len(known))
            assert model is not None
            asked = query(model, x[known], x[pool], k, generator)
            _check_asked(asked, x[pool], k)
            chosen = pool[asked.indices]
            known, y = torch.cat([known, chosen]), torch.cat([y, _answers(ask, chosen)])
            if asked.twins is not None:
                twins = torch.cat([twins, asked.twins])
            images, labels = torch.cat([x[known], twins]), torch.cat([y, y[len(y) - len(twins) :]])
            if asked.sure is not None and asked.guesses is not None:
                images = torch.cat([images, x[pool[asked.sure]]])
                labels = torch.cat([labels, asked.guesses])

    return rounds()


def random(
    model: nn.Module, labelled: Tensor, pool: Tensor, k: int, generator: torch.Generator
) -> Asked:
    """Choose by lot: what every other query has to beat.

    Raises ``ValueError`` as ``uncertainty`` does.
    """
    _check_query(labelled, pool, k)
    return Asked(torch.randperm(len(pool), generator=generator)[:k].to(pool.device))


def uncertainty(
    model: nn.Module, labelled: Tensor, pool: Tensor, k: int, generator: torch.Generator
) -> Asked:
    """Choose the images whose predicted probabilities have the largest entropy.

    Raises ``ValueError`` for images that do not fit, NaN, or k outside 1..N. Source: Settles 2010,
    section 3.1, equation for x_H.
    """
    _check_query(labelled, pool, k)
    return Asked(_entropy(_log_probabilities(model, pool)).topk(k).indices)


def bald(
    model: nn.Module,
    labelled: Tensor,
    pool: Tensor,
    k: int,
    generator: torch.Generator,
    *,
    draws: int = 10,
) -> Asked:
    """Choose where the network's answers, with different units dropped, contradict each other most.

    The score is the entropy of the mean answer less the mean entropy of an answer, over ``draws``
    masks: 0 for a model without dropout, and where all are unsure in the same way.

    Raises ``ValueError`` as ``uncertainty`` does, and for draws below 1. Source: Gal, Islam &
    Ghahramani, "Deep Bayesian active learning with image data", 2017, equation 2.
    """
    _check_query(labelled, pool, k)
    if draws < 1:
        raise ValueError(f"draws: expected at least 1, got {draws}")
    return Asked(disagreement(model, pool, draws, generator).topk(k).indices)


@torch.no_grad()
def disagreement(model: nn.Module, x: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Return BALD's score of each image, (N,), in nats, from ``draws`` dropout masks."""
    with evaluating(model), _seeded(generator, x.device):
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.train()
        answers = torch.stack([model(x).double().log_softmax(dim=1) for _ in range(draws)])
    mean = answers.logsumexp(dim=0) - math.log(draws)
    return _entropy(mean) - _entropy(answers).mean(dim=0)


def ceal(
    model: nn.Module,
    labelled: Tensor,
    pool: Tensor,
    k: int,
    generator: torch.Generator,
    *,
    threshold: float = 0.005,
    decay: float = 3.3e-5,
) -> Asked:
    """Choose as ``uncertainty`` does, and let the model label the images that it is sure of itself.

    Sure is an entropy below ``threshold``, in nats, which falls by ``decay`` with every ``k`` labels
    known; how fast is ours. A guess is used once and then forgotten.

    Raises ``ValueError`` as ``uncertainty`` does, and for a negative threshold or decay. Source: Wang,
    Zhang, Li, Zhang & Lin, "Cost-effective active learning for deep image classification", 2017,
    Algorithm 1.
    """
    _check_query(labelled, pool, k)
    if not threshold >= 0 or not decay >= 0:
        raise ValueError(f"threshold, decay: expected at least 0, got {threshold} and {decay}")
    answers = _log_probabilities(model, pool)
    entropy = _entropy(answers)
    asked = entropy.topk(k).indices
    below = entropy < threshold - decay * (len(labelled) // k)
    below[asked] = False
    sure = below.nonzero()[:, 0]
    return Asked(asked, sure=sure, guesses=answers[sure].argmax(dim=1))


@torch.no_grad()
def core_set(
    model: nn.Module, labelled: Tensor, pool: Tensor, k: int, generator: torch.Generator
) -> Asked:
    """Choose one by one the image that is farthest from every labelled and chosen one.

    Distances are Euclidean, between the vectors ``model.features`` of the images.

    Raises ``ValueError`` as ``uncertainty`` does, and for a model without ``features``. Source: Sener &
    Savarese, "Active learning for convolutional neural networks: a core-set approach", 2018,
    Algorithm 1.
    """
    _check_query(labelled, pool, k)
    features = getattr(model, "features", None)
    if not callable(features):
        raise ValueError(f"model: expected one with a method features, got {type(model).__name__}")
    with evaluating(model):
        known, points = (features(images).flatten(1) for images in (labelled, pool))
    exact = "donot_use_mm_for_euclid_dist"  # sums of squares lose small distances
    distance = torch.cdist(points, known, compute_mode=exact).amin(dim=1)
    chosen: list[int] = []
    for _ in range(k):
        # Never twice the same, even when all that is left coincides with something known.
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(
            distance, torch.cdist(points, points[chosen[-1:]], compute_mode=exact)[:, 0]
        )
    return Asked(torch.tensor(chosen, device=pool.device))


def egl(
    model: nn.Module, labelled: Tensor, pool: Tensor, k: int, generator: torch.Generator
) -> Asked:
    """Choose the images whose label, whatever it turns out to be, is expected to move the weights most.

    Raises ``ValueError`` as ``uncertainty`` does. Source: Settles 2010, section 3.3; for deep networks
    Huang et al., "Active learning for speech recognition: the power of gradients", 2016, section 3.
    """
    _check_query(labelled, pool, k)
    return Asked(expected_gradient_length(model, pool).topk(k).indices)


def expected_gradient_length(model: nn.Module, x: Tensor, *, chunk: int = 10) -> Tensor:
    """Return, for each image, the mean length of the loss's gradient in the weights, over the labels.

    ``x``: (N, ...); each label counts with the probability that the model gives it; the loss is the
    cross-entropy, the gradient that of all weights together. ``chunk``: images at a time. Returns (N,).
    """
    weights = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def logits(weights: dict[str, Tensor], image: Tensor) -> Tensor:
        answer: Tensor = torch.func.functional_call(model, (weights, buffers), (image[None],))
        return answer[0]

    def length(image: Tensor) -> Tensor:
        # With J the Jacobian of the logits, label y has the gradient (p - e_y) J, so that J J^T will do.
        p = logits(weights, image).softmax(dim=0)
        rows = [j.flatten(1) for j in torch.func.jacrev(logits)(weights, image).values()]
        gram = sum((j @ j.T for j in rows), torch.zeros_like(rows[0][:, :1]))
        pull = p - torch.eye(len(p), dtype=p.dtype, device=p.device)
        squares = ((pull @ gram) * pull).sum(dim=1)
        return p @ squares.clamp(min=0).sqrt()

    with evaluating(model):
        found: Tensor = torch.func.vmap(length, chunk_size=chunk)(x)
    return found.detach()


def dfal_0(
    model: nn.Module,
    labelled: Tensor,
    pool: Tensor,
    k: int,
    generator: torch.Generator,
    *,
    max_steps: int = 10,
) -> Asked:
    """Choose the images that DeepFool has to change least, in the Euclidean norm, to be read otherwise.

    An image that ``max_steps`` steps do not turn counts as farthest from the boundary.

    Raises ``ValueError`` as ``uncertainty`` and ``deepfool`` do. Source: Ducoffe & Precioso,
    "Adversarial active learning for deep networks: a margin based approach", 2018, section 4.
    """
    return Asked(dfal(model, labelled, pool, k, generator, max_steps=max_steps).indices)


def dfal(
    model: nn.Module,
    labelled: Tensor,
    pool: Tensor,
    k: int,
    generator: torch.Generator,
    *,
    max_steps: int = 10,
) -> Asked:
    """Choose as ``dfal_0`` does, and train on each adversarial too, with its original's label.

    Raises ``ValueError`` as ``dfal_0`` does. Source: Ducoffe & Precioso 2018, Algorithm 1.
    """
    _check_query(labelled, pool, k)
    x_adv = deepfool(model, pool, max_steps=max_steps, candidates=10, direct=True)
    distance = (x_adv - pool).flatten(1).norm(dim=1)
    before, after = (_log_probabilities(model, images).argmax(dim=1) for images in (pool, x_adv))
    distance[before == after] = torch.inf
    nearest = distance.topk(k, largest=False).indices
    return Asked(nearest, twins=x_adv[nearest])


#: The queries by their names.
QUERIES: dict[str, Query] = {
    "dfal": dfal,
    "dfal_0": dfal_0,
    "bald": bald,
    "ceal": ceal,
    "core_set": core_set,
    "egl": egl,
    "uncertainty": uncertainty,
    "random": random,
}


@torch.no_grad()
def _log_probabilities(model: nn.Module, x: Tensor) -> Tensor:
    with evaluating(model):
        logits: Tensor = model(x)
    return logits.double().log_softmax(dim=1)


def _entropy(log_p: Tensor) -> Tensor:
    """Return the entropy in nats of log-probabilities (..., K): (...,)."""
    return -(log_p.exp() * log_p).nan_to_num(0).sum(dim=-1)


@contextmanager
def _seeded(generator: torch.Generator, device: torch.device) -> Iterator[int]:
    """Draw a seed, and let torch's own generators, which dropout draws from, start from it for a while."""
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield seed


def _answers(ask: Callable[[Tensor], Tensor], places: Tensor) -> Tensor:
    y = ask(places)
    if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != places.shape:
        got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"ask: expected int64 labels of shape ({len(places)},), got {got}")
    return y.to(places.device)


def _check_query(labelled: Tensor, pool: Tensor, k: int) -> None:
    check_examples("labelled", labelled)
    check_examples("pool", pool)
    if labelled.shape[1:] != pool.shape[1:]:
        raise ValueError(
            f"labelled, pool: expected images of one shape, got {tuple(labelled.shape[1:])} and "
            f"{tuple(pool.shape[1:])}"
        )
    if not 1 <= k <= len(pool):
        raise ValueError(f"k: expected 1 to {len(pool)}, as many as the pool holds, got {k}")


def _check_asked(asked: Asked, pool: Tensor, k: int) -> None:
    i = asked.indices
    if (
        i.dtype != torch.int64
        or i.shape != (k,)
        or len(i.unique()) < k
        or int(i.min()) < 0
        or int(i.max()) >= len(pool)
    ):
        raise ValueError(
            f"query: expected {k} different places in a pool of {len(pool)}, got {i.tolist()}"
        )
    if asked.twins is not None and asked.twins.shape != (k, *pool.shape[1:]):
        raise ValueError(
            f"query: expected twins {(k, *pool.shape[1:])}, got {tuple(asked.twins.shape)}"
        )
    sure, guesses = asked.sure, asked.guesses
    if (sure is None) != (guesses is None) or (
        sure is not None and guesses is not None and sure.shape != guesses.shape
    ):
        raise ValueError(
            "query: expected a guess for each image that it is sure of, and only those"
        )
