"""Packages of others, installed and named in YAML, take a part's place in a run."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import warm
import yaml
from PIL import Image

from cm3leon.stages import read_object

SMOKE = ["--config", "apps/configs/smoke.yaml", "--device", "cpu"]
LITTLE = ["--evaluation.samples=2", "--evaluation.sweep_samples=1", "--evaluation.pictures=1"]
LITTLE += ["--evaluation.control_samples=1", "--evaluation.candidates=1"]
"""Of the report, which does not matter here."""


class Part(NamedTuple):
    """A package of someone else."""

    folder: Path
    recipe: Path
    class_path: str
    stage: str
    environment: dict[str, str]
    """Where its installed copy is found, and not its sources."""


@pytest.fixture(
    scope="module",
    params=[
        ("colour-encoder", "encoder.yaml", "colour_encoder.ColourEncoder", "clip"),
        ("patch-tokenizer", "patches.yaml", "patch_tokenizer.PatchTokenizer", "imagetok"),
    ],
    ids=lambda parameter: parameter[0],
)
def part(request, root, tmp_path_factory) -> Part:
    name, recipe, class_path, stage = request.param
    folder, site = root / "examples" / name, tmp_path_factory.mktemp("site")
    install = ["uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--python"]
    install += [sys.executable, "--target", str(site), str(folder)]
    subprocess.run(install, check=True, cwd=site)
    known = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(known)}
    return Part(folder, folder / recipe, class_path, stage, environment)


@pytest.fixture(scope="module")
def run(part, root, tmp_path_factory) -> Path:
    """A finished run of a recipe that names the part, by YAML alone."""
    runs = tmp_path_factory.mktemp("runs")
    command = [sys.executable, str(root / "apps/pretrain.py"), *SMOKE, *LITTLE]
    command += ["--config", str(part.recipe), "--runs", str(runs)]
    done = warm.run(command, cwd=root, env=part.environment)
    assert done.returncode == 0, done.stderr
    return runs / "smoke"


def test_a_part_is_a_package_of_under_60_lines(part):
    sources = list(part.folder.glob("src/**/*.py"))
    assert 0 < sum(len(path.read_text().splitlines()) for path in sources) < 60
    assert len((part.folder / "README.md").read_text().splitlines()) <= 20
    text = "\n".join(path.read_text() for path in sources)
    assert "import cm3" not in text and "from cm3" not in text


@pytest.mark.slow
def test_its_own_tests_pass_on_the_installed_package(part, root):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [str(part.folder / "tests")]
    done = subprocess.run(command, cwd=root, env=part.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_run_is_made_with_it(part, run):
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    named = recipe["retrieval"]["encoder"], recipe["imagetok"]["tokenizer"]
    assert [spec["class_path"] for spec in named if spec] == [part.class_path]
    assert not list((run / part.stage).glob("*/*.safetensors"))  # nothing was trained in its place
    made = {"clip": "imagetok", "imagetok": "clip"}[part.stage]
    assert list((run / made).glob("*/*.safetensors"))
    assert read_object(run / "report.json", "decoder")["decoder"]["heldout_bits_per_code"] > 0


@pytest.mark.slow
def test_the_run_draws_with_it_where_it_is_trusted(part, run, root, tmp_path):
    out = tmp_path / "drawn.png"
    command = [sys.executable, str(root / "apps/generate.py"), "--run", str(run)]
    command += ["--prompt", "red apple on blue", "--candidates", "2", "--out", str(out)]
    command += ["--device", "cpu"]
    refused = warm.run(command, cwd=root, env=part.environment)
    assert refused.returncode == 1 and part.class_path in refused.stderr
    assert not out.exists()
    done = warm.run([*command, "--trust"], cwd=root, env=part.environment)
    assert done.returncode == 0, done.stderr
    with Image.open(out) as picture:
        assert min(picture.size) >= 32
