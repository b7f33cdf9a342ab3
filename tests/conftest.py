"""Shared by the tests across packages: no test may wait for the network."""

import contextlib
import io
import json
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
import warm

if TYPE_CHECKING:
    from page_visit import Visit
    from playwright.sync_api import Browser

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def smoke_run(root, tmp_path_factory) -> Path:
    """A finished run of the smoke recipe that nobody disturbed; tests must leave it as it is."""
    runs = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, str(root / "apps/pretrain.py")]
    command += ["--config", "apps/configs/smoke.yaml", "--runs", str(runs)]
    done = warm.run(command, cwd=root)
    assert done.returncode == 0, done.stderr
    return runs / "smoke"


@pytest.fixture(scope="session")
def smoke_tuned(root, smoke_run, tmp_path_factory) -> Path:
    """A finished tuning of the smoke run that nobody disturbed; tests must leave it as it is."""
    runs = tmp_path_factory.mktemp("tuned")
    command = [sys.executable, str(root / "apps/sft.py"), "--device", "cpu"]
    command += ["--config", "apps/configs/sft-smoke.yaml", "--base", str(smoke_run)]
    done = warm.run([*command, "--runs", str(runs)], cwd=root)
    assert done.returncode == 0, done.stderr
    return runs / "smoke-sft"


@pytest.fixture(scope="session")
def parted(root, tmp_path_factory) -> Path:
    """A run of the smoke recipe that has made its tokenizers; tests must leave it as it is."""
    from instruction_files import png, write

    from cm3leon.job import start
    from cm3leon.recipe_file import read_command, save_recipe
    from cm3leon.tokenizer_stages import make_tokenizers

    base = tmp_path_factory.mktemp("parted")
    rows = []
    for n in range(12):
        split = ("train", "validation", "test")[max(0, n - 9)]
        write(base / f"data/{n}.png", png(n))
        rows.append({"file_name": f"{n}.png", "text": f"a dog and a cat {n}", "split": split})
    write(base / "data/metadata.jsonl", "\n".join(map(json.dumps, rows)))
    recipe = read_command(
        None, root / "apps/configs/smoke.yaml",
        ["--config", str(root / "apps/configs/smoke.yaml"), "--device", "cpu",
         "--data.folder", str(base / "data"), "--runs", str(base), "--decoder.max_length", "400",
         "--texttok.vocab_size", "300"],
    )  # fmt: skip
    job = start(recipe)
    save_recipe(job.recipe, recipe.folder)
    make_tokenizers(job)
    return recipe.folder


@pytest.fixture
def app_here(root) -> Callable[..., SimpleNamespace]:
    """Run an app in this process, which has imported everything: `app_here("sft.py", "--help")`.

    Gives what `subprocess.run` does: `returncode`, `stdout` and `stderr`.
    """

    def run(name: str, *arguments: str) -> SimpleNamespace:
        app, said, wrong = str(root / "apps" / name), io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(root),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(wrong),
            patch.object(sys, "argv", [app, *arguments]),
            pytest.raises(SystemExit) as end,
        ):
            runpy.run_path(app, run_name="__main__")
        code = end.value.code
        return SimpleNamespace(returncode=code, stdout=said.getvalue(), stderr=wrong.getvalue())

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A Chromium; closed after each file, since others run event loops of their own."""
    from page_visit import chromium

    with chromium() as opened:
        yield opened


@pytest.fixture
def guest(browser: "Browser") -> Iterator["Visit"]:
    """A visit to the service's page, over a fake service."""
    from page_visit import visit

    with visit(browser) as opened:
        yield opened
