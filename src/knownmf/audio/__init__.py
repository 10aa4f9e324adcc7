"""Learn dictionaries from recordings, and decompose, separate and transcribe recordings.

The package needs the extra "audio": ``pip install "knownmf[audio]"``. Importing it loads soundfile and
soxr.
"""

from knownmf.extras import audio_extra

with audio_extra():
    from knownmf.audio.decomposition import Decomposition, Summary, decompose
    from knownmf.audio.learning import learn
    from knownmf.audio.recordings import read, write
    from knownmf.audio.separation import Separation, separate
    from knownmf.audio.spectrograms import spectrogram
    from knownmf.audio.transcription import Event, Transcription, transcribe

__all__ = [
    "Decomposition",
    "Event",
    "Separation",
    "Summary",
    "Transcription",
    "decompose",
    "learn",
    "read",
    "separate",
    "spectrogram",
    "transcribe",
    "write",
]
