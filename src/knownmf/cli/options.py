"""The arguments and options of the commands: their help, what they accept, and what they say if not.

The types raise errors in the words of the command line before any work begins. The library would raise them later, and
in the words of Python.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from knownmf.divergences import BETA_OF, BETA_RANGE
from knownmf.table_files import LAYOUTS, TABLE_ENDINGS, table_ending

# The defaults of knownmf.audio, which is too slow to import here. tests/test_cli.py tests that they are equal.
LOSS = "kullback-leibler"
TOL = 1e-4
MAX_ITER = 200

# The heading in the help of options whose default is right for nearly all recordings.
RARE = "Options that you rarely need"


def number(expected: str, accepts: Callable[[float], bool]) -> Callable[[str | float], float]:
    """Return a function that converts the text of an option to a number, or raises an error that says what is expected.

    Parameters
    ----------
    expected : str
        What the option accepts, such as "a number from 0 to 1".
    accepts : callable
        Returns whether a number is in the range of the option. It must be false for NaN.
    """

    def convert(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not accepts(value):
            raise typer.BadParameter(f'"{text}", expected {expected}.')
        return value

    return convert


def whole_number(least: int, most: int = 2**31 - 1) -> Callable[[str | int], int]:
    """Return a function that converts the text of an option to a whole number from `least` to `most`, or raises."""

    def convert(text: str | int) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise typer.BadParameter(f'"{text}", expected a whole number from {least} to {most}.')
        return value

    return convert


def _criterion(text: str) -> str | float:
    """Return the name of a criterion for the choice of components, or a number."""
    if text in ("bic", "aic"):
        return text
    return number("bic, aic, or a number of at least 0", lambda value: 0 <= value < float("inf"))(text)


def to_path(text: str | Path) -> Path:
    """Return the path that an option names. Raise if the text is empty: pathlib would read it as the working folder."""
    if not str(text):
        raise typer.BadParameter("the name is empty, expected the name of a file or folder.")
    return Path(text)


def _loss(text: str) -> str | float:
    """Return the name of a divergence, or beta as a number."""
    if text in BETA_OF:
        return text
    low, high = BETA_RANGE
    names = ", ".join(sorted(BETA_OF, key=lambda name: name != LOSS))
    return number(f"{names}, or a number from {low:g} to {high:g}", lambda beta: low <= beta <= high)(text)


def number_or_table(expected: str, accepts: Callable[[float], bool]) -> Callable[[str | float | Path], Any]:
    """Return a function that converts the text of an option to a number, or to the path of a table, or raises."""

    def convert(text: str | float | Path) -> float | Path:
        if table_ending(Path(str(text))) in TABLE_ENDINGS:
            return Path(str(text))
        return number(f"{expected}, or a table ({', '.join(TABLE_ENDINGS)})", accepts)(str(text))

    return convert


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a function that raises unless the text of an option is one of some words."""

    def convert(text: str) -> str:
        if text not in choices:
            raise typer.BadParameter(f'"{text}", expected {", ".join(choices[:-1])} or {choices[-1]}.')
        return text

    return convert


_SHARE = number("a number from 0 to 1", lambda share: 0 <= share <= 1)

Recordings = Annotated[
    list[Path],
    typer.Argument(
        metavar="RECORDING",
        parser=to_path,
        help="The recording: a WAV, FLAC, OGG, MP3 or AIFF file of any length. Or several recordings, folders of "
        "recordings, or patterns such as `'*.flac'`: then each gets a folder of its own in --out.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue with many recordings: skip those that `manifest.csv` in the folder of the results lists as "
        "finished, and do all others (again). Results of another command or of other options are an error without "
        "--force.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        parser=whole_number(1, 1024),
        help="Process recordings in this number of processes of this computer, one recording in each at a time. They "
        "share its processors. Each recording gets a folder, as with many. It needs the package distributed: "
        '`pip install "knownmf[dask]"`.',
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Process recordings in the workers of a Dask cluster, which need the same knownmf and the same files "
        "under the same paths. The address is that of its scheduler, such as `tcp://192.168.0.1:8786`.",
    ),
]
DictionaryFile = Annotated[
    Path,
    typer.Option(
        "--dictionary",
        "-d",
        metavar="FILE",
        parser=to_path,
        help="The dictionary of the sounds: a .npz file written by `knownmf learn`.",
    ),
]
Loss = Annotated[
    str,
    typer.Option(
        "--beta-loss",
        metavar="LOSS",
        rich_help_panel=RARE,
        parser=_loss,
        help="How the difference between the recording and the model is measured: kullback-leibler, frobenius (least "
        "squares), itakura-saito, or a number from -1 to 3 (these three are 1, 2 and 0). The larger the number, the "
        "more the loud parts of the recording count.",
    ),
]
Tol = Annotated[
    float,
    typer.Option(
        "--tol",
        metavar="SHARE",
        rich_help_panel=RARE,
        parser=number("a number of at least 0, such as 1e-4", lambda tol: 0 <= tol < float("inf")),
        help="How far the result of a frame (a short piece of the recording) may be from the best possible one, 0 or "
        "more: 0.0001 is 0.01 %. Larger values take less time and are less exact.",
    ),
]
MaxIter = Annotated[
    int,
    typer.Option(
        "--max-iter",
        metavar="STEPS",
        rich_help_panel=RARE,
        parser=whole_number(1, 2**63 - 1),
        help="The largest number of steps for a frame, 1 or more. Larger values help only if frames missed --tol.",
    ),
]
Free = Annotated[
    int,
    typer.Option(
        "--free",
        metavar="NUMBER",
        parser=whole_number(0),
        help="How many components (spectra) to learn from the recording for sounds that are not in the dictionary, 0 "
        'or more, for example 4. Together they are the sound "rest". With larger values, more of the recording goes '
        "there, possibly also parts of your sounds.",
    ),
]
Adapt = Annotated[
    float,
    typer.Option(
        "--adapt",
        metavar="AMOUNT",
        parser=number("a number from 0 to below 1", lambda adapt: 0 <= adapt < 1),
        help="How much the sounds of the dictionary may change to fit the recording, because they were recorded in "
        "another room or with another microphone: from 0 (not at all) to below 1, for example 0.3. With larger values, "
        "they follow the recording more and your examples less.",
    ),
]
Picture = Annotated[
    Path | None,
    typer.Option(
        "--picture",
        metavar="FILE",
        parser=to_path,
        help="Also write a picture of the result: .png, .pdf or .svg. "
        "For several recordings, a file name without a folder: each gets the picture in its own folder.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace files that already exist.")]
Sounds = Annotated[
    list[str],
    typer.Argument(
        metavar="SOUND",
        parser=lambda text: str(to_path(text)),
        help="Sound files, folders of sound files, or patterns such as `'*.wav'`. `NAME=SOUND` sets the label.",
    ),
]
NewDictionary = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        parser=to_path,
        help="The dictionary to write: .npz. Required without --dry-run.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only show the labels, with their files and seconds. Learn nothing.")
]
Components = Annotated[
    int | None,
    typer.Option(
        "--components",
        "-n",
        metavar="NUMBER",
        rich_help_panel=RARE,
        parser=whole_number(1),
        help="Number of components (spectra) of each sound, or of each file with --apart, 1 or more. Larger values "
        "describe a sound in more detail and take more time. By default 8, 16 or 32, as the sound needs.",
    ),
]
Apart = Annotated[
    bool,
    typer.Option(
        "--apart",
        rich_help_panel=RARE,
        help="Learn components for each file, not for all files with the same label together.",
    ),
]
SampleRate = Annotated[
    int | None,
    typer.Option(
        "--sr",
        metavar="HZ",
        rich_help_panel=RARE,
        parser=whole_number(1),
        help="Sample rate of the dictionary in Hz, 1 or more. Larger values include higher frequencies and take "
        "more time. By default the lowest sample rate of all files.",
    ),
]
WindowLength = Annotated[
    int | None,
    typer.Option(
        "--n-fft",
        metavar="SAMPLES",
        rich_help_panel=RARE,
        parser=whole_number(2, 2**24),
        help="Length of the analysis window in samples, 2 or more. Larger values tell similar pitches apart, "
        "smaller values tell fast events apart. By default about 93 ms, which is 4096 at 44100 Hz.",
    ),
]
HopLength = Annotated[
    int | None,
    typer.Option(
        "--hop-length",
        metavar="SAMPLES",
        rich_help_panel=RARE,
        parser=whole_number(1, 2**24),
        help="Number of samples from one frame (one analysis window) to the next, from 1 to --n-fft. Larger values "
        "take less time and are less exact in time. By default a quarter of --n-fft.",
    ),
]
StemsFolder = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        parser=to_path,
        help="The folder for the stems, one .wav file per sound. For several recordings, it gets a folder for each.",
    ),
]
MaskPower = Annotated[
    float,
    typer.Option(
        "--mask-power",
        metavar="POWER",
        parser=number("a number above 0", lambda power: 0 < power < float("inf")),
        help="How sounds share a frequency at which they sound together, above 0. At 1, in proportion to their "
        "loudness there. With larger values, the louder sound gets more.",
    ),
]
ActivationsFile = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        parser=to_path,
        help="The file for the activations: .npz for all results, .zarr for the same with recordings of any length, "
        ".csv for a table. For several recordings, a folder, or FOLDER/NAME.csv: each gets a file NAME.csv in a folder "
        "of its own.",
    ),
]
EventsFile = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        parser=to_path,
        help="The file for the events: .csv. For several recordings, a folder, or FOLDER/NAME.csv: each gets a file "
        "NAME.csv in a folder of its own.",
    ),
]
Threshold = Annotated[
    float,
    typer.Option(
        "--threshold",
        metavar="SHARE",
        parser=_SHARE,
        help="The smallest rise in loudness that counts as an event, relative to the largest rise in the "
        "recording, from 0 to 1. Larger values list fewer events: they leave out soft ones.",
    ),
]
ThresholdOwn = Annotated[
    float,
    typer.Option(
        "--threshold-own",
        metavar="SHARE",
        parser=_SHARE,
        help="The smallest rise in loudness that counts as an event, relative to the largest rise of the same "
        "sound, from 0 to 1. A rise counts less if similar sounds rise at the same time. Larger values leave out "
        "the soft events of each sound.",
    ),
]
ThresholdShare = Annotated[
    float,
    typer.Option(
        "--threshold-share",
        metavar="SHARE",
        parser=_SHARE,
        help="The smallest rise in loudness that counts as an event, relative to the sum of the rises of similar "
        "sounds at the same time, from 0 to 1. With larger values, fewer of several similar sounds are listed.",
    ),
]
MinGap = Annotated[
    float,
    typer.Option(
        "--min-gap",
        metavar="SECONDS",
        parser=number("a number of seconds, 0 or more", lambda gap: 0 <= gap < float("inf")),
        help="The shortest time between two events of the same sound in seconds, 0 or more. Of two events that are "
        "closer, the weaker one is left out. Larger values leave out fast repetitions.",
    ),
]
AnyFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", parser=to_path, help="A recording, a table, or a file that knownmf has written."),
]
DemoFolder = Annotated[
    Path, typer.Option("--out", "-o", metavar="FOLDER", parser=to_path, help="The folder for all files.")
]

# The options of the command solve.
_FORMATS = "a CSV, TSV, Parquet, NPY or Matrix Market file"
_BOUND = number_or_table("a number of at least 0", lambda value: value >= 0)
_PENALTY = number_or_table("a number of at least 0", lambda value: 0 <= value < float("inf"))
_HOW_READ = "How tables are read"
DataTable = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        parser=to_path,
        help=f"The data, with a feature in each row and a sample in each column, or transposed: {_FORMATS}.",
    ),
]
BasisTable = Annotated[
    Path,
    typer.Option(
        "--basis",
        "-b",
        metavar="BASIS",
        parser=to_path,
        help=f"The basis, with a feature in each row and a component in each column, or transposed: {_FORMATS}, or a "
        "dictionary (.npz).",
    ),
]
ActivationsTable = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        parser=to_path,
        help="The table of activations to write. The ending selects the format: .csv, .tsv, .txt, .parquet, .npy or "
        ".mtx; text is compressed if .gz follows.",
    ),
]
ReportTable = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        parser=to_path,
        help="Also write a table with a row for each sample: how well it is fitted, and how close to the optimum.",
    ),
]
HeatMap = Annotated[
    Path | None,
    typer.Option("--picture", metavar="FILE", parser=to_path, help="Also draw the activations: .png, .pdf or .svg."),
]
LossOfTables = Annotated[
    str,
    typer.Option(
        "--beta-loss",
        metavar="LOSS",
        parser=_loss,
        help="How the difference between the data and the model is measured: kullback-leibler (for counts), frobenius "
        "(least squares), itakura-saito, or a number from -1 to 3 (these three are 1, 2 and 0). The larger the number, "
        "the more the large values count.",
    ),
]
L1 = Annotated[
    float,
    typer.Option(
        "--l1",
        metavar="NUMBER|FILE",
        parser=_PENALTY,
        help="Penalty on the sum of the activations, 0 or more, or a table with one for each component. With larger "
        "values, fewer components are active.",
    ),
]
L2 = Annotated[
    float,
    typer.Option(
        "--l2",
        metavar="NUMBER|FILE",
        parser=_PENALTY,
        help="Penalty on half the sum of the squared activations, 0 or more, or a table with one for each component. "
        "With larger values, activations are smaller and more even.",
    ),
]
Upper = Annotated[
    float | None,
    typer.Option(
        "--upper",
        metavar="NUMBER|FILE",
        parser=_BOUND,
        help="The largest activation that is allowed, 0 or more, or a table with one for each component (an empty cell "
        "is no bound).",
    ),
]
Total = Annotated[
    float | None,
    typer.Option(
        "--total",
        metavar="NUMBER|FILE",
        parser=_PENALTY,
        help="What the activations of a sample sum to, such as 1 for abundances, or a table with one number for each "
        "sample.",
    ),
]
MaxTotal = Annotated[
    float | None,
    typer.Option(
        "--max-total",
        metavar="NUMBER|FILE",
        parser=_BOUND,
        help="What the activations of a sample sum to at most, or a table with one number for each sample (an empty "
        "cell is no bound). Not together with --total.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        parser=to_path,
        help="How much the values of the data count, 0 or more: a table with one number for each feature, or of the "
        "size of the data.",
    ),
]
Background = Annotated[
    Path | None,
    typer.Option(
        "--background",
        metavar="FILE",
        parser=to_path,
        help="A known part of the data that is added to the model, 0 or more: a table with one number for each "
        "feature, or of the size of the data.",
    ),
]
Select = Annotated[
    str | None,
    typer.Option(
        "--select",
        metavar="bic|aic|NUMBER",
        parser=_criterion,
        help="Leave out the components that a sample does not need, by this criterion: bic is stricter than aic. A "
        "number is by how much a component has to lower the deviance; with larger ones, fewer are kept.",
    ),
]
StandardErrors = Annotated[
    bool,
    typer.Option(
        "--standard-errors",
        help="Also write the standard errors of the activations, into a file with the name of --out and "
        ".standard_errors before its ending.",
    ),
]
Bootstrap = Annotated[
    int | None,
    typer.Option(
        "--bootstrap",
        metavar="NUMBER",
        parser=whole_number(2),
        help="Also write the bounds of 95 % intervals of the activations, found from this number of resamples of each "
        "sample, such as 200, into two files with the name of --out and .lower or .upper before their ending.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="NUMBER",
        rich_help_panel=RARE,
        parser=whole_number(0),
        help="The start of the random numbers of --bootstrap, 0 or more. The same number gives the same intervals.",
    ),
]
TolOfTables = Annotated[
    float | None,
    typer.Option(
        "--tol",
        metavar="SHARE",
        rich_help_panel=RARE,
        parser=number("a number of at least 0, such as 1e-4", lambda tol: 0 <= tol < float("inf")),
        help="How far the result of a sample may be from the best possible one, 0 or more, as a share of the size of "
        "the sample: 0.0001 is 0.01 %. Larger values take less time and are less exact. By default 0.0001, or 1e-8 "
        "with --select, --standard-errors or --bootstrap.",
    ),
]
MaxIterOfTables = Annotated[
    int,
    typer.Option(
        "--max-iter",
        metavar="STEPS",
        rich_help_panel=RARE,
        parser=whole_number(1, 2**63 - 1),
        help="The largest number of steps for a sample, 1 or more. Larger values help only if samples missed --tol.",
    ),
]
SamplesIn = Annotated[
    str | None,
    typer.Option(
        "--samples",
        metavar="rows|columns",
        rich_help_panel=_HOW_READ,
        parser=one_of("rows", "columns"),
        help="Where the samples are in DATA. By default, where the names or the sizes say so.",
    ),
]
ComponentsIn = Annotated[
    str | None,
    typer.Option(
        "--components",
        metavar="rows|columns",
        rich_help_panel=_HOW_READ,
        parser=one_of("rows", "columns"),
        help="Where the components are in BASIS. By default, where the names or the sizes say so.",
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="WHERE",
        rich_help_panel=_HOW_READ,
        parser=one_of(*LAYOUTS),
        help=f"Which labels DATA has: {', '.join(LAYOUTS[:-1])} or {LAYOUTS[-1]}. By default, those that are not "
        "numbers.",
    ),
]
BasisLayout = Annotated[
    str | None,
    typer.Option(
        "--basis-labels",
        metavar="WHERE",
        rich_help_panel=_HOW_READ,
        parser=one_of(*LAYOUTS),
        help="The same for BASIS.",
    ),
]
SharedFeatures = Annotated[
    bool,
    typer.Option(
        "--shared-features",
        rich_help_panel=_HOW_READ,
        help="Use only the features that both tables have, by their names. By default, others are an error.",
    ),
]
