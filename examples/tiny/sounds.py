"""
Synthesised sounds. Each kind has its own way to vary: pitch, tempo, timbre and phase are drawn for every sound, and so
are its loudness and the noise behind it.
"""

from collections.abc import Callable

import numpy as np


SAMPLING_RATE = 16_000
Rng = np.random.Generator


def synthesise(kind: str, seconds: float, rng: Rng) -> np.ndarray:
    """(samples,) float32 in -1..1 at 16 kHz; the same state of `rng` gives the same sound."""
    time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    sound = SYNTHESISERS[kind](time, rng)
    sound /= np.abs(sound).max()
    noise = rng.standard_normal(len(time)) * 10 ** rng.uniform(-4, -2.3)
    return (10 ** rng.uniform(-0.9, -0.15) * np.clip(sound + noise, -1, 1)).astype(np.float32)


def _since_beat(time: np.ndarray, period: float, rng: Rng) -> np.ndarray:
    """Seconds since the last beat, of beats that come every `period` seconds from a random start."""
    return (time + rng.uniform(0, period)) % period


def _swept_tone(frequency: np.ndarray, rng: Rng, overtones: tuple[float, ...] = ()) -> np.ndarray:
    """A tone whose frequency in Hz is given at every sample, and overtones of the loudness given."""
    phase = 2 * np.pi * np.cumsum(frequency) / SAMPLING_RATE + rng.uniform(0, 2 * np.pi)
    return np.sin(phase) + sum(loudness * np.sin(n * phase) for n, loudness in enumerate(overtones, start=2))


def _smooth(noise: np.ndarray, width: int) -> np.ndarray:
    return np.convolve(noise, np.ones(width) / width, mode="same")


def _bell(time: np.ndarray, rng: Rng) -> np.ndarray:
    since = _since_beat(time, rng.uniform(0.7, 1.2), rng)
    pitch = rng.uniform(350, 800)
    partials = ((1, 1.0), (2.4, 0.6), (3.0, 0.4), (5.2, rng.uniform(0.1, 0.3)))
    ring = sum(loudness * np.sin(2 * np.pi * pitch * ratio * since) for ratio, loudness in partials)
    return ring * np.exp(-rng.uniform(3, 5) * since)


def _drum(time: np.ndarray, rng: Rng) -> np.ndarray:
    since = _since_beat(time, rng.uniform(0.28, 0.55), rng)
    pitch = rng.uniform(60, 120)
    skin = np.sin(2 * np.pi * (pitch * since + 3 * (1 - np.exp(-30 * since)))) * np.exp(-12 * since)
    return skin + rng.uniform(0.1, 0.3) * _smooth(rng.standard_normal(len(time)), 4) * np.exp(-40 * since)


def _siren(time: np.ndarray, rng: Rng) -> np.ndarray:
    turn = 2 * np.pi * (time / rng.uniform(0.8, 1.6) + rng.uniform())
    low = rng.uniform(450, 700)
    return _swept_tone(low * (1.5 + 0.5 * np.sin(turn)), rng, overtones=(0.5, 0.3, rng.uniform(0.1, 0.3)))


def _rain(time: np.ndarray, rng: Rng) -> np.ndarray:
    noise = rng.standard_normal(len(time))
    drops = (rng.random(len(time)) < rng.uniform(0.001, 0.003)) * rng.standard_normal(len(time)) * 12
    return _smooth(noise + drops, int(rng.integers(1, 4))) * (1 + 0.2 * np.sin(2 * np.pi * time * rng.uniform(0.2, 1)))


def _bird(time: np.ndarray, rng: Rng) -> np.ndarray:
    chirp = rng.uniform(0.09, 0.18)
    since = _since_beat(time, chirp, rng)
    sings = _since_beat(time, rng.uniform(0.6, 1.0), rng) < rng.uniform(0.3, 0.5)
    frequency = rng.uniform(2600, 3800) + rng.uniform(800, 1800) * np.sin(np.pi * since / chirp)
    return _swept_tone(frequency, rng) * np.sin(np.pi * since / chirp) ** 2 * sings


def _engine(time: np.ndarray, rng: Rng) -> np.ndarray:
    speed = rng.uniform(35, 80) * (1 + 0.1 * np.sin(2 * np.pi * time * rng.uniform(0.2, 0.6)))
    hum = _swept_tone(speed, rng, overtones=(0.8, 0.7, 0.5, 0.5, 0.4, 0.3, 0.3))
    return hum + 0.6 * _smooth(rng.standard_normal(len(time)), 24)


def _clock(time: np.ndarray, rng: Rng) -> np.ndarray:
    period = rng.uniform(0.25, 0.5)
    since = _since_beat(time, period, rng)
    pitch = rng.uniform(1800, 3200) * np.where((time // period) % 2, 1.0, 0.8)
    click = np.sin(2 * np.pi * pitch * since) + 0.5 * rng.standard_normal(len(time))
    return click * np.exp(-rng.uniform(120, 220) * since)


def _whistle(time: np.ndarray, rng: Rng) -> np.ndarray:
    since = _since_beat(time, rng.uniform(0.7, 1.3), rng)
    blows = np.clip(np.minimum(since, rng.uniform(0.5, 0.65) - since) / 0.03, 0, 1)
    trill = 1 + 0.02 * np.sin(2 * np.pi * time * rng.uniform(15, 30))
    return blows * (_swept_tone(rng.uniform(1500, 2400) * trill, rng) + 0.1 * rng.standard_normal(len(time)))


SYNTHESISERS: dict[str, Callable[[np.ndarray, Rng], np.ndarray]] = {
    "bell": _bell,
    "drum": _drum,
    "siren": _siren,
    "rain": _rain,
    "bird": _bird,
    "engine": _engine,
    "clock": _clock,
    "whistle": _whistle,
}
