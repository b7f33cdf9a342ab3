"""The examples of the README and of the page for newcomers run."""

import re

import pytest


@pytest.mark.parametrize("page", ["README.md", "docs/start.md"])
def test_every_python_block_of_a_page_runs(page, root, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (root / page).read_text(), re.DOTALL)
    if not blocks:
        pytest.fail(f"{page}: no python example")
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, page, "exec"), {"__name__": "readme"})
