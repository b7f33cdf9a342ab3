import re
import shlex
from pathlib import Path

import pytest

from cm3_retrieval.cli import main

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_every_block_runs_in_turn(tmp_path, monkeypatch, capsys):
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"```(python|sh)\n(.*?)```", text, re.DOTALL)
    assert [kind for kind, _ in blocks].count("sh") == 1 and len(blocks) == 7
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, README.name, "exec"), names)
            continue
        for line in block.splitlines():
            command, *arguments = shlex.split(line)
            assert command == "cm3-retrieval" and main(arguments) == 0, line
        out = capsys.readouterr().out.splitlines()
        assert [line.split()[3:5] for line in out if line.split()[:1] == ["1"]] == [["red", "disc"]]
        assert (tmp_path / "found.html").read_text(encoding="utf-8").count("<img") == 10
    assert "blue square" in capsys.readouterr().out
