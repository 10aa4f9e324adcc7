"""What the README shows runs, and gives what it says."""

import re
from pathlib import Path

import librosa
import numpy as np

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf8")


def test_the_readme_runs_and_answers_the_question(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) >= 2
    names = {"np": np, "librosa": librosa}
    for block in blocks:
        exec(block, names)
    assert "[[ 3.   5.   4.5  0. ]\n [ 0.   0.   3.  10. ]]" in capsys.readouterr().out
    assert np.allclose(names["H"], names["found"].H, atol=1e-3)
    assert np.array_equal(names["comps"], names["W"])
