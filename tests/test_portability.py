"""Checked outputs hold on other people's machines: other processors, one thread or two (`make portability`).

ATEN_CPU_CAPABILITY makes torch compute as on a processor without the newer instructions, ONEDNN_MAX_CPU_ISA the
library that torch leaves matrix products and recurrent layers to, which chooses for itself.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROCESSORS = [("default", "SSE41"), ("avx2", "AVX2"), ("avx512", "AVX512_CORE")]

pytestmark = pytest.mark.portability


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("torch_may, onednn_may", PROCESSORS)
def test_outputs_hold_on_another_processor(torch_may, onednn_may, threads, notebook):
    environment = {
        **os.environ,
        "ATEN_CPU_CAPABILITY": torch_may,
        "ONEDNN_MAX_CPU_ISA": onednn_may,
        "OMP_NUM_THREADS": str(threads),
    }
    environment.pop("PIXELRNN_MNIST", None)  # what is reached in some seconds is not compared
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-o", "addopts=", "--nbval", str(notebook)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:]
