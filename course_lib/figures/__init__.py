"""Live figures: one call, a widget in Jupyter and a working figure on the built page.

Each function returns a ``Figure``. As the last value of a cell it displays itself: in JupyterLab as
a widget that asks the running kernel, in the built book as an element that computes in the reader's
browser, and where there is no JavaScript as a picture with alt text.

Chapter: book/welcome/how_to_use.md
"""

from course_lib.figures.explorer import Bars, Curve, Number, Picture, Slider, explorer
from course_lib.figures.fgsm import fgsm_explorer
from course_lib.figures.figure import Figure
from course_lib.figures.game import GameSettings, gan_game
from course_lib.figures.latent import latent_explorer
from course_lib.figures.operating import binormal, operating_point
from course_lib.figures.program import CannotRunError
from course_lib.figures.scrubber import training_scrubber
from course_lib.figures.spot import spot_the_fake

__all__ = [
    "CannotRunError",
    "Figure",
    "fgsm_explorer",
    "GameSettings",
    "gan_game",
    "latent_explorer",
    "binormal",
    "operating_point",
    "explorer",
    "Slider",
    "Picture",
    "Bars",
    "Curve",
    "Number",
    "spot_the_fake",
    "training_scrubber",
]
