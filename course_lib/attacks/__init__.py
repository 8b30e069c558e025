"""Attacks on classifiers: the smallest change of an input that changes the answer.

Every attack is a function ``attack(model, x, y, ...)`` of a batch of images in [0, 1] and their
labels. It returns a detached batch of the same shape, dtype and device, in [0, 1]. It runs the
model in evaluation mode and leaves it as it was: mode, gradients, buffers.

Chapter: book/deceive/small_step.md
"""

from __future__ import annotations

from course_lib.attacks.bim import bim
from course_lib.attacks.curve import accuracy_curve
from course_lib.attacks.deepfool import deepfool, deepfool_path
from course_lib.attacks.few_pixel import few_pixel, fewest_pixels
from course_lib.attacks.fgsm import fgsm
from course_lib.attacks.pgd import pgd
from course_lib.attacks.transfer import transfer_matrix
from course_lib.classifiers import accuracy

__all__ = [
    "accuracy",
    "accuracy_curve",
    "bim",
    "deepfool",
    "deepfool_path",
    "few_pixel",
    "fewest_pixels",
    "fgsm",
    "pgd",
    "transfer_matrix",
]
