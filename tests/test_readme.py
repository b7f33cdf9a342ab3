"""The README's example runs."""

import re

import pytest


def test_every_python_block_of_the_readme_runs(root, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    if not blocks:
        pytest.fail("README.md: no python example")
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
