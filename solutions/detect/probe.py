"""Calls of a student's detector, its measure, its protocol and an attack, in the student's process.

What a function was handed comes back as ``..._afterwards``: it should still be what it was.
"""

from __future__ import annotations

import sys

import numpy as np
import torch


def _stack(found, shape):
    """Return all that was found, or the first alone that is no numbers of the shape it should have."""
    kinds = (torch.Tensor, np.ndarray, np.generic, bool, int, float, list, tuple)
    for one in found:
        if not isinstance(one, kinds) or tuple(np.shape(one)) != tuple(shape):
            return one
    return found


def spectrum(student, *, images):
    """Return the rings of the spectrum, and apart from them the ring of radius 0."""
    found = student.radial_spectrum(images)
    return {"rings": found[:, 1:], "zero": found[:, 0], "images_afterwards": images}


def rings(student, *, images):
    """Return the rings of the spectrum but for that of radius 0."""
    return {"rings": student.radial_spectrum(images)[:, 1:]}


def eer(student, *, scores, labels):
    """Return the equal error rate."""
    return {
        "eer": student.equal_error_rate(scores, labels),
        "scores_afterwards": scores,
        "labels_afterwards": labels,
    }


def detect(student, *, features, labels, test):
    """Fit on ``features`` and ``labels``; return the scores of ``test``."""
    return {"scores": student.fit_detector(features, labels)(test)}


def detect_some(student, *, features, labels, test, some):
    """Fit; return the scores of some rows, which come first and alone, and then those of all."""
    detector = student.fit_detector(features, labels)
    return {
        "alone": detector(test[some]),
        "together": detector(test),
        "features_afterwards": features,
        "labels_afterwards": labels,
        "test_afterwards": test,
    }


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


def split(student, *, person, share, seed, draws):
    """Split people ``draws`` times with one generator; return if the masks are of truth values, too."""
    masks = _splits(student, person, share, seed, draws)
    found = {f"split {i}": mask for i, mask in enumerate(masks, 1)}
    return found | {"boolean": [_boolean(mask) for mask in masks]}


def _boolean(mask):
    """Whether a mask is of truth values, as an index has to be."""
    try:
        return torch.as_tensor(mask).dtype == torch.bool
    except (TypeError, ValueError, RuntimeError):
        return False  # what it is instead shows in the mask


def split_twice(student, *, person, low, high, seed):
    """Split people into two shares, twice."""
    generator = torch.Generator().manual_seed(seed)
    found = {
        name: student.split_people(person, share, generator)
        for name, share in (("low", low), ("high", high), ("low again", low), ("high again", high))
    }
    return found | {"person_afterwards": person}


def split_again(student, *, person, share, seed, draws):
    """Split people ``draws`` times, and then once more from the same seed."""
    (again,) = _splits(student, person, share, seed, 1)
    masks = _splits(student, person, share, seed, draws)
    return {"splits": _stack(masks, person.shape), "again": again}


def _splits(student, person, share, seed, draws):
    generator = torch.Generator().manual_seed(seed)
    return [student.split_people(person.clone(), share, generator) for _ in range(draws)]


def threshold(student, *, scores, rates):
    """Return the threshold for each row of scores and its rate.

    An infinite one comes back as the largest number there is: what goes to the grader is finite.
    """
    found = [
        student.threshold_at(row, rate) for row, rate in zip(scores, rates.tolist(), strict=True)
    ]
    thresholds = _stack(found, ())
    if thresholds is found:
        most = sys.float_info.max
        thresholds = [min(max(float(t), -most), most) for t in found]
    return {"thresholds": thresholds, "scores_afterwards": scores}


def alarms(student, *, images, weight, threshold, scale, shift):
    """Return the alarms of a linear score after changes of contrast and brightness, in their order."""

    def change(a, b):
        return lambda x: a * x + b

    names = [f"change {i}" for i in range(len(scale))]
    changes = {
        name: change(a, b) for name, a, b in zip(names, scale.tolist(), shift.tolist(), strict=True)
    }
    found = student.false_alarms(lambda x: x.flatten(1) @ weight, threshold, images, changes)
    return {"shares": [found[name] for name in names], "images_afterwards": images}


def null(student, *, train, train_labels, test, test_labels, trials, seed):
    """Run null experiments on detectors that point from one class to the other; tell all that came."""
    rows, labels, asked = [], [], []

    def fit(features, given):
        rows.append(torch.as_tensor(features).detach().clone())
        labels.append(torch.as_tensor(given).detach().clone())
        x, y = rows[-1].double(), labels[-1].double()
        w = x.T @ (y - y.mean())
        return lambda f: torch.as_tensor(f).double() @ w

    def measure(scores, truth):
        asked.append(torch.as_tensor(truth).detach().clone())
        sign = 2 * asked[-1].double() - 1
        return float(torch.sigmoid(-sign * torch.as_tensor(scores)).mean())

    inputs = {
        "train": train.clone(),
        "train_labels": train_labels.clone(),
        "test": test.clone(),
        "test_labels": test_labels.clone(),
    }
    generator = torch.Generator().manual_seed(seed)
    rates = student.null_experiment(fit, measure, *inputs.values(), trials, generator)
    told = {"rates": rates, "rows": rows, "labels": labels, "asked": asked}
    return told | {f"{name}_afterwards": value for name, value in inputs.items()}


def null_labels(student, *, train, train_labels, test, test_labels, trials, seed):
    """Run null experiments; return the images and labels that were fitted."""
    told = null(
        student,
        train=train,
        train_labels=train_labels,
        test=test,
        test_labels=test_labels,
        trials=trials,
        seed=seed,
    )
    return {"rows": told["rows"], "labels": told["labels"]}


def null_again(student, *, train, train_labels, test, test_labels, trials, seed):
    """Run null experiments twice from one seed, and once from the next; return all that was given."""
    found = {}
    for name, start in (("first", seed), ("again", seed), ("other", seed + 1)):
        told = null(
            student,
            train=train,
            train_labels=train_labels,
            test=test,
            test_labels=test_labels,
            trials=trials,
            seed=start,
        )
        found |= {f"{name} {key}": told[key] for key in ("rows", "labels", "asked")}
    return found
