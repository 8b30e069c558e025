"""Measures that the whole book shares: for detectors, for images, and for generators.

Chapter: book/detect/first_detector.md
"""

from __future__ import annotations

from course_lib.metrics.detection import (
    Interval,
    Rates,
    Roc,
    Values,
    accuracy_at,
    auc,
    average_precision,
    bootstrap_interval,
    equal_error_rate,
    expected_calibration_error,
    precision_at_base_rate,
    rates_at,
    roc,
    wilson_interval,
)
from course_lib.metrics.generation import (
    Copying,
    DensityCoverage,
    Limit,
    Neighbours,
    PrecisionRecall,
    copying,
    density_coverage,
    frechet_distance,
    frechet_gaussians,
    frechet_limit,
    inception_score,
    modes_kept,
    nearest,
    precision_recall,
)
from course_lib.metrics.images import mse, psnr
from course_lib.metrics.judges import Judge, digit_judge, inception_judge

__all__ = [
    "Copying",
    "DensityCoverage",
    "Interval",
    "Judge",
    "Limit",
    "Neighbours",
    "PrecisionRecall",
    "Rates",
    "Roc",
    "Values",
    "accuracy_at",
    "auc",
    "average_precision",
    "bootstrap_interval",
    "copying",
    "density_coverage",
    "digit_judge",
    "equal_error_rate",
    "expected_calibration_error",
    "frechet_distance",
    "frechet_gaussians",
    "frechet_limit",
    "inception_judge",
    "inception_score",
    "modes_kept",
    "mse",
    "nearest",
    "precision_at_base_rate",
    "precision_recall",
    "psnr",
    "rates_at",
    "roc",
    "wilson_interval",
]
