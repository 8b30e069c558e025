"""The generator of portraits once more, with nearest-neighbour enlarging for transposed convolutions.

Chapter: book/detect/frequency.md
"""

from __future__ import annotations

from functools import partial

from course_lib.recipes import dcgan_portraits

run = partial(dcgan_portraits.variant, upsampling="nearest")
