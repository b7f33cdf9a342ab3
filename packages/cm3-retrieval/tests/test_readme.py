import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_every_python_block_runs_in_turn(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks:
        exec(compile(block, README.name, "exec"), names)
    assert "square of shade" in capsys.readouterr().out
