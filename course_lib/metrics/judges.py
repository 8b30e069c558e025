"""The networks through which a generator is judged, and what a number may be called because of it.

Chapter: book/generate/measuring.md
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from course_lib.classifiers import DigitNet, check_examples, evaluating


@dataclass(frozen=True, eq=False)
class Judge:
    """A network that looks at images, cut in two: ``body`` gives features, ``head`` logits of those.

    ``name``: the kind of network, such as "digit". ``body``: images (N, C, H, W) in [0, 1] to
    features (N, F); ``head``: features to logits (N, K), None where the network has no classes; both
    are parts of ``network``. ``names``: measures that have a name of their own through this network.
    """

    name: str
    network: nn.Module
    body: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], Tensor] | None = None
    batch_size: int = 500
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a batch size below 1."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {self.batch_size}")

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Return the features (N, F) of images (N, C, H, W) in [0, 1], where the network is.

        The network is evaluated in batches, and left as it was found.

        Raises ``ValueError`` for another shape, dtype or range, no image, or NaN.
        """
        check_examples("x", x)
        low, high = float(x.min()), float(x.max())
        if x.ndim != 4 or low < 0 or high > 1:
            raise ValueError(
                f"x: expected images (N, C, H, W) in [0, 1], "
                f"got {tuple(x.shape)} in [{low:.3g}, {high:.3g}]"
            )
        with evaluating(self.network):
            return torch.cat([self.body(part) for part in x.split(self.batch_size)])

    @torch.no_grad()
    def probabilities(self, features: Tensor) -> Tensor:
        """Return p(y | x), (N, K), of images with these ``features`` (N, F).

        Raises ``ValueError`` for features of another shape, NaN, or a network without classes.
        """
        check_examples("features", features)
        if self.head is None:
            raise ValueError(f"features: the {self.name} network has no classes to be sure of")
        with evaluating(self.network):
            return self.head(features).softmax(dim=1)

    def named(self, measure: str) -> str:
        """Return what ``measure`` is to be called when it is taken through this network.

        "Fréchet distance" is "Fréchet distance, digit features" for digits; it is "FID" only through
        the Inception network, whose numbers the literature compares.
        """
        part = "network" if measure == "Inception score" else "features"
        return self.names.get(measure, f"{measure}, {self.name} {part}")


def digit_judge() -> Judge:
    """Return the course's digit network as a judge: images (N, 1, 28, 28), 64 features, 10 classes."""
    from course_lib import checkpoints

    network = checkpoints.load("digit-net", DigitNet())
    return Judge("digit", network, network.features, network.head)


#: Where torch-fidelity publishes the weights of the Inception network of the FID paper (91 MB).
INCEPTION_WEIGHTS = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)


def inception_judge(weights: Path | None = None, *, batch_size: int = 50) -> Judge:
    """Return the Inception network by which FID and the Inception score are defined.

    It takes images (N, 1 or 3, H, W) in [0, 1], rounds them to 256 levels and resizes them to
    299 x 299 with antialiasing, as torchmetrics does; 2,048 features, 1,008 classes, on the CPU until
    ``judge.network`` is moved. ``weights``: the file; by default
    ``weights-inception-2015-12-05-6726825d.pth`` in torch's cache. Nothing is downloaded.

    Raises ``ModuleNotFoundError`` where torchmetrics or torch-fidelity is missing, and
    ``ValueError`` for weights that are not there or not this network's: both say what to do.
    Source: Heusel et al. (2017), by way of torch-fidelity; Parmar et al. (2022) for the resizing.
    """
    try:
        importlib.import_module("torch_fidelity")
        network_class = importlib.import_module("torchmetrics.image.fid").NoTrainInceptionV3
    except ImportError as error:
        raise ModuleNotFoundError(
            f"the Inception network needs two packages ({error}): "
            "pip install torchmetrics torch-fidelity"
        ) from error
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_WEIGHTS.split("/")[-1]
    if not path.is_file():
        raise ValueError(
            f"weights: no file {path}; download {INCEPTION_WEIGHTS} (91 MB) to there, "
            "or judge through a network that is at hand, such as digit_judge()"
        )
    try:
        # torch-fidelity would run whatever code a file holds; one of weights only holds none.
        _ = torch.load(path, weights_only=True)
        network = network_class("inception-v3", ["2048"], str(path))
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"weights: {path} does not hold the weights of this Inception network ({error}); "
            f"download {INCEPTION_WEIGHTS} again"
        ) from error

    def body(x: Tensor) -> Tensor:
        levels = (255 * x).round().to(torch.uint8)
        features: Tensor = network(levels.expand(-1, 3, -1, -1))
        return features

    def head(features: Tensor) -> Tensor:
        logits: Tensor = (
            features @ network.fc.weight.T
        )  # without its bias, as the paper's code has it
        return logits

    names = {"Fréchet distance": "FID", "Inception score": "Inception score"}
    return Judge("Inception", network, body, head, batch_size, names)
