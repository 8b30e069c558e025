"""Calls of a student's detector, its measure, its protocol and an attack, in the student's process."""

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


def split(student, *, person, share, seed, draws):
    """Split people ``draws`` times, with one generator."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"split {i + 1}": student.split_people(person.clone(), share, generator)
        for i in range(draws)
    }


def split_twice(student, *, person, low, high, seed):
    """Split people into two shares, twice."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: student.split_people(person.clone(), share, generator)
        for name, share in (("low", low), ("high", high), ("low again", low), ("high again", high))
    }


def split_again(student, *, person, share, seed, draws):
    """Split people ``draws`` times, and then once more from the same seed."""
    again = split(student, person=person, share=share, seed=seed, draws=1)["split 1"]
    return split(student, person=person, share=share, seed=seed, draws=draws) | {"again": again}


def threshold(student, *, scores, rate):
    """Return the threshold."""
    return {"threshold": student.threshold_at(scores, rate)}


def alarms(student, *, images, weight, threshold, scale, shift):
    """Return the alarms of a linear score after changes of contrast and brightness, in their order."""

    def change(a, b):
        return lambda x: a * x + b

    names = [f"change {i}" for i in range(len(scale))]
    changes = {
        name: change(a, b) for name, a, b in zip(names, scale.tolist(), shift.tolist(), strict=True)
    }
    found = student.false_alarms(lambda x: x.flatten(1) @ weight, threshold, images, changes)
    return {"shares": [found[name] for name in names]}


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

    rates = student.null_experiment(
        fit,
        measure,
        train.clone(),
        train_labels.clone(),
        test.clone(),
        test_labels.clone(),
        trials,
        torch.Generator().manual_seed(seed),
    )
    return {"rates": rates, "rows": rows, "labels": labels, "asked": asked}


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
