"""Digit classifiers of several kinds, from one matrix to eight layers, to attack and to compare.

All take images (N, 1, 28, 28) in [0, 1] and return logits (N, 10); ``features`` is what the last
layer decides on.

Chapter: book/deceive/travel.md
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from course_lib.classifiers import DigitClassifier

CLASSES = 10
PIXELS = 28 * 28


class Softmax(DigitClassifier):
    """Softmax regression: the logits are W x + b. Its features are the 784 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten())
        self.head = nn.Linear(PIXELS, CLASSES)


class MLP(DigitClassifier):
    """Dense layers of the sizes ``hidden``, each with a ReLU.

    Raises ``ValueError`` for no hidden layer or a size below 1.
    """

    def __init__(self, hidden: Sequence[int] = (256, 128)) -> None:
        super().__init__()
        if len(hidden) == 0 or min(hidden) < 1:
            raise ValueError(f"hidden: expected one or more sizes >= 1, got {tuple(hidden)}")
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in zip((PIXELS, *hidden), hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(hidden[-1], CLASSES)


class LeNet5(DigitClassifier):
    """LeNet-5 as it is built today: two convolutions, each halved by a maximum, and three dense layers.

    The original had scaled tanh units, averages and a partly connected third layer. Source: LeCun,
    Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition", 1998, figure 2.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),  # 28 -> 14
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),  # 10 -> 5
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
        )
        self.head = nn.Linear(84, CLASSES)


class VGG8(DigitClassifier):
    """Eight layers in VGG's manner: three pairs of 3x3 convolutions, each pair halved by a maximum.

    ``width``: channels of the first pair, twice and four times that in the next; 64 is VGG's own.
    Dropout stands before each of the two dense layers. Source: Simonyan & Zisserman, "Very deep
    convolutional networks for large-scale image recognition", 2015, section 2.

    Raises ``ValueError`` for a width below 1 or a dropout outside [0, 1).
    """

    def __init__(self, width: int = 16, dropout: float = 0.5) -> None:
        super().__init__()
        if width < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"width, dropout: expected width >= 1 and 0 <= dropout < 1, got {width}, {dropout}"
            )
        layers: list[nn.Module] = []
        channels = 1
        for wide in (width, 2 * width, 4 * width):  # 28 -> 14 -> 7 -> 3
            for _ in range(2):
                layers += [nn.Conv2d(channels, wide, 3, padding=1), nn.ReLU()]
                channels = wide
            layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(channels * 9, 8 * width),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(8 * width, CLASSES)
