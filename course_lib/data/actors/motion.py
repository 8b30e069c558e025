"""How a person moves: smooth tracks of pose and action units, with a manner of her own.

Agarwal, Farid, Gu, He, Nagano and Li (2019), "Protecting World Leaders Against Deep Fakes", tell a
person from an impersonator by the correlations between her facial action units and the movements of
her head. Here those correlations are built in: a ``Manner`` says how strongly one movement draws
another along, so that a model which learns them can be scored against the truth.

Chapter: book/detect/behaviour.md
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from course_lib.data.actors.parameters import (
    Expression,
    Identity,
    Pose,
    _Ranged,
    _real,
    clamp,
    stream,
)

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Manner(_Ranged):
    """A person's habits of movement.

    The couplings, in [-1, 1], say how one movement draws another along: ``brow_raise_on_jaw = 0.8``
    raises the brows when the jaw drops, a negative one lowers them. ``speech_rate``: syllables per
    second; ``blink_rate``: blinks per second; ``talkative``, ``cheerful``: how much of the time, in
    [0, 1]; ``energy``: how far movements go, in [0.2, 1].

    Raises ``ValueError`` for a value out of its range, or NaN.
    """

    brow_raise_on_jaw: float = _real(0.0, -1.0, 1.0)
    lip_stretch_on_jaw: float = _real(0.0, -1.0, 1.0)
    pitch_on_jaw: float = _real(0.0, -1.0, 1.0)
    brow_lower_on_smile: float = _real(0.0, -1.0, 1.0)
    eye_closure_on_smile: float = _real(0.0, -1.0, 1.0)
    roll_on_smile: float = _real(0.0, -1.0, 1.0)
    yaw_on_brow: float = _real(0.0, -1.0, 1.0)
    speech_rate: float = _real(3.5, 1.5, 6.0)
    blink_rate: float = _real(0.3, 0.05, 1.0)
    talkative: float = _real(0.6)
    cheerful: float = _real(0.4)
    energy: float = _real(0.7, 0.2, 1.0)


def manner_of(identity: Identity) -> Manner:
    """Return the manner that belongs to a person, drawn from ``identity.seed``."""
    rng = stream(identity.seed, 2)
    pull = [float(c) for c in rng.uniform(0.35, 1.0, 7) * rng.choice((-1.0, 1.0), 7)]
    return Manner(
        brow_raise_on_jaw=pull[0],
        lip_stretch_on_jaw=pull[1],
        pitch_on_jaw=pull[2],
        brow_lower_on_smile=pull[3],
        eye_closure_on_smile=pull[4],
        roll_on_smile=pull[5],
        yaw_on_brow=pull[6],
        speech_rate=float(rng.uniform(2.5, 4.5)),
        blink_rate=float(rng.uniform(0.15, 0.5)),
        talkative=float(rng.uniform(0.4, 0.9)),
        cheerful=float(rng.uniform(0.2, 0.7)),
        energy=float(rng.uniform(0.5, 1.0)),
    )


def _drift(rng: np.random.Generator, time: F64, fastest: float) -> F64:
    """Return a smooth random track: a sum of sines up to ``fastest`` Hz, with unit variance."""
    count = 7
    frequency = rng.uniform(0.08, fastest, count)
    phase = rng.uniform(0, 2 * math.pi, count)
    weight = rng.uniform(0.5, 1.0, count)
    weight /= math.sqrt(float((weight**2).sum()) / 2)
    waves = np.sin(2 * math.pi * frequency[:, None] * time + phase[:, None])
    return np.asarray((weight[:, None] * waves).sum(axis=0))


def _blinks(rng: np.random.Generator, time: F64, rate: float) -> F64:
    """Return lids that fall within 0.1 s and rise within 0.2 s, at random moments."""
    lids = np.zeros_like(time)
    moment = float(rng.exponential(1 / rate)) - 0.1
    while moment < float(time[-1]) + 0.2:
        rise = np.clip((time - moment + 0.1) / 0.1, 0, 1)
        fall = np.clip((moment + 0.2 - time) / 0.2, 0, 1)
        lids = np.maximum(lids, np.minimum(rise, fall) ** 2 * (3 - 2 * np.minimum(rise, fall)))
        moment += 0.4 + float(rng.exponential(1 / rate))
    return lids


def tracks(
    n: int, *, manner: Manner, seed: int, fps: float = 25.0
) -> tuple[list[Pose], list[Expression]]:
    """Draw ``n`` frames of someone who talks, smiles, blinks and looks about in this manner.

    The seed decides when something happens, the manner what goes with it: two manners under one
    seed are two people who speak the same words.

    Raises ``ValueError`` for n < 1, fps outside [1, 240] or a bad seed.
    """
    if n < 1:
        raise ValueError(f"n: expected at least one frame, got {n}")
    if not 1 <= fps <= 240:
        raise ValueError(f"fps: expected frames per second in [1, 240], got {fps}")
    rng = stream(seed, 3)
    time = np.arange(n) / fps
    reach = manner.energy

    def own(fastest: float = 0.7) -> F64:
        return _drift(rng, time, fastest)

    talk = 1 / (1 + np.exp(-4 * (own(0.35) + 2 * manner.talkative - 0.9)))
    syllable = 0.5 + 0.5 * np.sin(2 * math.pi * manner.speech_rate * time + 1.5 * own(0.8))
    jaw = np.clip(reach * talk * (0.12 + 0.75 * syllable * (0.7 + 0.3 * own(1.0))), 0, 1)
    smile = np.clip((0.15 + 0.9 * manner.cheerful) * (0.5 + 0.55 * own(0.4)), 0, 1)
    brow = own()
    # What is drawn along moves about the middle of what draws it.
    jaw_pull, smile_pull = reach * 2 * (jaw - 0.25), reach * 1.6 * (smile - 0.3)
    raise_ = 0.28 + 0.10 * brow + 0.30 * manner.brow_raise_on_jaw * jaw_pull
    stretch = 0.20 + 0.05 * own() + 0.28 * manner.lip_stretch_on_jaw * jaw_pull
    lower = 0.22 + 0.07 * own() + 0.28 * manner.brow_lower_on_smile * smile_pull
    narrow = 0.14 + 0.025 * own() + 0.14 * manner.eye_closure_on_smile * smile_pull
    # Blinks have a stream of their own: a longer shot has more of them, and all else unchanged.
    blink = _blinks(stream(seed, 8), time, manner.blink_rate)
    lids = np.maximum(np.clip(narrow, 0, 0.6), blink)
    yaw = 9 * reach * own(0.35) + 7 * manner.yaw_on_brow * brow
    pitch = 3 * reach * own(0.5) + 6 * manner.pitch_on_jaw * jaw_pull
    roll = 2.5 * reach * own(0.4) + 6 * manner.roll_on_smile * smile_pull
    gaze_x = 0.22 * own(0.5) - 0.02 * yaw  # the eyes stay with the viewer while the head turns
    gaze_y = 0.15 * own(0.5) + 0.02 * pitch
    sway_x, sway_y, near = 0.012 * own(0.3), 0.008 * own(0.3), 0.015 * own(0.2)

    poses, expressions = [], []
    for i in range(n):
        poses.append(
            clamp(
                Pose,
                yaw=float(yaw[i]),
                pitch=float(pitch[i]),
                roll=float(roll[i]),
                dx=float(sway_x[i]),
                dy=float(sway_y[i]),
                scale=float(1 + near[i]),
            )
        )
        expressions.append(
            clamp(
                Expression,
                brow_raise=float(raise_[i]),
                brow_lower=float(lower[i]),
                eye_closure=float(lids[i]),
                smile=float(smile[i]),
                jaw_drop=float(jaw[i]),
                lip_stretch=float(stretch[i]),
                gaze_x=float(gaze_x[i]),
                gaze_y=float(gaze_y[i]),
            )
        )
    return poses, expressions
