"""Recordings: dictionaries learnt from sounds, stems, events. Import on demand; it loads librosa and soundfile."""

from knownmf.audio.decomposition import Decomposition, decompose
from knownmf.audio.learning import learn
from knownmf.audio.recordings import read, write
from knownmf.audio.separation import Separation, separate
from knownmf.audio.spectrograms import spectrogram
from knownmf.audio.transcription import Event, Transcription, transcribe

__all__ = [
    "Decomposition",
    "Event",
    "Separation",
    "Transcription",
    "decompose",
    "learn",
    "read",
    "separate",
    "spectrogram",
    "transcribe",
    "write",
]
