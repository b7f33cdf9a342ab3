"""apps/prepare.py as its users run it: killed, on several workers, on Ray, and trained on."""

import hashlib
import io
import json
import os
import signal
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import warm
from PIL import Image

from cm3_train.shards import TokenShards
from cm3leon import parts
from cm3leon.data.pairs import read_pairs
from cm3leon.data.prepared import open_prepared, settled
from cm3leon.evaluation.subject import open_subject
from cm3leon.job import start
from cm3leon.recipe_file import read_command, save_recipe
from cm3leon.run import make_encoder
from cm3leon.tokenizer_stages import make_tokenizers

TARS, PICTURES = 6, 70
"""Of each tar some pictures fill a batch, and some are left."""
COLOURS = ("red", "green", "blue", "black", "orange", "purple", "brown", "grey")
SMOKE = ["--config", "apps/configs/smoke.yaml", "--seed", "1", "--device", "cpu"]

pytestmark = pytest.mark.slow


def run(root, app, *arguments, **options):
    command = [sys.executable, str(root / "apps" / app), *map(str, arguments)]
    return warm.run(command, cwd=root, **options)


def picture(rng: np.random.Generator) -> tuple[bytes, str, list[list[float]]]:
    """A coloured box on white, its caption, and where it is."""
    width, height = (int(side) for side in rng.integers(30, 60, 2))
    pixels = np.full((height, width, 3), 255, np.uint8)
    x, y = int(rng.integers(0, width - 12)), int(rng.integers(0, height - 12))
    colour = COLOURS[int(rng.integers(len(COLOURS)))]
    pixels[y : y + 12, x : x + 12] = Image.new("RGB", (1, 1), colour).getpixel((0, 0))
    pixels[:, : int(rng.integers(1, 9))] = rng.integers(0, 255, 3)  # so that no two are alike
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue(), f"a {colour} box {int(rng.integers(1000))}", [[x, y, x + 12, y + 12]]


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Tars as img2dataset writes them; one picture is broken, some may not be used."""
    folder, rng = tmp_path_factory.mktemp("raw"), np.random.default_rng(0)
    for tar in range(TARS):
        with tarfile.open(folder / f"{tar:05}.tar", "w") as archive:
            for number in range(PICTURES):
                content, caption, boxes = picture(rng)
                facts = {"boxes": boxes, "licence": "CC0" if number % 7 else "none", "url": "u"}
                if (tar, number) == (2, 5):
                    content = content[:100]
                told = json.dumps(facts).encode()
                for name, part in (("png", content), ("txt", caption.encode()), ("json", told)):
                    info = tarfile.TarInfo(f"{tar * 1000 + number:09}.{name}")
                    info.size = len(part)
                    archive.addfile(info, io.BytesIO(part))
    return folder


@pytest.fixture(scope="module")
def parted(root, raw, tmp_path_factory) -> Path:
    """A run that has gone as far as its CLIP, on a sample of the raw pairs."""
    base = tmp_path_factory.mktemp("parted")
    done = run(root, "prepare.py", "--source", raw, "--folder", base / "sample", "--sample", 90)
    assert done.returncode == 0 and "90 pairs" in done.stdout, done.stderr
    sample = read_pairs(base / "sample")
    assert len(sample) == 90 and all(sample.boxes)
    recipe = read_command(
        None, root / "apps/configs/smoke.yaml",
        [*SMOKE, "--data.folder", str(base / "sample"), "--runs", str(base), "--decoder.views=2"],
    )  # fmt: skip
    job = start(recipe)
    save_recipe(job.recipe, recipe.folder)
    tokenizers, pictures = make_tokenizers(job)
    make_encoder(job, pictures, tokenizers)
    return recipe.folder


def command(raw, parted, folder, *more):
    return ["--source", raw, "--folder", folder, "--parts", parted, "--licences", "cc0",
            "--pictures", 20, "--data.validation_share", 0.1, "--data.test_share", 0.1,
            *more]  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of everything that was made but how long it took."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in ("speed.json", ".lock")
    }


@pytest.fixture(scope="module")
def unbroken(root, raw, parted, tmp_path_factory) -> Path:
    """A folder that one worker has prepared undisturbed."""
    folder = tmp_path_factory.mktemp("prepared") / "unbroken"
    done = run(root, "prepare.py", *command(raw, parted, folder, "--workers", 1))
    assert done.returncode == 0, done.stderr
    assert "memory: each of 1 workers about" in done.stdout
    return folder


@pytest.mark.apps
def test_what_is_prepared(unbroken, raw):
    report = json.loads((unbroken / "report.json").read_text())
    other = TARS * PICTURES // 7
    assert report["records"] == TARS * PICTURES and report["quarantined"] == 1
    assert report["left_out_by_licence"] == {"none": other}
    assert report["pairs"] == TARS * PICTURES - 1 - other == sum(report["splits"].values())
    assert report["licences"] == {"CC0": report["pairs"]}
    assert sum(report["aspect_ratios"].values()) == sum(report["caption_ids"].values())
    boxes = report["boxes"]
    assert boxes["kept"] == boxes["given"] - boxes["cropped_away"] > 0
    (bad,) = (unbroken / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(bad)["key"] == "00002.tar/000002005"
    with Image.open(unbroken / "report.png") as sheet:
        assert min(sheet.size) > 100
    assert not (unbroken / "work").exists()

    prepared = open_prepared(unbroken)
    recipe, _ = settled(read_command(
        None, Path("none"), [*SMOKE, "--data.prepared", str(unbroken)]
    ))  # fmt: skip
    assert recipe.decoder.views == 2
    shards = TokenShards(unbroken / "shards" / "tokens")
    keys = np.concatenate(list(prepared.keys.values()))
    assert sorted(keys) == sorted(shards.keys) and len(keys) == report["pairs"]
    views = {name: {shards.num_views(int(k)) for k in own} for name, own in prepared.keys.items()}
    assert views == {"train": {2}, "validation": {1}, "test": {1}}
    # the sample's pixels are the pictures whose codes are in the shards
    device = start(recipe).device
    image = parts.open_image_tokenizer(recipe, device)
    tokenizers = parts.join_tokenizers(
        parts.open_text_tokenizer(recipe), image, recipe, device
    )  # fmt: skip
    pairs = prepared.pictures.pairs
    codes = tokenizers.encode(prepared.pictures.pixels(np.arange(len(pairs))))
    for row, key in enumerate(pairs.keys.tolist()):
        assert np.array_equal(codes[row], shards.codes(key))
        assert shards.caption(key) == pairs.captions[row]
        assert tokenizers.text.decode(shards.text_ids(key)) == pairs.captions[row]
        assert (shards.source(key), shards.licence(key)) == ("u", "CC0")
    # a held-out pair has neighbours, all of them in training
    training = set(prepared.keys["train"].tolist())
    for key in prepared.keys["test"].tolist():
        found = prepared.neighbours.inference.candidates(key)
        assert set(found["text"]) | set(found["image"]) <= training and len(found["image"])


def children(process: int) -> list[int]:
    return [int(child) for child in
            Path(f"/proc/{process}/task/{process}/children").read_text().split()]  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in Linux's /proc")
def test_killed_driver_and_workers_end_in_the_same_bytes(root, raw, parted, unbroken, tmp_path):
    """A worker dies in each pass, and then the driver; each time within a shard."""
    folder = tmp_path / "killed"
    arguments = [sys.executable, str(root / "apps/prepare.py"),
                 *map(str, command(raw, parted, folder, "--workers", 2))]  # fmt: skip

    def sealed(task: str) -> int:
        return len(list(folder.glob(f"work/{task}/*/manifest.json")))

    for task in ("encoded", "finished"):
        with warm.Popen(arguments, cwd=root) as job:

            def wait_for(count: int, job=job, task=task) -> None:
                while sealed(task) < count and job.poll() is None:
                    time.sleep(0.002)
                assert job.poll() is None

            wait_for(1)
            before = children(job.pid)
            worker = next(pid for pid in before if "spawn_main" in command_line(pid))
            os.kill(worker, signal.SIGKILL)
            wait_for(3)
            assert any(pid not in before for pid in children(job.pid))  # another in its place
            workers = [pid for pid in children(job.pid) if "spawn_main" in command_line(pid)]
            job.send_signal(signal.SIGKILL)
            assert job.wait() == -signal.SIGKILL
        deadline = time.monotonic() + 20
        while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(alive(pid) for pid in workers)  # none works on without a driver
        assert sealed(task) < TARS
    last = warm.run(arguments, cwd=root)
    assert last.returncode == 0, last.stderr
    assert digests(folder) == digests(unbroken)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


DYING = """
import os, runpy, sys
from cm3leon.preparation.worker import Worker

Worker.encode = lambda self, *shard: os._exit(9)  # in each worker, which imports this file, too
if __name__ == "__main__":
    runpy.run_path(sys.argv[1])["main"](sys.argv[2:])
"""


def test_a_shard_whose_workers_all_die_is_named(root, raw, parted, tmp_path):
    script, app = tmp_path / "dying.py", root / "apps/prepare.py"
    script.write_text(DYING)
    arguments = command(raw, parted, tmp_path / "dead", "--workers", 1, "--attempts", 2)
    done = warm.run(
        [sys.executable, str(script), str(app), *map(str, arguments)],
        cwd=root,
    )
    died = "RuntimeError: shard 0: its worker died 2 times, at last with exit status 9"
    assert done.returncode == 1 and died in done.stderr


def test_a_finished_folder_is_kept_and_another_job_refused(root, raw, parted, unbroken):
    before = digests(unbroken)
    again = run(root, "prepare.py", *command(raw, parted, unbroken, "--workers", 2))
    assert again.returncode == 0 and "done before, kept" in again.stdout, again.stderr
    other = run(root, "prepare.py", *command(raw, parted, unbroken, "--fit", "pad"))
    assert other.returncode == 1 and "made from other settings" in other.stderr
    assert digests(unbroken) == before


def test_ray_makes_the_same_bytes(root, raw, parted, unbroken, tmp_path):
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    folder = tmp_path / "by-ray"
    # Ray's sockets lie in its folder, and a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as own:
        done = run(
            root, "prepare.py", *command(raw, parted, folder, "--engine", "ray", "--workers", 2),
            env={**os.environ, "RAY_TMPDIR": own},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert digests(folder) == digests(unbroken)


@pytest.mark.apps
def test_a_run_trains_on_it_and_draws(root, unbroken, tmp_path):
    arguments = [*SMOKE, "--runs", tmp_path, "--data.prepared", unbroken]
    done = run(root, "pretrain.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": starts") == 3  # prepared, decoder, report
    made = tmp_path / "smoke"
    report = json.loads((made / "report.json").read_text())
    assert 0 < report["decoder"]["heldout_bits_per_code"] < 20
    assert not (made / "imagetok").exists() and not (made / "shards").exists()
    subject = open_subject(made, "cpu")
    assert set(subject.pictures.pairs.split) == {"train", "validation", "test"}
    drawn = run(root, "generate.py", "--run", made, "--prompt", "a red box", "--device", "cpu",
                "--candidates", 1, "--out", tmp_path / "drawn.png")  # fmt: skip
    assert drawn.returncode == 0 and (tmp_path / "drawn.png").is_file(), drawn.stderr
    again = run(root, "pretrain.py", *arguments)
    assert again.stdout.count("done before, kept") == 3
    shorter = run(root, "pretrain.py", *arguments, "--decoder.max_length", 100)
    assert "decoder.max_length: wanted at least 320" in shorter.stderr
    tokenizer = run(root, "train_imagetok.py", *arguments)
    assert "data.prepared: wanted null" in tokenizer.stderr
    # another folder under the same name is not what the run was trained on
    file = unbroken / "prepared.json"
    whole = file.read_text()
    try:
        file.write_text(json.dumps({**json.loads(whole), "fingerprint": "another"}))
        with pytest.raises(ValueError, match="trained on another"):
            parts.open_parts(made, "cpu")
        file.unlink()
        with pytest.raises(FileNotFoundError, match="apps/prepare.py has finished"):
            parts.open_parts(made, "cpu")
    finally:
        file.write_text(whole)
