"""Make the sample of synthesised digits again, with the programs ``flite`` and ``espeak-ng``.

``python -m course_lib.data.make_synthetic_digits FOLDER`` calls the two programs (Debian's packages
flite and espeak-ng), writes ``synthetic_digits.npz`` into the folder, and prints which versions they
were. No take was picked or left out by hand.

Chapter: book/detect/listening.md
"""

from __future__ import annotations

import argparse
import io
import math
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from course_lib.data.synthetic_digits import SAMPLE_RATE, TAKES, VOICES

WORDS = "zero one two three four five six seven eight nine".split()
SEED = 0
#: Flite takes a pitch in hertz (its voice rms takes none and stays near 83 Hz) and a factor by which
#: it stretches the word ...
FLITE_PITCH = (110, 165)
FLITE_STRETCH = {"rms": (0.6, 1.1)}
FLITE_STRETCH_OTHERS = (0.8, 1.4)
#: ... eSpeak NG a number from 0 to 99, whose hertz depend on the voice, and words a minute. These
#: ranges come to about the same pitches and lengths, which are those of the men of the other set.
ESPEAK_PITCH = {"en-us+f2": (0, 35), "en-us+klatt4": (55, 99)}
ESPEAK_PITCH_OTHERS = (60, 99)
ESPEAK_SPEED = (140, 230)


def make(folder: Path) -> None:
    """Write ``synthetic_digits.npz`` into ``folder``.

    Raises ``FileNotFoundError`` when a program is missing, ``CalledProcessError`` when it fails.
    """
    table, audio = [], []
    for v, voice in enumerate(VOICES):
        for digit, word in enumerate(WORDS):
            for take in range(TAKES):
                rng = np.random.default_rng([SEED, v, digit, take])
                sound = flite(voice, word, rng) if v < 4 else espeak(voice, word, rng)
                table.append((digit, v, take, len(sound)))
                audio.append(sound)
    # Differences of neighbouring samples compress better than the samples.
    change = np.diff(np.concatenate(audio), prepend=np.int16(0))
    np.savez_compressed(
        folder / "synthetic_digits.npz", table=np.array(table, dtype=np.int16), change=change
    )


def flite(voice: str, word: str, rng: np.random.Generator) -> NDArray[np.int16]:
    """Return what Flite says, at a pitch and speed drawn from ``rng``: (T,)."""
    pitch = rng.uniform(*FLITE_PITCH)
    stretch = rng.uniform(*FLITE_STRETCH.get(voice, FLITE_STRETCH_OTHERS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        subprocess.run(
            [
                *("flite", "-voice", voice, "-t", word, "-o", str(path)),
                *("--setf", f"int_f0_target_mean={pitch:.1f}"),
                *("--setf", f"duration_stretch={stretch:.3f}"),
            ],
            check=True,
            capture_output=True,
        )
        return read(path.read_bytes())


def espeak(voice: str, word: str, rng: np.random.Generator) -> NDArray[np.int16]:
    """Return what eSpeak NG says, at a pitch and speed drawn from ``rng``: (T,)."""
    pitch = rng.uniform(*ESPEAK_PITCH.get(voice, ESPEAK_PITCH_OTHERS))
    speed = rng.uniform(*ESPEAK_SPEED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        subprocess.run(
            [
                *("espeak-ng", "-v", voice, "-w", str(path)),
                *("-p", f"{pitch:.0f}", "-s", f"{speed:.0f}", word),
            ],
            check=True,
            capture_output=True,
        )
        return read(path.read_bytes())


def read(content: bytes) -> NDArray[np.int16]:
    """Read a 16-bit WAV file of one channel and bring it to 8,000 samples a second: (T,)."""
    # Slow to import, and only whoever makes a sample needs it.
    from scipy.signal import resample_poly

    with wave.open(io.BytesIO(content)) as file:
        rate = file.getframerate()
        sound = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    common = math.gcd(rate, SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        smooth = resample_poly(sound.astype(np.float64), SAMPLE_RATE // common, rate // common)
        sound = np.clip(np.rint(smooth), -(2**15), 2**15 - 1)
    return sound.astype(np.int16)


def versions() -> str:
    """Return what the two programs say of themselves, a line each."""
    said = []
    for command in (["flite", "--version"], ["espeak-ng", "--version"]):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = (result.stdout + result.stderr).splitlines()
        said.append(" ".join(line.strip() for line in lines))
    return "\n".join(said)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the sample of synthesised digits.")
    parser.add_argument("folder", type=Path)
    make(parser.parse_args().folder)
    print(versions())
