"""Telling generated images from real ones: detectors, what is done to images, and how to score them.

``cnn`` is a small detector and its training, ``processing`` the same history for real and generated,
``compression`` what happens to a picture on its way (JPEG, resizing, blur, noise), ``evaluate`` how a
detector is judged, and how a result that is too good is taken apart.

Chapter: book/detect/first_detector.md
"""

from __future__ import annotations

from course_lib.detection import cnn, compression, evaluate, processing

__all__ = ["cnn", "compression", "evaluate", "processing"]
