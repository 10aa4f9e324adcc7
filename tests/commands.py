"""The commands that the tests of the command line run, and the files that they run them on."""

import csv
from pathlib import Path

import numpy as np
import soundfile
from typer.testing import CliRunner

from knownmf.cli import app
from knownmf.dictionary import Dictionary

SR, N_FFT, HOP = 8000, 512, 128
TONES = {"low": 500.0, "high": 2000.0}


def run(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="knownmf")


def tone(label, seconds=0.5, sr=SR):
    """Return the samples of a decaying tone."""
    time = np.arange(round(seconds * sr)) / sr
    return np.sin(2 * np.pi * TONES[label] * time) * np.minimum(1, 8 * (seconds - time))


def spectrum(label):
    """Return the magnitude spectrum of a tone."""
    window = np.hanning(N_FFT)
    return np.abs(np.fft.rfft(window * np.sin(2 * np.pi * TONES[label] * np.arange(N_FFT) / SR)))


def write_inputs(folder):
    """Write a stereo recording of two tones and the dictionary of both tones into a folder."""
    silence = np.zeros(SR // 4)
    low = np.concatenate([silence, tone("low"), silence, tone("low")])
    high = np.concatenate([silence, silence, tone("high"), tone("high")])
    soundfile.write(folder / "song.wav", np.column_stack([0.4 * low, 0.4 * low + 0.3 * high]), SR, subtype="FLOAT")
    W = np.column_stack([spectrum("low"), spectrum("high"), 0.1 + spectrum("high")])
    Dictionary(W, ["low", "high", "high"], sr=SR, n_fft=N_FFT, hop_length=HOP).save(folder / "tones.npz")


def write_songs(folder):
    """Write three recordings into the folder `songs` of a folder, next to the dictionary of :func:`write_inputs`."""
    write_inputs(folder)
    (folder / "songs").mkdir()
    (folder / "song.wav").rename(folder / "songs" / "a.wav")
    for name, label in (("b.flac", "low"), ("c.wav", "high")):
        soundfile.write(folder / "songs" / name, np.tile(tone(label), 2) / 2, SR)


def files(folder="."):
    """Return all files in a folder, including hidden ones."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def rows(path):
    """Return the rows of a CSV file as dictionaries."""
    with open(path, newline="", encoding="utf8") as file:
        return list(csv.DictReader(file))


SEPARATE = ("separate", "song.wav", "--dictionary", "tones.npz", "--out", "stems")
DECOMPOSE = ("decompose", "song.wav", "--dictionary", "tones.npz", "--out", "activations.npz")
TRANSCRIBE = ("transcribe", "song.wav", "--dictionary", "tones.npz", "--out", "events.csv")
