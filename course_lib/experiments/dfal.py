"""MNIST from 1,000 labels: which images to ask for, seven queries and chance, and who can use the answer.

All 60,000 training images are the pool, all 10,000 test images the test. Every run begins with 10 labels
drawn at random and asks for 10 more, 99 times. The batch of 10, the networks' names, the 300 candidates
and DeepFool's 10 steps are those of Ducoffe & Precioso (2018) and of the program that they published.
Ours, so that a CPU can do it: VGG8 is slim (16, 32 and 64 channels for 64 and more), it is trained on from
its last weights after each batch, and once, where the program trains five new networks for up to 100
epochs each and keeps the best; and every query chooses among the same number of candidates, where the
program lets entropy see the whole pool and BALD 100 images. The settings below were chosen on 5,000
images of the training set that were held out for it, with random queries.

The cells stand in the order of what is most wanted, and ``course bench dfal`` measures them in this
order: stop it when you have enough.

Chapter: book/deceive/active.md
"""

from __future__ import annotations

import base64
import io
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib import checkpoints, data, device
from course_lib.attacks import active
from course_lib.attacks.networks import VGG8, LeNet5
from course_lib.classifiers import accuracy

SEEDS = 3
BATCH, BUDGET, CANDIDATES = 10, 1_000, 300
#: Batches of 32 images after each ten labels; for a network that is trained afresh, on the images and
#: then on images and twins; and on all 60,000.
STEPS, STEPS_AFRESH, STEPS_ALL = 60, 700, 4_000
RATE = 2e-3
MEASURED = tuple(range(50, BUDGET + 1, 50))
NETWORKS: dict[str, Callable[[], nn.Module]] = {"VGG8": partial(VGG8, 16, 0.25), "LeNet5": LeNet5}
OTHER = {"VGG8": "LeNet5", "LeNet5": "VGG8"}
#: All labels: what a query's network could reach.
ALL = "all"


def cells() -> list[dict[str, str | int]]:
    """Return the runs, the most wanted first."""

    def runs(network: str, *methods: str, seeds: range) -> Iterator[dict[str, str | int]]:
        for seed, method in product(seeds, methods):
            yield {"network": network, "method": method, "seed": seed}

    first, more = range(1), range(1, SEEDS)
    few, rest = ("dfal", "random", "core_set"), ("bald", "ceal", "egl")
    return [
        *runs("VGG8", "dfal", "random", "uncertainty", "core_set", "dfal_0", seeds=first),
        *runs("LeNet5", *few, seeds=first),
        *runs("VGG8", ALL, *rest, seeds=first),
        *runs("VGG8", "dfal", "random", "core_set", "uncertainty", "dfal_0", seeds=more),
        *runs("LeNet5", *few, seeds=more),
        *runs("VGG8", *rest, ALL, seeds=more),
    ]


def measure(*, network: str, method: str, seed: int, keep: Path) -> dict[str, float | str]:
    """Run one query up to 1,000 labels; return the share of test images read right on the way.

    ``accuracy at N``: after the training with N labels, N = 50, 100, ...; ``afresh`` and ``transfer``:
    of a new network, of the same kind and of the other, trained on what was collected, twins
    included; ``queries``: the places of the labelled images in the training set, for ``queries``;
    ``query seconds``: CPU time spent in choosing. With the method ``all``: ``accuracy``, trained on all
    60,000.
    """
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, test = (data.mnist(split, full=True) for split in ("train", "test"))
    x, test_x = (_last(images.x).to(where) for images in (train, test))
    y, test_y = train.y.to(where), test.y.to(where)
    began = time.process_time()

    def score(model: nn.Module) -> float:
        return accuracy(model, test_x, test_y, batch_size=200)

    def afresh(kind: str, steps: int, *sets: tuple[Tensor, Tensor]) -> float:
        with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
            torch.manual_seed(seed)
            model = make(kind, where)
            for images, labels in sets:
                active.train_briefly(model, images, labels, seed, steps=steps, lr=RATE)
        return score(model)

    if method == ALL:
        return {"accuracy": afresh(network, STEPS_ALL, (x, y)), "machine": _machine(where)}

    seconds = {"all": 0.0, "query": 0.0}
    result: dict[str, float | str] = {}
    state: Mapping[str, Any] | None = None
    if keep.is_file():
        before = torch.load(keep, map_location="cpu", weights_only=True)
        state, seconds, result = before["state"], before["seconds"], before["result"]
        began -= seconds["all"]

    def query(*given: Any) -> active.Asked:
        start = time.process_time()
        asked = active.QUERIES[method](*given)
        seconds["query"] += time.process_time() - start
        return asked

    known, twins = (state["known"], state["twins"]) if state else (x[:0], x[:0])
    for done in active.active_learning(
        lambda: make(network, where),
        x,
        lambda places: y[places],
        query=query,
        generator=device.generator(seed),
        batch=BATCH,
        budget=BUDGET,
        initial=BATCH,
        candidates=CANDIDATES,
        train=partial(active.train_briefly, steps=STEPS, lr=RATE),
        state=state,
    ):
        known, twins = done.known, done.twins
        if len(known) in MEASURED:
            result[f"accuracy at {len(known)}"] = score(done.model)
            seconds["all"] = time.process_time() - began
            _save(keep, {"state": done.state, "seconds": seconds, "result": result})
    known, twins = known.to(where), twins.to(where)
    # The images first: a new VGG8 that meets a thousand twins at once learns nothing from either.
    asked = x[known], y[known]
    same = y[known[len(known) - len(twins) :]]
    sets = asked, (_last(torch.cat([asked[0], twins])), torch.cat([asked[1], same]))
    return {
        **result,
        "afresh": afresh(network, STEPS_AFRESH, *sets),
        "transfer": afresh(OTHER[network], STEPS_AFRESH, *sets),
        "queries": base64.b64encode(known.cpu().numpy().astype("<u2").tobytes()).decode(),
        "query seconds": round(seconds["query"], 2),
        "cpu_seconds": time.process_time() - began,
        "machine": _machine(where),
    }


def queries(row: Mapping[str, Any]) -> Tensor:
    """Return the places of a row's labelled images in MNIST's training set, in order: int64 (1000,)."""
    places = np.frombuffer(base64.b64decode(row["queries"]), dtype="<u2")
    return torch.from_numpy(places.astype(np.int64))


def make(network: str, where: torch.device) -> nn.Module:
    """Return a new network, laid out in memory as a CPU's convolutions like it: a third faster."""
    return NETWORKS[network]().to(memory_format=torch.channels_last).to(where)


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _machine(where: torch.device) -> str:
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    return f"{platform.machine()} CPU, 1 thread"


def _save(path: Path, state: dict[str, Any]) -> None:
    file = io.BytesIO()
    torch.save(state, file)
    checkpoints.write(path.parent, {path.name: file.getvalue()})
