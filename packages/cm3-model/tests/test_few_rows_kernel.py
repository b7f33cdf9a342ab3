import os
import subprocess
import sys

import pytest

INTERPRETED = """
import itertools, torch
from cm3_model.few_rows_kernel import launch, multiply
for rows, (out, width), int8 in itertools.product((1, 2, 3, 5, 20), ((40, 128), (17, 192)), (0, 1)):
    x = torch.randn(rows, width).half()
    weight = torch.randn(out, width).half()
    scale = None
    if int8:
        weight, scale = torch.randint(-127, 128, (out, width), dtype=torch.int8), torch.rand(out)
    found = torch.full((rows, out), float("nan")).half()
    launch(multiply, x, weight, scale, found)
    wanted = x.double() @ weight.double().T * (1 if scale is None else scale.double())
    error = (found.double() - wanted).norm() / wanted.norm()
    assert error < 2e-3, (rows, out, width, int8, error)
"""


@pytest.mark.slow
def test_the_kernel_for_a_few_rows_multiplies():
    """In Triton's interpreter: the kernel itself needs a CUDA device."""
    pytest.importorskip("triton", reason="PyTorch comes without Triton here")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
