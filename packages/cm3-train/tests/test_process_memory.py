import subprocess
import sys

import numpy as np
import pytest

from cm3_train import process_memory
from cm3_train.process_memory import peak_bytes

CHILD = """
import sys
from cm3_train.process_memory import peak_bytes
print(peak_bytes(), "torch" in sys.modules)
"""


def test_peak_stays_when_memory_is_given_back():
    before = peak_bytes()
    block = np.ones(50_000_000)  # 400 MB
    held = peak_bytes()
    del block
    assert held > 3e8
    assert held >= before
    assert peak_bytes() > 0.99 * held  # the kernel counts pages in batches


@pytest.mark.skipif(sys.platform != "linux", reason="the mark is the Linux kernel's")
def test_a_child_does_not_begin_with_its_parents_peak():
    block = np.ones(50_000_000)
    found = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, check=True
    )
    del block
    peak, torch = found.stdout.split()
    assert int(peak) < 2e8
    assert torch == "False"


def test_a_kernel_without_the_mark_is_asked_otherwise(monkeypatch, tmp_path):
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t1 kB\n")
    monkeypatch.setattr(process_memory, "_STATUS", tmp_path / "status")
    assert process_memory.peak_bytes() > 2**20
