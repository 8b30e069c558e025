"""Calls of a student's detector, its measure and its attack, made in the student's process."""

from __future__ import annotations

import torch


def spectrum(student, *, images):
    """Return the rings of the spectrum, and apart from them the ring of radius 0."""
    found = student.radial_spectrum(images)
    return {"rings": found[:, 1:], "zero": found[:, 0]}


def rings(student, *, images):
    """Return the rings of the spectrum but for that of radius 0."""
    return {"rings": student.radial_spectrum(images)[:, 1:]}


def eer(student, *, scores, labels):
    """Return the equal error rate."""
    return {"eer": student.equal_error_rate(scores, labels)}


def detect(student, *, features, labels, test):
    """Fit on ``features`` and ``labels``; return the scores of ``test``."""
    return {"scores": student.fit_detector(features, labels)(test)}


def detect_some(student, *, features, labels, test, some):
    """Fit; return the scores of ``test``, and those of some of its rows when they come alone."""
    detector = student.fit_detector(features, labels)
    return {"together": detector(test), "alone": detector(test[some])}


def attack(student, *, x, eps, inner, bias, outer):
    """Attack a small network that the grader sent; return the result and what ``x`` is afterwards."""

    def detector(images):
        hidden = torch.tanh(images.flatten(1) @ inner + bias)
        return torch.sigmoid(hidden @ outer)

    return {"adversarial": student.attack_detector(detector, x, eps), "x_afterwards": x}


def attack_only(student, *, x, eps, inner, bias, outer):
    """Attack a small network that the grader sent; return the result."""
    return {
        "adversarial": attack(student, x=x, eps=eps, inner=inner, bias=bias, outer=outer)[
            "adversarial"
        ]
    }
