import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("[0-9]*.py"))
SAYS = {
    "01_ask": ["parrot: hello there", "asked away", "one| word| at| a| time|"],
    "02_learn": ["router - best single", "The answer is 42.", "category repeat"],
    "03_workers": [f"thinker: question {i}" for i in range(4)],
    "04_own_router": ["all checks passed"],
    "05_guard": ["dearer experts: paired gain +0.", "with guard: quality 0.", "explained: "],
    "06_evaluate": ["auto - best single: +0.", " better", "wrote report.html"],
    "07_serve": [
        "parrot: one two",
        "asked auto, 2 attempts",
        "one| two| three|",
        "edited: Bonjour",
    ],
    "09_retrieve": ["keys.md", "From noon to two [1].", "[1] is canteen.md", "without: 0 passages"],
    "08_resilience": [
        "auto: first ExpertUnavailableError",
        "breaker of first: open",
        "auto: spare answered",
        "patient: slow ExpertTimeoutError",
        "; then spare answered",
        "strict: composition 'strict': no answer within 0.2 s",
    ],
}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.ray] if "workers" in path.stem else [])
        for path in EXAMPLES
    ],
    ids=lambda path: path.stem,
)
def test_an_example_prints_what_it_promises(path):
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, check=False, timeout=180,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for line in SAYS[path.stem]:
        assert line in done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path):
    assert len(path.read_text().splitlines()) <= 60
