"""Checked outputs hold on other people's machines: other processors, one thread or two.

ATEN_CPU_CAPABILITY makes torch compute as on a processor without the newer instructions. `make test` tries the one
farthest from a current processor; `make portability` tries the others.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FARTHEST = ("default", 1)
MACHINES = [(capability, threads) for capability in ("default", "avx2", "avx512") for threads in (1, 2)]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    "capability, threads",
    [pytest.param(*machine, marks=[] if machine == FARTHEST else pytest.mark.portability) for machine in MACHINES],
)
def test_outputs_hold_on_another_processor(capability, threads, notebook):
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": str(threads)}
    environment.pop("PIXELRNN_MNIST", None)  # what is reached in some seconds is not compared
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-o", "addopts=", "--nbval", str(notebook)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:]
