"""What an attack costs: images per CPU second beside torchattacks, foolbox, cleverhans and ART.

All attack the same trained network (digit-net) on the same 1,000 test digits in one batch. "Bare passes"
are the forward and backward passes that the attack cannot do without, to the pixels, on that batch: one
for FGSM, one per step for BIM and PGD. Every repeat times each of them once, in an order drawn anew,
so that a busy machine slows all alike; printed are medians over the repeats, and the median of the ratio
to the bare passes of the same repeat. Time is this process's CPU time on one thread.

DeepFool is timed once on each, after the others: the share of images whose answer changed, and the median
Euclidean length of the change over those. Ours comes twice: with the paper's steps clipped to the box,
as the others do it, towards the 5 likeliest other classes (all of them make no shorter change), and
with direct steps, its default, towards all 9. The slow ones get fewer images (``--few``), the first ones in
the same order, on which ours is measured as well.

The other libraries are no dependency of this project. Those that are not installed are named and left out:
``pip install torchattacks foolbox cleverhans adversarial-robustness-toolbox`` beside this package.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import attacks, checkpoints, data
from course_lib.classifiers import DigitNet

EPS, ALPHA, STEPS = 0.1, 0.025, 10
#: DeepFool's settings, the same for all: at most so many steps, and the paper's overshoot.
MAX_STEPS, OVERSHOOT, CANDIDATES = 50, 0.02, 10

#: One call attacks the batch once.
Work = Callable[[], Any]
#: What one library makes of one attack: its name, and for each attack a function of (x, y).
Suite = dict[str, Callable[[Tensor, Tensor], Tensor]]


def ours(model: nn.Module) -> Suite:
    """Return this package's attacks."""
    return {
        "FGSM": lambda x, y: attacks.fgsm(model, x, y, EPS),
        "BIM": lambda x, y: attacks.bim(model, x, y, EPS, ALPHA, STEPS),
        "PGD": lambda x, y: attacks.pgd(model, x, y, EPS, ALPHA, STEPS),
        "DeepFool": lambda x, y: attacks.deepfool(
            model, x, y, overshoot=OVERSHOOT, max_steps=MAX_STEPS, candidates=5, direct=False
        ),
        "DeepFool, direct": lambda x, y: attacks.deepfool(
            model, x, y, overshoot=OVERSHOOT, max_steps=MAX_STEPS, candidates=CANDIDATES
        ),
    }


def of_torchattacks(model: nn.Module) -> Suite:
    """Return torchattacks' attacks, as its README calls them."""
    import torchattacks

    return {
        "FGSM": torchattacks.FGSM(model, eps=EPS),
        "BIM": torchattacks.BIM(model, eps=EPS, alpha=ALPHA, steps=STEPS),
        "PGD": torchattacks.PGD(model, eps=EPS, alpha=ALPHA, steps=STEPS, random_start=True),
        "DeepFool": torchattacks.DeepFool(model, steps=MAX_STEPS, overshoot=OVERSHOOT),
    }


def of_foolbox(model: nn.Module) -> Suite:
    """Return foolbox's attacks on its own tensors' model, without its test of success."""
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")

    def attack(found: Any, eps: float | None) -> Callable[[Tensor, Tensor], Tensor]:
        extra = {} if eps is None else {"epsilon": eps}
        return lambda x, y: found.run(wrapped, x, foolbox.criteria.Misclassification(y), **extra)

    within = {"abs_stepsize": ALPHA, "steps": STEPS}
    return {
        "FGSM": attack(foolbox.attacks.LinfFastGradientAttack(), EPS),
        "BIM": attack(foolbox.attacks.LinfBasicIterativeAttack(**within), EPS),
        "PGD": attack(foolbox.attacks.LinfPGD(**within), EPS),
        "DeepFool": attack(
            foolbox.attacks.L2DeepFoolAttack(
                steps=MAX_STEPS, candidates=CANDIDATES, overshoot=OVERSHOOT
            ),
            None,
        ),
    }


def of_cleverhans(model: nn.Module) -> Suite:
    """Return cleverhans' attacks for torch; it has no DeepFool there."""
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    box = {"clip_min": 0.0, "clip_max": 1.0}

    def steps(start: bool) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, y: projected_gradient_descent(
            model, x, EPS, ALPHA, STEPS, np.inf, y=y, rand_init=start, sanity_checks=False, **box
        )

    return {
        "FGSM": lambda x, y: fast_gradient_method(model, x, EPS, np.inf, y=y, **box),
        "BIM": steps(False),
        "PGD": steps(True),
    }


def of_art(model: nn.Module) -> Suite:
    """Return the attacks of the Adversarial Robustness Toolbox, in one batch of NumPy arrays."""
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )

    def attack(found: Any) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, y: torch.from_numpy(
            found.generate(x.numpy(), np.eye(10, dtype=np.float32)[y.numpy()])
        )

    size = {"batch_size": 1000}
    within = {"eps": EPS, "eps_step": ALPHA, "max_iter": STEPS, "verbose": False, **size}
    return {
        "FGSM": attack(evasion.FastGradientMethod(wrapped, eps=EPS, **size)),
        "BIM": attack(evasion.BasicIterativeMethod(wrapped, **within)),
        "PGD": attack(evasion.ProjectedGradientDescent(wrapped, num_random_init=1, **within)),
        "DeepFool": attack(
            evasion.DeepFool(
                wrapped,
                max_iter=MAX_STEPS,
                epsilon=OVERSHOOT,
                nb_grads=CANDIDATES,
                verbose=False,
                **size,
            )
        ),
    }


#: Library, its name in the registry, its suite.
PEERS = (
    ("torchattacks", "torchattacks", of_torchattacks),
    ("foolbox", "foolbox", of_foolbox),
    ("cleverhans", "cleverhans", of_cleverhans),
    ("ART", "adversarial-robustness-toolbox", of_art),
)
#: So slow with DeepFool that they get fewer images.
SLOW = ("torchattacks", "ART")


def bare(model: nn.Module, passes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return so many forward and backward passes of the batch, to the pixels, and nothing else."""

    def work(x: Tensor, y: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        for _ in range(passes):
            loss = F.cross_entropy(model(x), y, reduction="sum")
            (grad,) = torch.autograd.grad(loss, x)
        return grad

    return work


def cpu_seconds(work: Work) -> tuple[float, Any]:
    """Return the CPU seconds that one call takes, and what it returns."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--few", type=int, default=100)
    # Under ``python -m benchmarks`` the command line belongs to that module.
    options, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)

    def network() -> nn.Module:
        # One each: some leave gradients or another mode behind.
        return checkpoints.load("digit-net", DigitNet())

    test = data.mnist("test").take(options.images, seed=0)
    suites = {"course_lib": ours(network())}
    print(f"{platform.machine()} CPU, 1 thread, torch {torch.__version__}")
    for name, distribution, make in PEERS:
        try:
            suites[name] = make(network())
            print(f"{name} {importlib.metadata.version(distribution)}")
        except ImportError as error:
            print(f"{name}: not measured ({error}); pip install {distribution}")

    print(f"\n{options.images} images in one batch, median of {options.repeats} repeats")
    for attack, passes in (("FGSM", 1), ("BIM", STEPS), ("PGD", STEPS)):
        entries = {"bare passes": bare(network(), passes)}
        entries |= {name: suite[attack] for name, suite in suites.items() if attack in suite}
        seconds: dict[str, list[float]] = {name: [] for name in entries}
        for repeat in range(options.repeats + 1):
            for name in random.sample(list(entries), len(entries)):
                took, _ = cpu_seconds(partial(entries[name], test.x, test.y))
                if repeat > 0:  # the first one warms up
                    seconds[name].append(took)
        print(f"\n{attack}, eps {EPS}" + (f", {STEPS} steps of {ALPHA}" if passes > 1 else ""))
        print(f"{'':14}{'images per CPU s':>18}{'of bare passes':>16}")
        for name, took in sorted(seconds.items(), key=lambda item: statistics.median(item[1])):
            ratio = statistics.median(
                b / t for b, t in zip(seconds["bare passes"], took, strict=True)
            )
            print(f"{name:14}{options.images / statistics.median(took):18.0f}{ratio:16.2f}")

    print(f"\nDeepFool, at most {MAX_STEPS} steps, overshoot {OVERSHOOT}, {CANDIDATES} classes")
    print(f"{'':20}{'images':>8}{'per CPU s':>11}{'fooled':>9}{'median L2':>11}{'in [0, 1]':>11}")
    judge = network()
    with torch.no_grad():
        own = judge(test.x).argmax(dim=1)
    found = {
        name + kind.removeprefix("DeepFool"): (name, attack)
        for name, suite in suites.items()
        for kind, attack in suite.items()
        if kind.startswith("DeepFool")
    }
    jobs = [(label, len(test.x)) for label, (name, _) in found.items() if name not in SLOW]
    jobs += [(label, options.few) for label, (name, _) in found.items() if name in SLOW]
    if any(name in SLOW for name in suites):
        jobs.append(("course_lib", options.few))
    for name, n in jobs:
        x, y = test.x[:n], own[:n]
        took, x_adv = cpu_seconds(partial(found[name][1], x, y))
        with torch.no_grad():
            fooled = judge(x_adv).argmax(dim=1) != y
        length = (x_adv - x).flatten(1).norm(dim=1)[fooled]
        inside = float(x_adv.min()) >= -1e-6 and float(x_adv.max()) <= 1 + 1e-6
        print(
            f"{name:20}{n:8}{n / took:11.1f}{float(fooled.float().mean()):9.1%}"
            f"{float(length.median()):11.3f}{'yes' if inside else 'no':>11}",
            flush=True,
        )


if __name__ == "__main__":
    main()
