"""Telling generated images from real ones: a detector, what is done to images, and how to score it.

``cnn`` is a small detector and its training, ``processing`` what happens to a picture on its way
(rounding, JPEG, resizing, blur, noise), ``evaluate`` how a detector is judged, and how a result that
is too good is taken apart.

Chapter: book/detect/first_detector.md
"""

from __future__ import annotations

from course_lib.detection import cnn, evaluate, processing

__all__ = ["cnn", "evaluate", "processing"]
