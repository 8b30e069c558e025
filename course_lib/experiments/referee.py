"""AutoAttack, as another library has it, on four digit networks: one plain, two that hide, one robust.

All read the first test digits of a fixed shuffle. FGSM stands beside it: what a careless report would
show. Needs torchattacks (``pip install torchattacks``), which the course itself does not.

Chapter: book/deceive/defending.md
"""

from __future__ import annotations

import importlib
import importlib.util

from torch import nn

from course_lib import attacks, checkpoints, data
from course_lib.attacks.masking import Quantised
from course_lib.classifiers import DigitNet, accuracy

EPS = 0.3
IMAGES = 250
LEVELS = 8
NETWORKS = ("plain", "distilled", "quantised", "trained on PGD")


def cells() -> list[dict[str, str | int]]:
    """Return one run per network."""
    return [{"network": name, "images": IMAGES, "seed": 0} for name in NETWORKS]


def measure(network: str, images: int, seed: int) -> dict[str, float]:
    """Attack one network; return its accuracy ``clean``, under ``FGSM`` and under ``AutoAttack``.

    Raises ``ValueError`` for an unknown network, ``RuntimeError`` where torchattacks is missing.
    """
    if importlib.util.find_spec("torchattacks") is None:
        raise RuntimeError("torchattacks is not installed: pip install torchattacks")
    peer = importlib.import_module("torchattacks")
    model = load(network)
    sample = data.mnist("test").take(images, seed=seed)
    referee = peer.AutoAttack(model, norm="Linf", eps=EPS, version="standard", n_classes=10, seed=0)
    x_adv = referee(sample.x, sample.y).detach()
    moved = float((x_adv - sample.x).abs().max())
    if moved > EPS + 1e-4:
        raise RuntimeError(f"AutoAttack moved a pixel by {moved:.4f}, more than {EPS}")
    return {
        "clean": accuracy(model, sample.x, sample.y),
        "FGSM": accuracy(model, attacks.fgsm(model, sample.x, sample.y, EPS), sample.y),
        "AutoAttack": accuracy(model, x_adv, sample.y),
    }


def load(network: str) -> nn.Module:
    """Return one of ``NETWORKS``, in evaluation mode.

    Raises ``ValueError`` for another name.
    """
    if network not in NETWORKS:
        raise ValueError(f"network: expected one of {', '.join(NETWORKS)}; got {network!r}")
    if network == "trained on PGD":
        return checkpoints.load("robust-digits", DigitNet())
    if network == "distilled":
        both = nn.ModuleDict({"one_step": DigitNet(), "distilled": DigitNet()})
        distilled: nn.Module = checkpoints.load("masked-digits", both)["distilled"]
        return distilled
    plain = checkpoints.load("digit-net", DigitNet())
    return plain if network == "plain" else Quantised(plain, LEVELS).eval()
