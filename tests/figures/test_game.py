"""The game in a page is torch's game, step by step; its displays are the closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from playwright.sync_api import Page
from torch import Tensor, nn

from course_lib import metrics
from course_lib.figures import CannotRunError, Figure, GameSettings, gan_game
from course_lib.gans import game, networks, objectives, training

LOSSES = {"non-saturating": objectives.non_saturating, "minimax": objectives.minimax}
RING = game.ring_centres(8, radius=2.0)
PATIENT = GameSettings(k=3, g_rate=2e-3, d_rate=4e-3)
HASTY = GameSettings(k=1, g_rate=8e-3, d_rate=1e-3)


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    """Networks this small run faster on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def play(G: nn.Module, D: nn.Module, now: GameSettings) -> Iterator[training.Step]:
    """What a chapter writes: the course's own loop, one round at a time."""
    noise, real = seeded(2 * now.seed), seeded(2 * now.seed + 1)
    assert isinstance(G, nn.Sequential) and isinstance(G[0], nn.Linear)
    inputs = G[0].in_features
    outputs = list(G.parameters())[-1].numel()
    centres = RING if outputs == 2 else torch.tensor([[-1.5], [1.5]])
    g_optimizer = torch.optim.Adam(G.parameters(), lr=now.g_rate, betas=(0.5, 0.9))
    d_optimizer = torch.optim.Adam(D.parameters(), lr=now.d_rate, betas=(0.5, 0.9))
    while True:
        g_optimizer.param_groups[0]["lr"] = now.g_rate
        d_optimizer.param_groups[0]["lr"] = now.d_rate
        yield next(
            training.train_gan(
                G,
                D,
                iter(lambda: game.around(centres, 128, 0.15, real), None),
                lambda n: torch.randn(n, inputs, generator=noise),
                objective=LOSSES[now.loss],
                g_optimizer=g_optimizer,
                d_optimizer=d_optimizer,
                k=now.k,
            )
        )


def ring(*, width: int = 64, shrink: float = 1.0, **changes: Any) -> Figure:
    G = networks.mlp(2, 2, width=width, generator=seeded(0))
    with torch.no_grad():
        list(G.parameters())[-2].mul_(shrink)
    arguments: dict[str, Any] = {
        "G": G,
        "D": networks.mlp(2, 1, width=width, generator=seeded(100)),
        "centres": RING,
        "spreads": 0.15,
        "settings": {"patient": PATIENT, "hasty": HASTY},
        "title": "Eight modes",
        "alt": "Eight blue clusters on a ring, and a cloud of orange forgeries.",
        "batch": 64,
    }
    return gan_game(play, **{**arguments, **changes})


def line(**changes: Any) -> Figure:
    arguments: dict[str, Any] = {
        "G": networks.mlp(1, 1, width=16, generator=seeded(0)),
        "D": networks.mlp(1, 1, width=16, generator=seeded(1)),
        "centres": torch.tensor([[-1.5], [1.5]]),
        "spreads": torch.tensor([0.5, 0.7]),
        "weights": torch.tensor([0.4, 0.6]),
        "settings": {"k = 5": GameSettings(k=5, d_rate=5e-3)},
        "title": "A game on a line",
        "alt": "Two bumps of data and one of forgeries; below, D and the best D.",
        "batch": 64,
    }
    return gan_game(play, **{**arguments, **changes})


def sent(module: nn.Module, inputs: int) -> list[Any]:
    """A network as a page gets it, but in full precision."""
    nodes: list[dict[str, Any]] = []
    arrays: dict[str, list[float]] = {}
    shapes = [[inputs]]
    assert isinstance(module, nn.Sequential)
    for layer in module:
        if isinstance(layer, nn.Linear):
            name = str(len(nodes))
            arrays |= {
                f"{name}.w": layer.weight.flatten().tolist(),
                f"{name}.b": layer.bias.tolist(),
            }
            shapes.append([layer.out_features])
            own: dict[str, Any] = {"arrays": {"w": f"{name}.w", "b": f"{name}.b"}, "op": "dense"}
        else:
            assert isinstance(layer, nn.LeakyReLU)
            shapes.append(shapes[-1])
            own = {"op": "leakyrelu", "slope": layer.negative_slope}
        nodes.append({**own, "from": [len(nodes)], "shape": shapes[-1]})
    return [{"input": [inputs], "nodes": nodes, "outputs": [len(nodes)]}, arrays]


def of(figure: Figure) -> list[Any]:
    """A figure's spec, networks and data, for a bare page."""
    written = {name: program() for name, program in figure.programs.items()}
    nets = {
        name: [program.spec, {key: array.ravel().tolist() for key, array in program.arrays.items()}]
        for name, program in written.items()
    }
    return [figure.spec, nets, figure.data["z"].ravel().tolist()]


MAKE = """const make = ([program, arrays]) => new course.Network(program,
  Object.fromEntries(Object.entries(arrays).map(([key, values]) => [key, Float64Array.from(values)])));
const f64 = (values) => Float64Array.from(values);
const open = ([spec, nets, z]) => course.ganGame.page({ spec, arrays: { z: Float32Array.from(z) },
  networks: Object.fromEntries(Object.entries(nets).map(([name, net]) => [name, make(net)])) });
"""

STEPS = f"""([G, D, batch, rounds, rates, kind]) => {{ {MAKE}
  const [g, d] = [G, D].map((net) => new course.MLP(make(net), 2 * batch));
  const duel = new course.Duel(g, d, batch);
  return rounds.map(({{ reals, noises, last }}) => {{
    const ds = reals.map((real, i) => duel.judgeStep(f64(real), f64(noises[i]), rates[1]));
    const loss = duel.forgeStep(f64(last), rates[0], kind);
    const arrays = [g.theta, d.theta, g.gradient, d.gradient].map((a) => Array.from(a));
    return [ds.reduce((a, b) => a + b) / ds.length, loss, ...arrays];
  }});
}}"""

PLAYED = f"""([figure, name, seed, counts]) => {{ {MAKE}
  const page = open(figure);
  const settings = figure[0].settings[name];
  const first = page.reset({{ seed, settings }});
  const rest = counts.map((n) => page.advance({{ rounds: n, settings, budget: Infinity, see: true }}));
  return [first, ...rest]
    .map((x) => ({{ ...x, samples: Array.from(x.samples), judge: Array.from(x.judge) }}));
}}"""


def flat(tensors: Iterator[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def close(ours: list[float], theirs: Tensor, tolerance: float) -> bool:
    found = torch.tensor(ours, dtype=torch.float64)
    return float((found - theirs).abs().max()) <= tolerance * float(theirs.abs().max())


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("kind", LOSSES)
def test_twenty_rounds_are_train_gans(page: Page, d: int, kind: str) -> None:
    """The same weights and batches: the same losses and weights, round after round."""
    noise_size, batch, k, rates = 3 - d, 12, 2, (2e-3, 5e-3)
    G = networks.mlp(noise_size, d, width=7, depth=2, generator=seeded(1)).double()
    D = networks.mlp(d, 1, width=9, depth=3, generator=seeded(2)).double()
    start = [sent(G, noise_size), sent(D, d)]
    draw = seeded(3)
    reals = [torch.randn(batch, d, generator=draw).double() + 1 for _ in range(20 * k)]
    noises = [torch.randn(batch, noise_size, generator=draw).double() for _ in range(20 * (k + 1))]
    rounds = []
    for i in range(20):
        own = [z.flatten().tolist() for z in noises[i * (k + 1) : (i + 1) * (k + 1)]]
        real = [x.flatten().tolist() for x in reals[i * k : (i + 1) * k]]
        rounds.append({"reals": real, "noises": own[:k], "last": own[k]})
    found = page.evaluate(STEPS, [*start, batch, rounds, rates, kind])
    upcoming = iter(noises)
    steps = training.train_gan(
        G,
        D,
        reals,
        lambda n: next(upcoming),
        objective=LOSSES[kind],
        g_optimizer=torch.optim.Adam(G.parameters(), lr=rates[0], betas=(0.5, 0.9)),
        d_optimizer=torch.optim.Adam(D.parameters(), lr=rates[1], betas=(0.5, 0.9)),
        k=k,
    )
    for ours, step in zip(found, steps, strict=True):
        assert math.isclose(ours[0], step.d_loss, rel_tol=1e-7)
        assert math.isclose(ours[1], step.g_loss, rel_tol=1e-7)
        assert close(ours[2], flat(G.parameters()), 1e-8)
        assert close(ours[3], flat(D.parameters()), 1e-8)


@pytest.mark.parametrize("sure", [-50.0, -5.0, 0.0, 5.0, 50.0, 800.0])
@pytest.mark.parametrize("kind", LOSSES)
def test_gradients_are_autograds_even_where_d_is_sure(page: Page, kind: str, sure: float) -> None:
    batch, d = 6, 2
    G = networks.mlp(2, d, width=5, generator=seeded(1)).double()
    D = networks.mlp(d, 1, width=6, generator=seeded(2)).double()
    with torch.no_grad():
        list(D.parameters())[-1].fill_(sure)
    real, z = torch.randn(2, batch, d, generator=seeded(3)).double()
    rounds = [
        {
            "reals": [real.flatten().tolist()],
            "noises": [z.flatten().tolist()],
            "last": z.flatten().tolist(),
        }
    ]
    # At rate 0 both gradients are those at the start.
    ((d_loss, g_loss, *_, g_slope, d_slope),) = page.evaluate(
        STEPS, [sent(G, 2), sent(D, d), batch, rounds, [0, 0], kind]
    )
    wanted = LOSSES[kind].discriminator_loss(D(real), D(G(z).detach()))
    assert math.isclose(d_loss, wanted.item(), rel_tol=1e-12)
    assert close(d_slope, flat(iter(torch.autograd.grad(wanted, list(D.parameters())))), 1e-10)
    wanted = LOSSES[kind].generator_loss(D(G(z)))
    assert math.isclose(g_loss, wanted.item(), rel_tol=1e-12)
    assert close(g_slope, flat(iter(torch.autograd.grad(wanted, list(G.parameters())))), 1e-10)


def test_adam_is_torchs(page: Page) -> None:
    """Forty steps whose gradients span sixteen orders of magnitude, while the rate changes."""
    layer = nn.Linear(3, 4).double()
    start = sent(nn.Sequential(layer), 3)
    scale = 10.0 ** torch.linspace(-12, 4, 40, dtype=torch.float64)
    slopes = torch.randn(40, 16, generator=seeded(0)).double() * scale[:, None]
    rates = [0.01 * (1 + i % 3) for i in range(40)]
    found = page.evaluate(
        f"""([net, slopes, rates]) => {{ {MAKE}
          const mlp = new course.MLP(make(net), 1);
          slopes.forEach((slope, i) => {{ mlp.gradient.set(slope); mlp.step(rates[i]); }});
          return Array.from(mlp.theta);
        }}""",
        [start, slopes.tolist(), rates],
    )
    optimizer = torch.optim.Adam(layer.parameters(), betas=(0.5, 0.9), eps=1e-8)
    for slope, rate in zip(slopes, rates, strict=True):
        layer.weight.grad, layer.bias.grad = slope[:12].reshape(4, 3).clone(), slope[12:].clone()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    assert close(found, flat(layer.parameters()), 1e-12)


BEST = """([samples, spec]) => {
  const { p, q, star } = course.bestJudge(Float64Array.from(samples), spec);
  return [p, q, star].map((a) => Array.from(a));
}"""


def normal(at: Tensor, mean: float, deviation: float) -> Tensor:
    density: Tensor = torch.distributions.Normal(mean, deviation).log_prob(at).exp()
    return density


def test_the_best_judge_on_a_line_is_the_closed_form(page: Page) -> None:
    spec = line(extent=4.2).spec
    u = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096
    samples = 0.4 + 0.8 * torch.special.ndtri(u)
    p, q, star = (torch.tensor(a) for a in page.evaluate(BEST, [samples.tolist(), spec]))
    at = torch.linspace(-4.2, 4.2, spec["fine"])
    p_true = 0.4 * normal(at, -1.5, 0.5) + 0.6 * normal(at, 1.5, 0.7)
    q_true = normal(at, 0.4, 0.8)
    some = p_true + q_true > 0.02
    assert float((star - game.optimal_discriminator(p_true, q_true))[some].abs().max()) < 0.03
    spacing = float(at[1] - at[0])
    assert abs(float(p.sum()) * spacing - 1) < 1e-3
    assert abs(float(q.sum()) * spacing - 1) < 1e-3


def test_the_best_judge_on_the_plane_is_the_closed_form(page: Page) -> None:
    """With q the data itself D* is one half; with q = N(0, 1) it is that formula."""
    spec = ring().spec
    at = torch.linspace(-spec["extent"], spec["extent"], spec["fine"])
    wide = math.hypot(0.15, spec["blur"])  # both densities are seen through the blur
    p_true = (
        sum(normal(at, float(y), wide)[:, None] * normal(at, float(x), wide) for x, y in RING) / 8
    )
    assert isinstance(p_true, Tensor)
    for samples, q_true in (
        (game.around(RING, 12_000, 0.15, seeded(0)), p_true),
        (
            torch.randn(12_000, 2, generator=seeded(1)),
            normal(at, 0, math.hypot(1, spec["blur"]))[:, None]
            * normal(at, 0, math.hypot(1, spec["blur"])),
        ),
    ):
        found = page.evaluate(BEST, [samples.flatten().tolist(), spec])
        p, _, star = (torch.tensor(a).reshape(len(at), len(at)) for a in found)
        assert float((p - p_true).abs().max()) < 0.05 * float(p_true.max())
        some = p_true + q_true > 0.15
        gap = (star - game.optimal_discriminator(p_true, q_true))[some].abs()
        assert float(gap.mean()) < 0.02
        assert float(gap.max()) < 0.12


@pytest.mark.parametrize("d", [1, 2])
def test_modes_kept_is_the_courses(page: Page, d: int) -> None:
    counts = set()
    for seed in range(12):
        g = seeded(seed)
        centres = 2 * torch.randn(1 + seed, d, generator=g)
        spread = 0.1 + 0.1 * seed
        points = torch.randn(300, d, generator=g) * (0.2 + seed / 4)
        found = page.evaluate(
            "([points, centres, spreads]) => course.modesKept(points, centres, spreads)",
            [points.flatten().tolist(), centres.tolist(), [spread] * len(centres)],
        )
        kept, near = metrics.modes_kept(points, centres, spread)
        assert sum(found["kept"]) == kept
        assert abs(found["near"] - near) < 1e-6
        counts.add(kept)
    assert len(counts) > 2


@pytest.mark.parametrize("make", [ring, line])
def test_page_and_kernel_begin_with_the_same_picture(
    page: Page, make: Callable[[], Figure]
) -> None:
    figure = make()
    name, settings = next(iter(figure.spec["settings"].items()))
    found = page.evaluate(PLAYED, [of(figure), name, 0, []])[0]
    answer = figure.answer("reset", id="a", seed=0, settings=settings)
    for key in ("samples", "judge"):
        value = answer[key]
        assert isinstance(value, Tensor)
        assert torch.allclose(torch.tensor(found[key]), value.flatten(), atol=1e-5)
    assert isinstance(answer["pull"], float)
    assert math.isclose(found["pull"], answer["pull"], rel_tol=1e-4)


def test_patience_keeps_the_modes_and_haste_loses_them(page: Page) -> None:
    """In the page, and with the course's loop in the kernel."""
    figure = ring(batch=128)
    kept: dict[str, list[int]] = {"patient": [], "hasty": []}
    for name, rounds in (("patient", 200), ("hasty", 300)):
        for seed in range(3):
            found = page.evaluate(PLAYED, [of(figure), name, seed, [rounds]])[-1]
            points = torch.tensor(found["samples"]).reshape(-1, 2)
            kept[name].append(metrics.modes_kept(points, RING, 0.15)[0])
    assert min(kept["patient"]) >= 6
    assert max(kept["hasty"]) <= 5
    for name in kept:
        settings = figure.spec["settings"][name]
        figure.answer("reset", id="a", seed=0, settings=settings)
        samples = figure.answer("advance", id="a", rounds=120, settings=settings)["samples"]
        assert isinstance(samples, Tensor)
        found = metrics.modes_kept(samples, RING, 0.15)[0]
        assert found >= 6 if name == "patient" else found <= 5


def test_the_minimax_loss_does_not_pull_when_d_is_far_ahead(page: Page) -> None:
    ahead = {"k": 3, "d_rate": 2e-2, "head_start": 60}
    figure = ring(
        width=32,
        shrink=0.1,
        settings={loss: GameSettings(**ahead, loss=loss) for loss in LOSSES},  # type: ignore[arg-type]
    )
    moved, pull = {}, {}
    for loss in LOSSES:
        first, before, after = page.evaluate(PLAYED, [of(figure), loss, 0, [60, 15]])
        assert before["samples"] == first["samples"]  # D alone moves in its head start
        moved[loss] = float(
            (torch.tensor(after["samples"]) - torch.tensor(first["samples"])).abs().mean()
        )
        pull[loss] = before["pull"]
    assert pull["minimax"] < 1e-5 and pull["non-saturating"] > 0.999
    assert moved["minimax"] < 0.01
    assert moved["non-saturating"] > 0.5


def test_the_kernel_plays_with_what_it_was_given() -> None:
    """Copies for every view, settings that change while it plays, a head start, and its losses."""
    seen: list[tuple[int, float, str, int]] = []

    def counting(G: nn.Module, D: nn.Module, now: GameSettings) -> Iterator[Any]:
        while True:
            seen.append((now.k, now.g_rate, now.loss, now.seed))
            with torch.no_grad():
                list(G.parameters())[-1].add_(1.0)
            yield SimpleNamespace(d_loss=1.5, g_loss=-0.5)

    G, D = (networks.mlp(2, n, width=4, generator=seeded(n)) for n in (2, 1))
    start = flat(G.parameters()).clone()
    figure = gan_game(
        counting,
        G=G,
        D=D,
        centres=RING,
        spreads=0.15,
        settings={"only": GameSettings(head_start=1)},
        title="Counting",
        alt="Nothing is learned here, only counted.",
    )
    settings = figure.spec["settings"]["only"]
    first = figure.answer("reset", id="a", seed=7, settings=settings)["samples"]
    assert isinstance(first, Tensor)
    first = first.clone()
    figure.answer("reset", id="b", seed=8, settings=settings)
    answer = figure.answer("advance", id="a", rounds=2, settings=settings)
    assert (
        answer["round"] == 2 and answer["d_loss"] == [1.5, 1.5] and answer["g_loss"] == [-0.5, -0.5]
    )
    figure.answer("advance", id="a", rounds=1, settings={**settings, "k": 4, "loss": "minimax"})
    assert seen == [
        (1, 0.0, "non-saturating", 7),
        (1, 0.002, "non-saturating", 7),
        (4, 0.002, "minimax", 7),
    ]
    other = figure.answer("advance", id="b", rounds=0, settings=settings)["samples"]
    assert isinstance(other, Tensor) and torch.equal(other, first)
    assert torch.equal(flat(G.parameters()), start)
    with pytest.raises(ValueError, match="has ended"):
        figure.answer("advance", id="c", rounds=1, settings=settings)


@pytest.mark.parametrize(
    ("rounds", "message"),
    [([], "without end"), ([3.0], "float")],
)
def test_a_play_that_is_none_is_refused(rounds: list[Any], message: str) -> None:
    figure = line()
    settings = figure.spec["settings"]["k = 5"]
    broken = gan_game(
        lambda G, D, now: iter(rounds),
        G=nn.Linear(1, 1),
        D=nn.Linear(1, 1),
        centres=torch.zeros(1, 1),
        spreads=1.0,
        settings={"only": GameSettings()},
        title="Broken",
        alt="A figure whose rounds are none.",
    )
    broken.answer("reset", id="a", seed=0, settings=settings)
    with pytest.raises(ValueError, match=message):
        broken.answer("advance", id="a", rounds=1, settings=settings)


def test_a_loss_that_is_not_finite_is_said() -> None:
    figure = gan_game(
        lambda G, D, now: iter([SimpleNamespace(d_loss=math.nan, g_loss=0.0)]),
        G=nn.Linear(1, 1),
        D=nn.Linear(1, 1),
        centres=torch.zeros(1, 1),
        spreads=1.0,
        settings={"only": GameSettings()},
        title="Broken",
        alt="A figure whose loss is not a number.",
    )
    settings = figure.spec["settings"]["only"]
    figure.answer("reset", id="a", seed=0, settings=settings)
    answer = figure.answer("advance", id="a", rounds=1, settings=settings)
    assert answer == {"round": 1, "diverged": "a loss is no longer finite"}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "centres of three numbers": ({"centres": torch.zeros(2, 3)}, "centres"),
    "no centres": ({"centres": torch.zeros(0, 2)}, "centres"),
    "a spread of zero": ({"spreads": 0.0}, "spreads"),
    "weights that do not fit": ({"weights": torch.ones(3)}, "weights"),
    "a negative weight": ({"weights": -torch.ones(8)}, "weights"),
    "no settings": ({"settings": {}}, "settings"),
    "no batch": ({"batch": 0}, "batch"),
    "no extent": ({"extent": 0.0}, "extent"),
    "a generator on the line": ({"G": nn.Linear(2, 1)}, "G"),
    "a generator without layers": ({"G": nn.Identity()}, "G"),
    "a judge of two minds": ({"D": nn.Linear(2, 2)}, "D"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_input_is_named(case: str) -> None:
    changes, name = BAD[case]
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        ring(**changes)


@pytest.mark.parametrize(
    "wrong",
    [{"k": 0}, {"k": 9}, {"g_rate": 0.0}, {"d_rate": math.nan}, {"loss": "hinge"}, {"seed": -1}],
)
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GameSettings(**wrong)


@pytest.mark.parametrize(
    "G",
    [
        nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(2, 2, bias=False)),
        nn.Sequential(nn.Linear(2, 4), nn.LeakyReLU(), nn.LeakyReLU(), nn.Linear(4, 2)),
    ],
)
def test_a_network_that_a_page_cannot_train_is_refused_by_the_page_alone(G: nn.Module) -> None:
    figure = ring(G=G)
    settings = figure.spec["settings"]["patient"]
    assert "samples" in figure.answer("reset", id="a", seed=0, settings=settings)
    with pytest.raises(CannotRunError, match="G: a page trains"):
        figure.page()


STATE = "const state = document.querySelectorAll('course-figure')[n].state"


def press(page: Page, label: str, key: str = "Enter", nth: int = 0) -> None:
    page.get_by_role("button", name=label, exact=True).nth(nth).focus()
    page.keyboard.press(key)


def state(page: Page, expression: str, nth: int = 0) -> Any:
    return page.evaluate(
        f"(n) => {{ {STATE}; return {expression}; }}",
        nth,
    )


def wait(page: Page, condition: str, nth: int = 0) -> None:
    page.wait_for_function(
        f"(n) => {{ {STATE}; return {condition}; }}",
        arg=nth,
    )


def test_everything_by_keyboard(show: Callable[..., Page]) -> None:
    page = show(line(), ring(width=16), clock=True)
    first = state(page, "Array.from(state.samples)")
    for round in (1, 2, 3):
        press(page, "Step", "Space")
        wait(page, f"state.round === {round} && state.drawn > {round}")
    third = state(page, "Array.from(state.samples)")
    assert third != first
    press(page, "Reset")
    wait(page, "state.round === 0")
    assert state(page, "Array.from(state.samples)") == first
    press(page, "Play")
    page.clock.run_for(500)
    rounds = state(page, "state.round")
    assert rounds > 20
    assert page.get_by_role("button", name="Pause").count() == 1
    press(page, "Pause", "Space")
    page.clock.run_for(10_000)
    assert state(page, "state.round") == rounds
    assert not state(page, "state.playing")
    # The other figure has stood still all the while.
    assert state(page, "[state.round, state.drawn]", 1) == [0, 1]
    # The same seed is the same run.
    press(page, "Reset")
    wait(page, "state.round === 0")
    for round in (1, 2, 3):
        press(page, "Step")
        wait(page, f"state.round === {round}")
    page.clock.run_for(10_000)  # and no more of them come
    assert state(page, "Array.from(state.samples)") == third
    press(page, "New seed")
    wait(page, "state.round === 0")
    assert state(page, "Array.from(state.samples)") == first
    press(page, "Step")
    wait(page, "state.round === 1")
    assert state(page, "state.seed") == 1


def test_sliders_and_lists_change_the_running_game(show: Callable[..., Page]) -> None:
    page = show(ring(width=16))
    page.get_by_label("steps k").focus()
    page.keyboard.press("ArrowRight")
    assert state(page, "state.settings.k") == 4
    page.get_by_label("rate of G").focus()
    page.keyboard.press("End")
    assert math.isclose(state(page, "state.settings.g_rate"), 0.1)
    page.get_by_label("rate of D").focus()
    page.keyboard.press("Home")
    assert math.isclose(state(page, "state.settings.d_rate"), 1e-5)
    page.get_by_label("Loss of G").select_option("minimax")
    assert state(page, "state.settings.loss") == "minimax"
    assert page.get_by_label("Settings").input_value() == "(your own)"
    press(page, "Step")
    # E[log(1 - D)] is negative, -E[log D] is not.
    wait(page, "state.round === 1 && state.gLoss < 0")
    page.get_by_label("Settings").select_option("hasty")
    wait(page, "state.round === 0")
    assert state(page, "state.settings") == {
        "k": 1,
        "g_rate": 8e-3,
        "d_rate": 1e-3,
        "loss": "non-saturating",
        "head_start": 0,
    }
    assert page.get_by_label("rate of G").get_attribute("aria-valuetext") == "0.008"


def test_the_page_says_what_it_shows(show: Callable[..., Page]) -> None:
    page = show(ring(width=16), clock=True)
    press(page, "Step")
    wait(page, "state.round === 1")
    label = page.locator("canvas").first.get_attribute("aria-label")
    kept = state(page, "state.kept.filter(Boolean).length")
    assert label is not None and label.startswith(f"Round 1: {kept} of 8 modes kept")
    page.clock.run_for(1000)
    live = page.locator("[aria-live]").inner_text()
    assert live.startswith("Round 1.") and "modes kept" in live and "Loss of D" in live
    text = page.locator(".status").inner_text()
    assert f"{state(page, 'state.dLoss'):.2f}" in text and f"{kept} of 8" in text
    star = state(page, "Array.from(state.star)")
    assert len(star) == 64 * 64


def test_with_little_motion_it_is_drawn_twice_a_second(show: Callable[..., Page]) -> None:
    page = show(line(), motion="reduce", clock=True)
    page.clock.run_for(300)
    assert state(page, "[state.round, state.playing, state.drawn]") == [0, False, 1]
    press(page, "Play")
    page.clock.run_for(2000)
    rounds, drawn = state(page, "[state.round, state.drawn]")
    assert rounds > 20
    assert drawn == 1 + 4


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible_and_narrow(
    show: Callable[..., Page], violations: Callable[[Page], list[str]], theme: str
) -> None:
    page = show(ring(width=16), line(), width=390)
    page.evaluate(
        "theme => { document.documentElement.dataset.theme = theme;"
        " document.body.style = theme === 'dark' ? 'background: #121; color: #fff' : ''; }",
        theme,
    )
    for nth in (0, 1):
        press(page, "Step", nth=nth)
        wait(page, "state.round === 1", nth)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("make", [ring, line])
def test_the_picture_is_the_state_after_some_rounds(make: Callable[..., Figure]) -> None:
    picture, later = make().picture(), make(picture_rounds=5).picture()
    assert picture["width"] == 720 and picture["png"] != later["png"]
