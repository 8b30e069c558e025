"""Active learning: each query against its definition, and a loop that never peeks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from course_lib.attacks import active
from course_lib.attacks.active import Asked, active_learning

each_query = pytest.mark.parametrize("query", active.QUERIES.values(), ids=active.QUERIES.keys())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    """A small network on (N, 1, 4, 4) with 3 classes, a hidden layer of 5 and dropout."""

    def __init__(self, dropout: float = 0.4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Dropout(dropout))
        self.head = nn.Linear(5, 3)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def net(seed: int = 0, dropout: float = 0.4) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(dropout)


def linear(seed: int = 0, classes: int = 3) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))


def images(n: int, seed: int = 0) -> Tensor:
    """Near the middle of the box, where no attack on these networks meets its walls."""
    return 0.5 + 0.05 * torch.randn(n, 1, 4, 4, generator=generator(seed))


def ranked(scores: Tensor) -> list[int]:
    return scores.argsort(descending=True).tolist()


# Each query against its definition


def test_uncertainty_ranks_by_entropy() -> None:
    model, pool = net(), images(40)
    with torch.no_grad():
        p = model.eval()(pool).softmax(dim=1)
    entropy = torch.distributions.Categorical(probs=p).entropy()
    asked = active.uncertainty(model, images(2, 1), pool, 7, generator())
    assert asked.indices.tolist() == ranked(entropy)[:7]


def test_certain_answers_have_no_entropy() -> None:
    model = nn.Sequential(linear(), nn.Flatten())
    model[0][1].weight.data.mul_(1e6)  # probabilities of exactly 0 and 1
    asked = active.uncertainty(model, images(2, 1), images(9), 3, generator())
    assert len(asked.indices.unique()) == 3
    assert bool((active._entropy(torch.tensor([[0.0, -torch.inf]])) == 0).all())


def test_random_is_a_lot_of_all_and_follows_the_generator() -> None:
    draw = partial(active.random, net(), images(2, 1), images(30), 30)
    assert sorted(draw(generator()).indices.tolist()) == list(range(30))
    assert draw(generator(1)).indices.tolist() == draw(generator(1)).indices.tolist()
    assert draw(generator(1)).indices.tolist() != draw(generator(2)).indices.tolist()


def test_bald_is_the_mutual_information_of_answer_and_mask() -> None:
    class Masks(nn.Module):
        """One dropout of one unit: the answer is (0.9, 0.1) or (0.5, 0.5) for images with a mark."""

        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            mark = x.flatten(1)[:, 0]
            unit = (self.drop(torch.ones(len(x))) > 0).to(x.dtype)
            return torch.stack([unit * mark * torch.tensor(9.0).log(), torch.zeros(len(x))], dim=1)

    x = torch.zeros(400, 1, 4, 4)
    x[200:, 0, 0, 0] = 1
    score = active.disagreement(Masks(), x, 400, generator())

    def entropy(p: float) -> float:
        return float(torch.distributions.Bernoulli(torch.tensor(p)).entropy())

    expected = entropy(0.7) - (entropy(0.9) + entropy(0.5)) / 2
    assert score[:200].abs().max() < 1e-12
    assert float(score[200:].mean()) == pytest.approx(expected, rel=0.02)
    chosen = active.bald(Masks(), x[:2], x, 20, generator(), draws=20).indices
    assert int(chosen.min()) >= 200


def test_bald_of_a_network_without_dropout_is_zero() -> None:
    assert active.disagreement(net(dropout=0.0), images(9), 5, generator()).abs().max() < 1e-12
    assert active.disagreement(linear(), images(9), 5, generator()).abs().max() < 1e-12


def test_ceal_asks_for_the_unsure_and_labels_the_sure_itself() -> None:
    model, pool, known = linear(), images(50), images(6, 1)
    model[1].weight.data.mul_(8)
    log_p = active._log_probabilities(model, pool)
    entropy = active._entropy(log_p)
    asked = active.ceal(model, known, pool, 5, generator(), threshold=0.3, decay=0.1)
    assert asked.indices.tolist() == ranked(entropy)[:5]
    # One batch of 5 is known: the threshold has come down once.
    expected = (entropy < 0.2).nonzero()[:, 0]
    assert 0 < len(expected) < 45
    assert asked.sure is not None and asked.guesses is not None
    assert asked.sure.tolist() == expected.tolist()
    assert asked.guesses.tolist() == log_p[expected].argmax(dim=1).tolist()
    late = active.ceal(model, images(40, 1), pool, 5, generator(), threshold=0.3, decay=0.1)
    assert late.sure is not None and len(late.sure) == 0
    # Never both asked for and guessed, even when it is sure of everything.
    every = active.ceal(model, known, pool, 50, generator(), threshold=9.0)
    assert every.sure is not None and len(every.sure) == 0


def test_core_set_is_the_greedy_k_center() -> None:
    model, known, pool = net(3), images(4, 1), images(25)
    with torch.no_grad():
        centres = list(model.eval().features(known))
        points = list(model.features(pool))
    expected = []
    for _ in range(6):
        far = [min(float((p - c).norm()) for c in centres) for p in points]
        expected.append(max(range(25), key=far.__getitem__))
        centres.append(points[expected[-1]])
    assert active.core_set(model, known, pool, 6, generator()).indices.tolist() == expected


def test_core_set_covers_twice_as_well_as_the_best_at_worst() -> None:
    # The greedy choice is within a factor of 2 of the smallest radius that k centres can reach.
    from itertools import combinations

    model, known, pool = net(5), images(1, 1), images(9)
    with torch.no_grad():
        points = model.eval().features(torch.cat([known, pool]))
    distance = torch.cdist(points, points)

    def radius(chosen: tuple[int, ...]) -> float:
        return float(distance[:, [0, *(i + 1 for i in chosen)]].amin(dim=1).max())

    best = min(radius(chosen) for chosen in combinations(range(9), 3))
    greedy = tuple(active.core_set(model, known, pool, 3, generator()).indices.tolist())
    assert best <= radius(greedy) <= 2 * best + 1e-6


def test_core_set_never_asks_twice_for_images_that_coincide() -> None:
    same = images(1).expand(6, -1, -1, -1)
    asked = active.core_set(net(), same[:1], same, 6, generator())
    assert sorted(asked.indices.tolist()) == list(range(6))


def test_egl_of_softmax_regression_has_a_closed_form() -> None:
    model, x = linear(2, classes=4), images(12)
    with torch.no_grad():
        p = model(x).softmax(dim=1)
    # The gradient for label y is (p - e_y) times (x, 1), and its length a product.
    size = (x.flatten(1).square().sum(dim=1) + 1).sqrt()
    pull = (p[:, None, :] - torch.eye(4)).norm(dim=2)
    expected = (p * pull).sum(dim=1) * size
    assert torch.allclose(active.expected_gradient_length(model, x), expected, rtol=1e-5)


def test_egl_of_a_network_is_what_its_definition_gives() -> None:
    model, x = net(1), images(7)
    found = active.expected_gradient_length(model, x, chunk=3)
    model.eval()
    for image, length in zip(x, found, strict=True):
        p = model(image[None]).softmax(dim=1)[0].detach()
        total = 0.0
        for label in range(3):
            model.zero_grad()
            nn.functional.cross_entropy(model(image[None]), torch.tensor([label])).backward()
            square = sum(
                float(w.grad.square().sum()) for w in model.parameters() if w.grad is not None
            )
            total += float(p[label]) * square**0.5
        assert float(length) == pytest.approx(total, rel=1e-4)
    model.zero_grad()
    chosen = active.egl(model, images(2, 1), x, 3, generator()).indices
    assert chosen.tolist() == ranked(found)[:3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dfal_on_a_linear_model_asks_in_the_order_of_the_margin(dtype: torch.dtype) -> None:
    model, pool = linear().to(dtype), images(60).to(dtype)
    w, logits = model[1].weight.detach(), model(pool).detach()
    answer = logits.argmax(dim=1)
    gaps = logits.gather(1, answer[:, None]) - logits
    slopes = (w[answer][:, None] - w).norm(dim=2)
    margin = (gaps / slopes).scatter(1, answer[:, None], torch.inf).amin(dim=1)
    expected = margin.argsort().tolist()[:9]
    for query in (active.dfal, active.dfal_0):
        asked = query(model, images(2, 1).to(dtype), pool, 9, generator())
        assert asked.indices.tolist() == expected
    twins = active.dfal(model, images(2, 1).to(dtype), pool, 9, generator()).twins
    assert twins is not None and twins.dtype == dtype
    # A twin is its own image, carried just over the nearest boundary.
    assert torch.allclose(
        (twins - pool[expected]).flatten(1).norm(dim=1),
        1.02 * margin[expected],
        rtol=2e-3,
        atol=1e-5,
    )
    assert bool((model(twins).argmax(dim=1) != answer[expected]).all())
    assert active.dfal_0(model, images(2, 1).to(dtype), pool, 9, generator()).twins is None


def test_dfal_leaves_the_unreachable_to_the_end() -> None:
    class Half(nn.Module):
        """Certain of class 0, without any slope, where the first pixel is above a half."""

        def forward(self, x: Tensor) -> Tensor:
            first = x.flatten(1)[:, :1]
            slope = (first <= 0.5).to(x.dtype)
            return torch.cat([slope * first + 5 * (1 - slope), 0 * first + 0.49], dim=1)

    pool = images(30)
    flat = pool.flatten(1)[:, 0] > 0.5
    asked = active.dfal_0(Half(), images(2, 1), pool, 30, generator()).indices
    assert 0 < int(flat.sum()) < 30
    assert set(asked[-int(flat.sum()) :].tolist()) == set(flat.nonzero()[:, 0].tolist())


@each_query
@pytest.mark.parametrize("training", [True, False])
def test_a_query_leaves_the_model_and_torchs_dice_alone(query: Any, training: bool) -> None:
    model = net().train(training)
    model.body[3].eval()
    before = [p.clone() for p in model.parameters()]
    dice = torch.get_rng_state()
    asked = query(model, images(6, 1), images(30), 4, generator())
    assert asked.indices.shape == (4,) and len(asked.indices.unique()) == 4
    assert not asked.indices.requires_grad
    assert model.training is training and model.body[3].training is False
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(dice, torch.get_rng_state())
    again = query(model, images(6, 1), images(30), 4, generator())
    assert torch.equal(asked.indices, again.indices)


@each_query
def test_a_query_refuses_what_does_not_fit(query: Any) -> None:
    model, known, pool = net(), images(3, 1), images(10)
    broken = pool.clone()
    broken[3, 0, 0, 0] = torch.nan
    for wrong, message in [
        ((known, pool, 0), "k: expected 1 to 10"),
        ((known, pool, 11), "k: expected 1 to 10.*got 11"),
        ((known, broken, 2), "pool: expected finite"),
        ((known, pool[:0], 1), "pool: expected a float tensor"),
        ((known, pool.long(), 1), "pool: expected a float tensor"),
        ((known[:0], pool, 1), "labelled: expected a float tensor"),
        ((known[..., :3], pool, 1), "labelled, pool: expected images of one shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            query(model, *wrong, generator())


@pytest.mark.parametrize(
    ("query", "more", "message"),
    [
        (active.bald, {"draws": 0}, "draws: expected at least 1, got 0"),
        (active.ceal, {"threshold": -0.1}, "threshold, decay: expected at least 0"),
        (active.ceal, {"decay": float("nan")}, "threshold, decay: expected at least 0"),
        (active.dfal, {"max_steps": 0}, "max_steps: expected at least 1"),
    ],
)
def test_settings_out_of_range_are_named(query: Any, more: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        query(net(), images(3, 1), images(10), 2, generator(), **more)


def test_core_set_needs_features() -> None:
    with pytest.raises(ValueError, match="model: expected one with a method features"):
        active.core_set(linear(), images(3, 1), images(10), 2, generator())


# The loop


class Oracle:
    """Answers, and remembers what it was asked."""

    def __init__(self, y: Tensor) -> None:
        self.y, self.asked = y, list[int]()

    def __call__(self, places: Tensor) -> Tensor:
        self.asked += places.tolist()
        return self.y[places]


X = torch.cat([images(40, seed) + 0.1 * seed for seed in range(3)])
Y = torch.arange(3).repeat_interleave(40)
SMALL: dict[str, Any] = {
    "batch": 4,
    "budget": 17,
    "initial": 3,
    "candidates": 20,
    "train": partial(active.train_briefly, steps=3, batch_size=8),
}


def play(query: Any, seed: int = 0, **more: Any) -> list[active.Round]:
    settings = {**SMALL, "generator": generator(seed), "ask": lambda i: Y[i], **more}
    ask = settings.pop("ask")
    return list(active_learning(Net, X, ask, query=query, **settings))


@each_query
def test_a_label_is_read_once_and_only_when_it_is_asked(query: Any) -> None:
    oracle = Oracle(Y)
    for done in active_learning(Net, X, oracle, query=query, generator=generator(), **SMALL):
        assert done.known.tolist() == oracle.asked  # nothing asked beyond what is known
        assert done.y.tolist() == Y[done.known].tolist()
    assert len(oracle.asked) == len(set(oracle.asked)) == 17


@each_query
def test_the_labels_of_the_pool_have_no_influence_before_they_are_asked(query: Any) -> None:
    # Change every label that was not asked for: nothing that follows may differ.
    rounds = play(query)
    other = (Y + 1) % 3
    other[rounds[-1].known] = Y[rounds[-1].known]
    again = play(query, ask=lambda i: other[i])
    assert torch.equal(rounds[-1].known, again[-1].known)
    for a, b in zip(rounds[-1].model.parameters(), again[-1].model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_batches_fill_the_budget_and_candidates_bound_the_query() -> None:
    seen: list[tuple[int, int, int]] = []

    def query(model: nn.Module, labelled: Tensor, pool: Tensor, k: int, rng: Any) -> Asked:
        seen.append((len(labelled), len(pool), k))
        return Asked(torch.arange(k))

    rounds = play(query)
    assert [len(done.known) for done in rounds] == [3, 7, 11, 15, 17]
    assert seen == [(3, 20, 4), (7, 20, 4), (11, 20, 4), (15, 20, 2)]
    for before, after in pairwise(rounds):
        assert after.known[: len(before.known)].tolist() == before.known.tolist()
    seen.clear()
    everything = play(query, budget=120, batch=60, candidates=500)
    assert sorted(everything[-1].known.tolist()) == list(range(120))
    assert seen == [(3, 117, 60), (63, 57, 57)]


def test_all_queries_begin_with_the_same_images() -> None:
    first = {tuple(play(query)[0].known.tolist()) for query in active.QUERIES.values()}
    assert len(first) == 1
    assert tuple(play(active.random, seed=1)[0].known.tolist()) not in first


def recorded(query: Any, **more: Any) -> list[tuple[Tensor, Tensor]]:
    """Return what each training was given."""
    given = []

    def train(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> None:
        given.append((x.clone(), y.clone()))
        active.train_briefly(model, x, y, seed, steps=3, batch_size=8)

    play(query, train=train, **more)
    return given


def test_dfal_trains_on_each_asked_image_and_on_its_twin_with_one_label() -> None:
    rounds, given = play(active.dfal), recorded(active.dfal)
    assert [len(x) for x, _ in given] == [3, 7 + 4, 11 + 8, 15 + 12, 17 + 14]
    x, y = given[-1]
    known = rounds[-1].known
    assert torch.equal(x[:17], X[known]) and torch.equal(y[:17], Y[known])
    assert torch.equal(y[17:], Y[known[3:]])
    assert torch.equal(x[17:], rounds[-1].twins)
    moved = (x[17:] - X[known[3:]]).flatten(1).norm(dim=1)
    others = (x[17:, None] - X[known[3:]][None]).flatten(2).norm(dim=2)
    assert bool((moved > 0).all())
    # The k-th twin is the k-th image's: nothing that was asked lies nearer.
    assert torch.equal(others.argmin(dim=1), torch.arange(14))
    assert [len(x) for x, _ in recorded(active.dfal_0)] == [3, 7, 11, 15, 17]


def test_a_guess_of_ceal_is_used_once_and_then_forgotten() -> None:
    calls = 0

    def query(model: nn.Module, labelled: Tensor, pool: Tensor, k: int, rng: Any) -> Asked:
        nonlocal calls
        calls += 1
        guesses = torch.tensor([2, 1])
        extra = {"sure": torch.tensor([9, 8]), "guesses": guesses} if calls == 2 else {}
        return Asked(torch.arange(k), **extra)

    given = recorded(query)
    assert [len(x) for x, _ in given] == [3, 7, 11 + 2, 15, 17]
    assert given[2][1][-2:].tolist() == [2, 1]


@each_query
@pytest.mark.parametrize("cut", [1, 3])
def test_a_run_goes_on_from_a_state_bit_for_bit(query: Any, cut: int, tmp_path: Any) -> None:
    whole = play(query)
    settings = {**SMALL, "generator": generator()}
    for i, done in enumerate(active_learning(Net, X, lambda p: Y[p], query=query, **settings), 1):
        if i == cut:
            torch.save(done.state, tmp_path / "state")
            break
    state = torch.load(tmp_path / "state", weights_only=True)
    rest = play(query, seed=99, state=state)  # the state's dice, not these
    assert len(rest) == len(whole) - cut
    for a, b in zip(whole[cut:], rest, strict=True):
        assert torch.equal(a.known, b.known) and torch.equal(a.twins, b.twins)
    for p, q in zip(whole[-1].model.parameters(), rest[-1].model.parameters(), strict=True):
        assert torch.equal(p, q)
    assert play(query, state=whole[-1].state) == []


def test_warm_goes_on_from_the_last_weights_and_cold_begins_anew() -> None:
    still = {"train": lambda *_: None}
    warm, cold = play(active.random, **still), play(active.random, warm=False, **still)
    weights = [done.model.head.weight for done in warm]
    assert all(torch.equal(weights[0], w) for w in weights)
    fresh = {tuple(done.model.head.weight.flatten().tolist()) for done in cold}
    assert len(fresh) == len(cold)


def test_the_loop_disturbs_no_dice_but_its_own() -> None:
    dice = torch.get_rng_state()
    play(active.bald)
    assert torch.equal(dice, torch.get_rng_state())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"initial": 0}, "initial, budget: expected 1 <= initial <= budget <= 120"),
        ({"initial": 18}, "initial, budget: .*got 18 and 17"),
        ({"budget": 121}, "initial, budget: .*got 3 and 121"),
        ({"batch": 0}, "batch, candidates: .*got 0 and 20"),
        ({"candidates": 3}, "batch, candidates: .*got 4 and 3"),
        (
            {"ask": lambda i: Y[i].float()},
            "ask: expected int64 labels of shape .3,., got torch.float",
        ),
        ({"ask": lambda i: Y[i][:1]}, "ask: expected int64 labels of shape .3,., got .*1"),
        ({"ask": lambda i: [0, 1, 2]}, "ask: expected int64 labels .* got list"),
    ],
)
def test_the_loop_refuses_what_does_not_fit(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        play(active.random, **more)


@pytest.mark.parametrize(
    "answer",
    [
        lambda k, n: Asked(torch.zeros(k, dtype=torch.int64)),
        lambda k, n: Asked(torch.arange(k + 1)),
        lambda k, n: Asked(torch.arange(k) + n - 1),
        lambda k, n: Asked(torch.arange(k) - 1),
        lambda k, n: Asked(torch.arange(k).float()),
        lambda k, n: Asked(torch.arange(k), twins=torch.zeros(k - 1, 1, 4, 4)),
        lambda k, n: Asked(torch.arange(k), sure=torch.tensor([0]), guesses=None),
        lambda k, n: Asked(torch.arange(k), sure=torch.tensor([5]), guesses=torch.tensor([0, 1])),
    ],
    ids=["twice", "too many", "beyond", "negative", "float", "twins", "no guess", "guesses"],
)
def test_a_query_that_answers_nonsense_is_caught(answer: Callable[[int, int], Asked]) -> None:
    with pytest.raises(ValueError, match="query: expected"):
        play(lambda model, labelled, pool, k, rng: answer(k, len(pool)))


def test_the_pool_is_checked() -> None:
    x = X.clone()
    x[5, 0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="x: expected finite values"):
        active_learning(Net, x, lambda i: Y[i], query=active.random, generator=generator())
