"""The synthesised digits: what the table says is what is heard; the maker reads what programs write."""

from __future__ import annotations

import io
import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from course_lib.data import make_synthetic_digits as maker
from course_lib.data.synthetic_digits import SYNTHESISERS, TAKES, VOICES, synthetic_digits


def test_every_voice_says_every_digit_as_often() -> None:
    loaded = synthetic_digits()
    cells, counts = torch.stack([loaded.group, loaded.y]).unique(dim=1, return_counts=True)
    assert cells.shape[1] == len(VOICES) * 10
    assert set(counts.tolist()) == {TAKES}


def test_a_synthesiser_has_its_own_four_voices() -> None:
    for i, name in enumerate(SYNTHESISERS):
        loaded = synthetic_digits(name)  # type: ignore[arg-type]
        assert loaded.synthesiser.unique().tolist() == [i]
        assert loaded.group.unique().tolist() == [4 * i + j for j in range(4)]
    together = torch.cat([synthetic_digits("flite").group, synthetic_digits("espeak").group])
    assert torch.equal(together, synthetic_digits().group)


def test_recordings_are_zero_after_their_length_and_nowhere_empty() -> None:
    loaded = synthetic_digits()
    after = torch.arange(loaded.x.shape[1]) >= loaded.length[:, None]
    assert not loaded.x[after].any()
    assert float(loaded.x.abs().amax(dim=1).min()) > 0.1
    assert int(loaded.length.max()) == loaded.x.shape[1]
    assert len({row.numpy().tobytes() for row in loaded.x}) == len(loaded)


def wav(sound: NDArray[np.int16], rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(sound.astype("<i2").tobytes())
    return file.getvalue()


@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_the_maker_brings_a_tone_to_8_khz_and_leaves_its_pitch_and_level(rate: int) -> None:
    t = np.arange(rate) / rate
    sound = np.rint(12000 * np.sin(2 * np.pi * 1000 * t)).astype(np.int16)
    found = maker.read(wav(sound, rate))
    assert found.dtype == np.int16 and len(found) == 8000
    power = np.abs(np.fft.rfft(found[1000:7000] * np.hanning(6000)))
    assert power.argmax() * 8000 / 6000 == pytest.approx(1000, abs=2)
    assert np.abs(found[1000:7000]).max() == pytest.approx(12000, rel=0.02)


def test_the_maker_clips_instead_of_wrapping_round() -> None:
    loud = np.where(np.arange(4410) // 20 % 2 == 0, 32767, -32768).astype(np.int16)
    found = maker.read(wav(loud, 22050)).astype(int)
    assert int(found.max()) == 32767 and np.abs(np.diff(np.sign(found))).sum() < 2 * len(found) / 6


@pytest.mark.parametrize("program", ["flite", "espeak"])
def test_the_maker_asks_for_the_word_the_voice_the_speed_and_the_pitch(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def said(command: list[str], **_: object) -> None:
        calls.append(command)
        path = Path(command[command.index("-o" if "-o" in command else "-w") + 1])
        path.write_bytes(wav(np.arange(800, dtype=np.int16), 8000))

    monkeypatch.setattr(subprocess, "run", said)
    speak = {"flite": maker.flite, "espeak": maker.espeak}[program]
    voice = {"flite": "rms", "espeak": "en-us"}[program]
    for seed in (1, 1, 2):
        assert speak(voice, "seven", np.random.default_rng(seed)).tolist() == list(range(800))
    settings = [[part for part in call if "/" not in part] for call in calls]
    assert settings[0] == settings[1] != settings[2]
    assert "seven" in calls[0] and voice in calls[0]
