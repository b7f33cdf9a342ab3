"""The tutorials, block by block and in order: what a reader copies, at the size of a test.

A ```bash block of docs/tutorials/*.md is run command by command, in a folder that stands for the
checkout. A ```text block is output and is not run. Any other block is a file, and the line above it
says its name: "Save this as `NAME`:". A comment before a block, `<!-- in tests: OPTIONS -->`, has
what is appended to its one command. NEEDS makes what a page says that its reader has. What cannot
run here is in NOT_HERE, with the reason, and is reported as skipped.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
import warm
from captioned_pictures import write_pictures
from tiny_chameleon import write_download

PAGES = Path(__file__).parents[1] / "docs" / "tutorials"
BIN = Path(sys.executable).parent
BLOCK = re.compile(
    r"(?:Save this as `(?P<name>[^`\n]+)`:\n+)?(?:^<!-- in tests: (?P<options>.*?) -->\n)?"
    r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
NEEDS = {
    "train-on-your-folder": ["my-pictures"],
    "swap-the-encoder": ["my-pictures"],
    "decode-anole": ["my-pictures", "Anole-7b-hf"],
    "tune-on-one-gpu": ["runs/tiny"],
    "teach-a-new-thing": ["runs/tiny"],
    "scale-out": ["my-pictures", "runs/tiny"],
}
"""Page -> what its reader has before the first block."""
NOT_HERE = {
    "sbatch": "wants a SLURM cluster; test_processes.py runs the file with a stand-in for srun",
}
"""First word of a block that is skipped -> why."""


class Block(NamedTuple):
    """A block of a page."""

    kind: str
    text: str
    name: str | None
    options: str | None


@dataclass
class Reader:
    """One who follows a page in a folder of their own."""

    folder: Path
    failed: list[int] = field(default_factory=list)

    def run(self, line: str) -> None:
        """Run one command; `uv run` means the environment of the tests."""
        words, settings = shlex.split(line), {}
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, settings[name] = words.pop(0).partition("=")
        known = os.environ.get("PYTHONPATH", "")
        path = os.pathsep.join(filter(None, [settings.get("PYTHONPATH"), known]))
        # as uv run does, the environment's programs first
        settings |= {"PYTHONPATH": path, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        environment = os.environ | settings
        if words[:2] == ["uv", "run"]:
            words = words[4:] if words[2] == "--extra" else words[2:]
        if words[0] == "python" or words[0].startswith("cm3-"):
            assert not {"|", "&&", ">", ";", "&"} & set(words), line
            script = words[1:] if words[0] == "python" else [BIN / words[0], *words[1:]]
            done = warm.run(
                [sys.executable, *script], cwd=self.folder, env=environment, timeout=600
            )
        else:
            done = subprocess.run(
                ["bash", "-euc", shlex.join(words)],
                cwd=self.folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=600,
            )
        print(f"$ {line}\n{done.stdout}{done.stderr}")
        assert done.returncode == 0, line


def blocks_of(page: str) -> list[Block]:
    """Return the blocks that a reader copies."""
    text = (PAGES / f"{page}.md").read_text()
    found = [Block(**match.groupdict()) for match in BLOCK.finditer(text)]
    assert len(found) == len(re.findall(r"^ *```\w+$", text, re.MULTILINE)), f"{page}: a block"
    return [block for block in found if block.kind != "text"]


def commands_of(block: Block) -> list[str]:
    """Return the lines of a bash block as a shell joins them."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


STEPS = [
    pytest.param(page, number, id=f"{page}-{number + 1}")
    for page in NEEDS
    for number in range(len(blocks_of(page)))
]


@pytest.fixture(scope="module")
def tiny_run(root, tmp_path_factory):
    """A run of the smoke recipe on twelve pictures, in place of the default run."""
    folder = tmp_path_factory.mktemp("tiny")
    write_pictures(folder / "my-pictures")
    command = [sys.executable, root / "apps/pretrain.py", "--data.folder", folder / "my-pictures"]
    command += ["--config", root / "apps/configs/smoke.yaml", "--texttok.vocab_size", "300"]
    done = warm.run([*command, "--runs", folder, "--name", "tiny", "--device", "cpu"], cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "tiny"


@pytest.fixture(scope="module")
def reader_of(root, tiny_run, tmp_path_factory):
    """Give each page's reader, who has what the page needs."""
    readers = {}

    def reader(page):
        if page not in readers:
            folder = tmp_path_factory.mktemp(page)
            for name in ("apps", "examples"):
                (folder / name).symlink_to(root / name)
            for needed in NEEDS[page]:
                if needed == "my-pictures":
                    write_pictures(folder / needed)
                elif needed == "Anole-7b-hf":
                    (folder / needed).mkdir()
                    write_download(folder / needed)
                    shutil.move(folder / needed / "vqgan.ckpt", folder)
                else:
                    shutil.copytree(tiny_run, folder / needed)
            readers[page] = Reader(folder)
        return readers[page]

    return reader


def test_every_page_is_run():
    assert sorted(page.stem for page in PAGES.glob("*.md")) == sorted(NEEDS)
    words = {shlex.split(b.text)[0] for p in NEEDS for b in blocks_of(p) if b.kind == "bash"}
    assert words >= set(NOT_HERE)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "number"), STEPS)
def test_a_block_of_a_tutorial_runs(page, number, reader_of):
    reader, block = reader_of(page), blocks_of(page)[number]
    if reader.failed:
        pytest.fail(f"block {reader.failed[0] + 1} of {page} failed")
    reader.failed.append(number)
    if block.kind != "bash":
        assert block.name, f"{page}: wanted 'Save this as `NAME`:' above {block.text}"
        (reader.folder / block.name).parent.mkdir(exist_ok=True)
        (reader.folder / block.name).write_text(block.text)
    else:
        commands = commands_of(block)
        reason = NOT_HERE.get(commands[0].split()[0])
        if reason:
            reader.failed.clear()
            pytest.skip(f"{commands[0]}: {reason}")
        if block.options is not None:
            (command,) = commands
            commands = [f"{command} {block.options}"]
        for command in commands:
            reader.run(command)
    reader.failed.clear()
