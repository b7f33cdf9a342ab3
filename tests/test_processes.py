"""The same command in several processes: the first makes the stages, all train the decoder."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from cm3_model import load_decoder
from cm3_train import read_history
from cm3leon import processes
from cm3leon.job import start
from cm3leon.processes import fit_options, is_first
from cm3leon.recipe import DecoderRecipe, Recipe
from cm3leon.stages import Stages
from cm3leon.trainer_recipe import TrainerRecipe

SMOKE = [
    "--config", "apps/configs/smoke.yaml", "--device", "cpu", "--precision", "32-true",
    "--evaluation.samples=2", "--evaluation.sweep_samples=1", "--evaluation.control_samples=1",
    "--evaluation.candidates=1", "--evaluation.pictures=1",
]  # fmt: skip
NAMES = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_NTASKS", "SLURM_PROCID")
SRUN = """#!/usr/bin/env bash
# What srun does, on one machine.
shift
for rank in $(seq 0 $((SLURM_NTASKS - 1))); do
  SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODEID=0 SLURM_NODELIST=localhost "$@" &
  tasks="${tasks:-} $!"
done
for task in $tasks; do wait "$task" || exit $?; done
"""


@pytest.mark.parametrize(
    ("values", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),  # the first of the second node
        ({"SLURM_NTASKS": "16", "SLURM_PROCID": "0"}, True),
        ({"SLURM_NTASKS": "16", "SLURM_PROCID": "8"}, False),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, False),  # as Lightning starts it
        ({"NODE_RANK": "1"}, False),
    ],
)
def test_the_first_process_is_known_by_its_launcher(monkeypatch, values, first):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert is_first() == first


@pytest.mark.filterwarnings("ignore:_SixMetaPathImporter:ImportWarning")  # Lightning's import
def test_one_process_alone_heeds_no_launcher(monkeypatch):
    """As torchrun's first process, which trains the image tokenizer while the others wait."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    many = TrainerRecipe(devices=2, keep_last=3)
    alone = fit_options(torch.device("cpu"), many, together=False)
    assert alone["devices"] == 1 and "strategy" not in alone and alone["keep_last"] == 3
    both = fit_options(torch.device("cpu"), many, together=True)
    assert (both["devices"], both["strategy"]) == (2, "ddp")
    sharded = TrainerRecipe(devices=4, num_nodes=2, strategy="fsdp2", tensor_parallel=2)
    strategy = fit_options(torch.device("cpu"), sharded, together=True)["strategy"]
    assert (strategy._data_parallel_size, strategy._tensor_parallel_size) == (4, 2)
    assert processes.own_device(torch.device("cuda"), many) == torch.device("cuda", 0)
    assert processes.own_device(torch.device("cpu"), many) == torch.device("cpu")


def test_the_others_wait_for_a_stage_and_take_part_in_one(tmp_path):
    worked, made = [], []
    first = Stages(tmp_path / "run")

    def follow():
        other = Stages(tmp_path / "run", first=False)
        alone = other.run("alone", 1, [], lambda out: worked.append("other alone"))
        both = other.run("both", 2, ["alone"], lambda out: worked.append("other both"),
                         resumable=True, together=True)  # fmt: skip
        made.extend([alone.fingerprint, both.fingerprint])

    other = threading.Thread(target=follow)
    other.start()
    time.sleep(0.5)
    assert not made
    stages = [first.run("alone", 1, [], lambda out: worked.append("first alone"))]

    def long(out):
        worked.append("first both")
        while "other both" not in worked:
            time.sleep(0.01)

    stages.append(first.run("both", 2, ["alone"], long, resumable=True, together=True))
    other.join(timeout=20)
    assert sorted(worked) == ["first alone", "first both", "other both"]
    assert made == [stage.fingerprint for stage in stages]
    assert all(json.loads((tmp_path / f"run/{name}/stage.json").read_text()) for name in
               ("alone", "both"))  # fmt: skip


def test_a_folder_that_nobody_works_in_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("cm3leon.stages.FIRST_SECONDS", 0.3)
    with pytest.raises(FileNotFoundError, match="elsewhere: wanted the folder in which the first"):
        Stages(tmp_path / "elsewhere", first=False)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trainer": TrainerRecipe(loggers=({"class_path": "nowhere.Logger"},))}, "nowhere.Logger"),
        ({"decoder": DecoderRecipe(init_from=Path("nowhere"))}, "nowhere/config.json"),
    ],
)
def test_what_the_decoder_would_stumble_over_is_told_before_any_work(tmp_path, values, message):
    recipe = Recipe(runs=tmp_path, device="cpu", **values)
    with pytest.raises(ValueError, match=message):
        start(recipe)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def torchrun(root, tmp_path_factory):
    """A finished run of two processes by the file that the docs show."""
    runs = tmp_path_factory.mktemp("runs")
    command = [str(root / "examples/torchrun.sh"), *SMOKE, "--runs", str(runs)]
    environment = os.environ | {"GPUS": "2", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return runs / "smoke", done


@pytest.mark.slow
def test_torchrun_makes_each_stage_once_and_trains_in_both(torchrun):
    run, done = torchrun
    for stage in ("data", "imagetok", "decoder", "report"):
        assert done.stdout.count(f"{stage}: starts\n") == 1
    assert (run / "samples.png").exists()
    state = torch.load(run / "decoder" / "last.ckpt", weights_only=True)
    kept = next(v for name, v in state["callbacks"].items() if "RunCheckpoints" in name)
    assert len(kept["rng"]) == 2  # of both processes


@pytest.mark.slow
@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_models_in_parts_train_likewise(root, torchrun, tmp_path, tensor_parallel):
    """FSDP2, and tensor parallelism: the weights that are saved are whole."""
    run = tmp_path / "smoke"
    shutil.copytree(torchrun[0], run)
    shutil.rmtree(run / "decoder")
    command = [str(root / "examples/torchrun.sh"), *SMOKE, "--runs", str(tmp_path)]
    command += ["--trainer.strategy=fsdp2", f"--trainer.tensor_parallel={tensor_parallel}"]
    environment = os.environ | {"GPUS": "2", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert len(list((run / "decoder" / "last.ckpt").glob("*.distcp"))) == 2
    mine, theirs = read_history(run / "decoder"), read_history(torchrun[0] / "decoder")
    for step, figures in theirs.items():
        for name in (name for name in figures if name.startswith("val/")):
            assert mine[step][name] == pytest.approx(figures[name], rel=1e-4), (step, name)
    whole, other = (load_decoder(one / "decoder" / "model") for one in (run, torchrun[0]))
    for name, weight in whole.state_dict().items():
        gap = (weight - other.state_dict()[name]).norm() / weight.norm()
        # Muon brings what is near rounding in a gradient to the size of the rest; others' is 1.4
        assert gap < (0.1 if "blocks" in name else 0.01), (name, gap)


@pytest.mark.slow
def test_slurm_trains_likewise(root, torchrun, tmp_path):
    """The batch file, with a stand-in for srun; the stages before the decoder are there."""
    run = tmp_path / "smoke"
    shutil.copytree(torchrun[0], run)
    shutil.rmtree(run / "decoder")
    (tmp_path / "bin").mkdir()
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/sh\necho requeued $@\n"}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1", "SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "cm3leon",
    }  # fmt: skip
    command = [str(root / "examples/slurm.sbatch"), *SMOKE, "--runs", str(tmp_path)]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert "decoder: starts" in done.stdout and "imagetok: done before" in done.stdout
    mine, theirs = read_history(run / "decoder"), read_history(torchrun[0] / "decoder")
    assert sorted(mine) == sorted(theirs)
    for step, figures in theirs.items():
        for name in (name for name in figures if name.startswith("val/")):
            assert mine[step][name] == pytest.approx(figures[name], rel=1e-4), (step, name)
