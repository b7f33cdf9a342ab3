"""The main job on a few pictures: it ends, is kept, survives kills, and refuses wrong input."""

import hashlib
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import warm
import yaml
from PIL import Image

from cm3_imagetok import load_image
from cm3_train import read_history
from cm3leon.data.tokens import sequence_builder
from cm3leon.drawing.describe import read_picture
from cm3leon.drawing.draw import after_documents, draw
from cm3leon.drawing.prompts import image_prompts, retrieve, retrieve_for_caption
from cm3leon.drawing.teach import keep, learn, recall
from cm3leon.evaluation.bits import bits_per_code
from cm3leon.evaluation.subject import open_subject
from cm3leon.parts import open_parts
from cm3leon.recipe_file import read_recipe
from cm3leon.stages import read_object
from cm3leon.trainer_recipe import TrainerRecipe
from cm3leon.training.decoder import decoder_module
from cm3leon.training.initial_weights import start_from
from cm3leon.training.sequences import training_batches, training_sequences

SMOKE = ["--config", "apps/configs/smoke.yaml"]
LITTLE = [
    "--evaluation.samples=2", "--evaluation.sweep_samples=1", "--evaluation.control_samples=1",
    "--evaluation.candidates=1", "--evaluation.pictures=1",
]  # fmt: skip
"""Of the report, where it does not matter."""


LOGGER = """
from lightning.pytorch.loggers import Logger
import warm

class Lines(Logger):
    def __init__(self, path):
        super().__init__()
        self.path = path
    name, version = "lines", 0
    def log_hyperparams(self, params, *args, **kwargs):
        pass
    def log_metrics(self, metrics, step=None):
        with open(self.path, "a") as file:
            print(step, metrics, file=file)
"""


def command(root, runs, *arguments):
    return [sys.executable, str(root / "apps/pretrain.py"), *SMOKE, "--runs", str(runs), *arguments]


def pretrain(root, runs, *arguments, **options):
    return warm.run(command(root, runs, *arguments), cwd=root, **options)


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of what a run is for: its models, tokens and memory."""
    kept = [*run.glob("*/*/*.safetensors"), *run.glob("*/*/*.arrow"), *run.glob("*/*/*.faiss")]
    assert len(kept) >= 5
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}


@pytest.fixture(scope="module")
def unbroken(smoke_run) -> Path:
    """A finished run that nobody disturbed."""
    return smoke_run


@pytest.mark.slow
@pytest.mark.apps
def test_a_run_leaves_checkpoint_report_pictures_and_logs(unbroken):
    for name in ("samples.png", "curves.png"):
        with Image.open(unbroken / name) as picture:
            assert min(picture.size) > 100
    report = json.loads((unbroken / "report.json").read_text())
    decoder, samples = report["decoder"], report["samples"]
    assert report["wall_seconds"] > sum(report["stages"].values()) > 0
    assert {
        "data",
        "pictures",
        "texttok",
        "imagetok",
        "clip",
        "retrieval",
        "shards",
        "decoder",
    } < set(report["stages"])
    ratio = decoder["heldout_bits_per_code"] / decoder["unigram_bits_per_code"]
    assert decoder["heldout_bits_per_code_over_unigram"] == pytest.approx(ratio)
    for part in ("combinations", "one_candidate", "no_document", "shuffled", "ceiling", "real"):
        assert all(
            0 <= report[part][name] <= 1
            for name in ("thing_top1", "thing_top5", "colour", "background")
        )
    # measured pixels, so these hold even where nothing was learnt
    assert report["real"]["background"] == 1 and report["real"]["colour"] >= 0.8
    assert report["combinations"]["candidates"] == 3
    assert {"same_thing", "same_thing_in_training"} == set(report["retrieval"])
    assert {"thing", "colour", "pictures"} == set(report["caption"])
    teach = report["teach"]
    assert teach["bits_over_untaught"] == pytest.approx(teach["bits"] / teach["untaught_bits"])
    assert samples["guidance_scale"] in [s["guidance_scale"] for s in report["sweep"]]
    figures = {
        f"{part}.{name}"
        for part, values in report.items()
        if isinstance(values, dict)
        for name in values
    }
    assert {name for name in report["how"] if "." in name} <= figures
    assert "CC BY-SA" in report["credit"]
    for stage in ("imagetok", "decoder"):
        assert list((unbroken / stage).glob("csv/*/metrics.csv"))
        assert list((unbroken / stage).glob("tensorboard/**/events*"))
    assert (unbroken / "decoder" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_candidates_take_the_samplers_in_turn_and_clip_judges_them(unbroken):
    parts = open_parts(unbroken, "cpu")
    captions = ["red apple", "a fox"]
    seeds = np.array([[500, 501, 502], [503, 504, 505]])
    drawn = draw(parts, captions, retrieved=1, seeds=seeds)
    assert drawn.pixels.shape == (2, 3, 32, 32, 3)
    samplers = parts.habits.samplers
    assert [sampler.sampler for sampler in samplers] == ["top-p", "cd-k"]
    for candidate, sampler in enumerate([samplers[0], samplers[1], samplers[0]]):
        for row in range(2):
            alone = draw(
                parts,
                captions[row : row + 1],
                contexts=[drawn.contexts[row]],
                samplers=[sampler],
                seeds=seeds[row : row + 1, candidate : candidate + 1],
            )
            ours, theirs = drawn.pixels[row, candidate], alone.pixels[0, 0]
            assert np.abs(ours.astype(int) - theirs).max() <= 1  # the batch rounds otherwise
    pixels, vectors = drawn.best
    for row, caption in enumerate(captions):
        seen = parts.encoder.encode_images(list(drawn.pixels[row]))
        best = int(np.argmax(seen @ parts.encoder.encode_texts([caption])[0]))
        assert np.array_equal(pixels[row], drawn.pixels[row, best])
        assert np.allclose(vectors[row], seen[best], atol=1e-5)
    with pytest.raises(ValueError, match="candidates: wanted at least 1"):
        draw(parts, captions, seeds=np.empty((2, 0)))


@pytest.mark.slow
@pytest.mark.apps
def test_a_taught_picture_stands_before_prompts_that_name_it(unbroken, tmp_path, generate):
    picture = tmp_path / "zorp.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(picture)
    files = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*") if path.is_file()}
    options = ["--candidates", "1", "--device", "cpu", "--retrieve", "1"]
    options += ["--teach", str(picture), "--as", "zorp", "--out", str(tmp_path / "drawn.png")]
    done = generate(unbroken, *options, "--prompt", "a blue Zorp on yellow")
    assert done.returncode == 0 and "retrieved: zorp" in done.stdout, done.stderr
    assert (tmp_path / "drawn.png").is_file()
    assert files == {
        path: path.stat().st_mtime_ns for path in unbroken.rglob("*") if path.is_file()
    }

    parts = open_parts(unbroken, "cpu")
    taught = learn(parts, load_image(picture), "zorp")
    assert parts.memory.taught == () and len(taught.memory.taught) == 1
    (key,) = retrieve_for_caption(taught, "a blue Zorp on yellow", 1)
    own = parts.habits.samplers
    behind = [after_documents(taught, [key], one) for one in own]
    assert {one.image_guidance_scale for one in behind} == {2.0}
    named = replace(own[0], image_guidance_scale=1.5)
    for others in ([], [int(parts.memory.bank.keys[0])]):
        assert [after_documents(taught, others, one) for one in own] == list(own)
    assert after_documents(taught, [key], named) == named
    made = image_prompts(taught, ["a blue zorp", "a fox"], [[key], []])
    for one in behind:
        bare, with_documents = made.other_streams(one, [0, 1])
        assert [len(p) for p in bare] == [len(bare[1])] * 2  # neither caption nor document
        assert len(with_documents[0]) > len(bare[0]) and torch.equal(with_documents[1], bare[1])
    for one in parts.habits.samplers:  # the paper's: the documents are in both streams
        bare, with_documents = made.other_streams(one, [0, 1])
        assert all(map(torch.equal, bare, with_documents))
    documents = taught.memory.documents
    assert documents.caption(key) == "zorp"
    _, codes = read_picture(parts.tokenizers, load_image(picture))
    assert np.array_equal(documents.codes(key), codes)
    others = [retrieve_for_caption(known, "red fox on green", 1) for known in (parts, taught)]
    assert key not in others[0] and len(others[1]) == 1
    # its vector finds it too, and the other documents are still there
    assert key in retrieve(taught, "image", taught.memory.taught[0].vector, 2)
    assert np.array_equal(documents.codes(others[0][0]), parts.memory.documents.codes(others[0][0]))

    keep(unbroken, load_image(picture), "zorp", parts.tokenizers.size)
    keep(unbroken, load_image(picture), "zorp", parts.tokenizers.size)  # twice is once
    again = recall(open_parts(unbroken, "cpu"), unbroken)
    assert [one.text for one in again.memory.taught] == ["zorp"]
    (unbroken / "taught" / "metadata.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="metadata.jsonl:1: wanted the field 'file_name'"):
        recall(parts, unbroken)
    shutil.rmtree(unbroken / "taught")
    with pytest.raises(ValueError, match="text: wanted a name"):
        learn(parts, load_image(picture), "  ")
    with pytest.raises(ValueError, match="text: wanted at most"):
        learn(parts, load_image(picture), "zorp " * 300)


@pytest.mark.slow
def test_held_out_pairs_and_prompts_have_one_layout(unbroken):
    """With two documents, the best last, and where they do not all fit, the worst left out."""
    subject = open_subject(unbroken, "cpu")
    parts, pairs = subject.parts, subject.pictures.pairs
    words, documents = parts.tokenizers.vocabulary, parts.memory.documents
    rows = pairs.rows("test")

    def context(row):
        return subject.neighbours.for_caption(int(pairs.keys[row]), 2)

    def drawn_sequence(parts, row):
        made = image_prompts(parts, [pairs.captions[row]], [context(row)])
        (prompt,), (kept,) = made.conditional, made.kept
        codes = words.codes_to_ids(documents.codes(int(pairs.keys[row])))
        return np.concatenate([prompt.numpy(), codes, [words.eos_id]]), kept

    seen = set()
    for max_length in (24, 40, 45, 50, 60, 70, 320):
        shorter = SimpleNamespace(config=SimpleNamespace(max_length=max_length))
        build = sequence_builder(
            parts.tokenizers,
            documents,
            lambda key, epoch: context(int(np.flatnonzero(pairs.keys == key)[0])),
            None,
            max_length=max_length,
            seed=0,
        )
        for row in rows:
            ids, kept = drawn_sequence(replace(parts, model=shorter), row)
            if len(ids) <= max_length:
                np.testing.assert_array_equal(build(int(pairs.keys[row]), 0).ids, ids)
                assert kept == context(row)[len(context(row)) - len(kept) :]
                seen.add(len(kept))
    assert seen == {0, 1, 2}

    nats, count = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            ids = torch.from_numpy(drawn_sequence(parts, row)[0])
            logits = parts.model(ids[None, :-1])[0].log_softmax(-1)
            answer = slice(len(ids) - 1 - parts.tokenizers.num_codes_per_image, len(ids) - 1)
            labels = ids[answer]
            nats -= float(
                logits[answer.start - 1 : answer.stop - 1].gather(1, labels[:, None]).sum()
            )
            count += len(labels)
    bits = bits_per_code(parts, pairs, rows, context)
    assert bits == pytest.approx(nats / count / math.log(2), rel=1e-5)


@pytest.mark.slow
def test_the_report_says_how_often_the_objective_masks_whole_captions(unbroken):
    """Guidance needs a stream without the text: training must show it."""
    found = read_object(unbroken / "report.json")["objective"]
    cm3 = read_recipe(unbroken).decoder.cm3
    assert found["sequences"] > 10
    for name, chance in (
        ("cut_share", cm3.mask_probability),
        ("whole_caption_share", cm3.mask_probability * cm3.whole_text_probability),
    ):
        spread = 4 * math.sqrt(chance * (1 - chance) / found["sequences"])
        assert chance - spread <= found[name] <= chance + spread + 0.1  # random spans hit some, too


@pytest.mark.slow
def test_a_recipe_can_pack_its_sequences(unbroken):
    subject = open_subject(unbroken)
    recipe = replace(read_recipe(unbroken).decoder, packed_length=700, batch_size=2)
    pairs, parts = subject.pictures.pairs, subject.parts
    sequences = training_sequences(
        recipe, parts.tokenizers, parts.memory.documents, subject.neighbours, 0
    )
    pad_id = parts.tokenizers.vocabulary.pad_id
    batches = training_batches(recipe, sequences, pairs.keys[pairs.rows("train")], 0, pad_id=pad_id)
    batch = next(iter(batches))
    assert batch["input_ids"].shape == (2, 700) and float(batch["padding"]) < 0.2
    longest = int(batch["documents"].max(1).values.min())
    assert longest >= 3  # sequences a row, of one pair or two
    hidden = subject.parts.model.hidden(batch["input_ids"], batch["documents"])
    assert bool(hidden.isfinite().all())


@pytest.mark.slow
@pytest.mark.parametrize("packed_length", [None, 640])
def test_a_batch_in_tokens_is_the_same_however_it_is_shared(unbroken, packed_length):
    subject = open_subject(unbroken)
    recipe = replace(
        read_recipe(unbroken).decoder, batch_size=2, max_length=320, packed_length=packed_length,
        tokens_per_step=8 * (packed_length or 320),
    )  # fmt: skip

    pairs, parts = subject.pictures.pairs, subject.parts
    keys = pairs.keys[pairs.rows("train")]
    sequences = training_sequences(
        recipe, parts.tokenizers, parts.memory.documents, subject.neighbours, 0
    )
    pad_id = parts.tokenizers.vocabulary.pad_id

    def steps(ranks):
        """Keys of three steps, in the order of their rows; packed, with the rows themselves."""
        streams = [
            iter(
                training_batches(recipe, sequences, keys, 0, pad_id=pad_id, rank=rank, ranks=ranks)
            )
            for rank in range(ranks)
        ]
        for _ in range(3):
            batches = [[next(one) for one in streams] for _ in range(recipe.accumulate(ranks))]
            taken = sorted(int(key) for part in batches for b in part for key in b["keys"])
            rows = sorted(r.tolist() for part in batches for b in part for r in b["input_ids"])
            yield taken, rows if packed_length else None

    wanted = list(steps(1))
    assert [recipe.accumulate(ranks) for ranks in (1, 2, 4)] == [4, 2, 1]
    assert list(steps(2)) == wanted and list(steps(4)) == wanted


def named_tokenizers(run):
    """Options that give a run the tokenizers of another one."""
    named = {
        "texttok": ("cm3_texttok.load_text_tokenizer", run / "texttok" / "tokenizer"),
        "imagetok": ("cm3_imagetok.load_vqgan", run / "imagetok" / "vqgan"),
    }
    return [
        f"--{part}.tokenizer={json.dumps({'class_path': path, 'init_args': {'folder': str(at)}})}"
        for part, (path, at) in named.items()
    ]


@pytest.mark.slow
def test_weights_of_a_run_draw_elsewhere_what_they_drew_before_the_first_step(unbroken):
    """The complaint of Infinity's issue 29: fine-tuned, it drew noise."""
    parts = open_parts(unbroken)
    recipe = replace(read_recipe(unbroken).decoder, init_from=unbroken / "decoder" / "model")
    module = decoder_module(recipe, parts.tokenizers, 5, TrainerRecipe())
    captions = ["red fox on blue", "green boat on white"]
    for options in ({"contexts": [[], []]}, {"retrieved": 1}):
        wanted = draw(parts, captions, **options)
        found = draw(replace(parts, model=module.kept_model.eval()), captions, **options)
        np.testing.assert_array_equal(found.pixels, wanted.pixels)
    new = decoder_module(replace(recipe, init_from=None), parts.tokenizers, 5, TrainerRecipe())
    other = draw(replace(parts, model=new.kept_model.eval()), captions, contexts=[[], []])
    assert (other.pixels != wanted.pixels).any()


@pytest.mark.slow
def test_a_run_goes_on_from_the_weights_of_another_one(root, unbroken, tmp_path):
    weights = f"--decoder.init_from={unbroken / 'decoder' / 'model'}"
    options = [*named_tokenizers(unbroken), *LITTLE, "--seed=3", "--decoder.optim.lr=0.0001"]
    options += ["--decoder.optim.muon_lr=0.0005", "--decoder.optim.ema_decay=0"]
    options += ["--decoder.val_every=2", "--decoder.sample_every=2", "--decoder.sample_count=2"]
    theirs = {"save_dir": str(tmp_path / "mine"), "name": "here"}
    loggers = [
        {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": theirs},
        {"class_path": "my_logger.Lines", "init_args": {"path": str(tmp_path / "lines")}},
    ]
    (tmp_path / "my_logger.py").write_text(LOGGER)
    known = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"PYTHONPATH": known}
    options += [f"--trainer.loggers={json.dumps(loggers)}", "--trainer.bad_steps=skip"]
    done = pretrain(root, tmp_path, weights, *options, env=environment)
    assert done.returncode == 0, done.stderr
    tuned, before = (read_history(run / "decoder") for run in (tmp_path / "smoke", unbroken))
    losses = [row["val/loss"] for row in tuned.values() if "val/loss" in row]
    end = [row["val/loss"] for row in before.values() if "val/loss" in row][-1]
    uniform = math.log(512 + 32)
    assert len(losses) == 3 and max(losses) < end + 0.25 * (uniform - end)
    sheets = sorted(path.name for path in (tmp_path / "smoke/decoder/samples").iterdir())
    assert sheets == ["step-000004.png", "step-000006.png"]
    assert (tmp_path / "mine/here/version_0/metrics.csv").exists()
    assert {"train/tokens_per_second", "train/peak_memory_gib"} <= set(tuned[5])
    lines = (tmp_path / "lines").read_text().splitlines()
    assert len([line for line in lines if "val/loss" in line]) == 3
    again = pretrain(root, tmp_path, weights, *options, env=environment)
    assert "decoder: done before, kept" in again.stdout, again.stderr
    deeper = [*options, "--decoder.model.num_layers=3"]
    other = pretrain(root, tmp_path, weights, *deeper, env=environment)
    assert other.returncode == 1 and "wanted num_layers 3 (there 2)" in other.stderr


@pytest.mark.slow
def test_weights_for_another_vocabulary_are_refused(unbroken):
    model = open_parts(unbroken).model
    with pytest.raises(ValueError, match="wanted weights for the vocabulary 000000.*name that run"):
        start_from(model, unbroken / "decoder" / "model", "0" * 64)


@pytest.mark.slow
def test_a_second_run_keeps_what_is_done(root, unbroken):
    before = digests(unbroken)
    again = pretrain(root, unbroken.parent)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before, kept") == 10 and "starts" not in again.stdout
    assert digests(unbroken) == before


@pytest.mark.slow
def test_killed_at_four_stages_it_ends_bit_for_bit_as_unbroken(root, unbroken, tmp_path):
    run = tmp_path / "smoke"
    moments = [
        lambda: (run / ".data.partial" / "pictures").is_dir(),
        lambda: (run / "imagetok" / "last.ckpt").is_file(),
        lambda: (run / ".clip.partial").is_dir(),
        lambda: (run / "decoder" / "last.ckpt").is_file(),
    ]
    for reached in moments:
        with warm.Popen(command(root, tmp_path, *LITTLE), cwd=root) as job:
            while not reached() and job.poll() is None:
                time.sleep(0.002)
            job.send_signal(signal.SIGKILL)
            assert job.wait() == -signal.SIGKILL
    assert not (run / "decoder" / "stage.json").exists()
    last = pretrain(root, tmp_path, *LITTLE)
    assert last.returncode == 0, last.stderr
    assert "decoder: goes on" in last.stdout
    assert digests(run) == digests(unbroken)


@pytest.mark.slow
def test_a_stopped_run_says_how_to_go_on(root, unbroken, tmp_path):
    steps = "--imagetok.optim.total_steps=100000"
    with warm.Popen(command(root, tmp_path, steps), cwd=root) as job:
        while not (tmp_path / "smoke/imagetok/last.ckpt").is_file() and job.poll() is None:
            time.sleep(0.01)
        job.send_signal(signal.SIGINT)
        _, errors = job.communicate(timeout=120)
    assert job.returncode == 128 + signal.SIGINT
    assert "the same command goes on" in errors and "Traceback" not in errors


def a_folder(path: Path, count: int = 40) -> Path:
    """Pictures of one's own, every fifth of one colour."""
    path.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for i in range(count):
        pixels = rng.integers(0, 256, (3,), dtype=np.uint8) * np.ones((24, 30, 3), np.uint8)
        Image.fromarray(pixels).save(path / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"a plain picture number {i}"}))
    (path / "metadata.jsonl").write_text("\n".join(lines))
    return path


@pytest.mark.slow
def test_ones_own_folder_with_a_broken_picture(root, tmp_path):
    folder = a_folder(tmp_path / "mine")
    (folder / "7.png").write_bytes(b"\x89PNG broken")
    with open(folder / "metadata.jsonl", "a") as file:
        file.write("\n" + json.dumps({"file_name": "3.png", "text": "picture " * 400}))
        file.write("\n" + json.dumps({"file_name": "./3.png", "text": "a plain picture"}))
    done = pretrain(
        root, tmp_path, "--data.folder", str(folder), "--texttok.vocab_size=300", "--name=mine"
    )
    assert done.returncode == 0, done.stderr
    assert "skipped 1 of 42" in done.stdout and "7.png" in done.stdout
    assert "captions: left out 1 of 41, the first: 3.png: wanted a caption of at" in done.stdout
    report = json.loads((tmp_path / "mine" / "report.json").read_text())
    assert report["split"]["skipped_pictures"] == 1
    assert "category_match" not in report["samples"]  # the folder has no categories


def test_a_missing_picture_is_one_clear_error(root, tmp_path):
    folder = a_folder(tmp_path / "mine", 5)
    (folder / "3.png").unlink()
    done = pretrain(root, tmp_path, "--data.folder", str(folder))
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith("error:") and "3.png" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_folder_is_one_clear_error(root, tmp_path):
    (tmp_path / "mine").mkdir()
    done = pretrain(root, tmp_path, "--data.folder", str(tmp_path / "mine"))
    assert done.returncode != 0 and "metadata.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "key",
    ["--decoder.colour=red", "--decoder.width=wide", "--seed=-1", "--imagetok.batch_size=0"],
)
def test_an_unknown_or_wrong_setting_is_named(root, tmp_path, key):
    done = pretrain(root, tmp_path, key)
    assert done.returncode != 0 and key.split("=")[0].split(".")[-1].strip("-") in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())


def test_a_full_disk_is_one_clear_error_and_leaves_nothing_half_written(root, tmp_path):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        command(root, tmp_path),
        cwd=root,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=small_files,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error:")
    left = {path.name for path in (tmp_path / "smoke").iterdir()}
    assert left <= {"data", "recipe.yaml", ".lock"}


@pytest.fixture
def generate(app_here):
    """`generate(run, *arguments)`: runs the app on a run."""
    return lambda run, *arguments: app_here("generate.py", "--run", str(run), *arguments)


@pytest.mark.slow
@pytest.mark.apps
@pytest.mark.parametrize("sampler", ["top-p", "cd-k", "mixed", "greedy"])
def test_generate_draws_the_same_for_the_same_seed(unbroken, tmp_path, sampler, generate):
    pictures = []
    for i in range(2):
        out = tmp_path / f"{i}.png"
        options = (
            "--prompt",
            "red apple",
            "--sampler",
            sampler,
            "--retrieve",
            "2",
            "--out",
            str(out),
        )
        count = "1" if sampler == "greedy" else "2"
        options += ("--candidates", count)
        options += () if sampler == "cd-k" else ("--guidance-scale", "2")
        done = generate(unbroken, *options)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("retrieved: ") == 2
        with Image.open(out) as picture:
            pictures.append(np.asarray(picture))
    np.testing.assert_array_equal(*pictures)


@pytest.mark.slow
@pytest.mark.apps
def test_generate_captions_and_redraws(root, unbroken, tmp_path, generate):
    file = next((unbroken / "data" / "pictures").glob("*.png"))
    options = ["--caption", str(file), "--candidates", "3", "--retrieve", "0"]
    app = [sys.executable, str(root / "apps/generate.py"), "--run", str(unbroken)]
    captions = warm.run([*app, *options], cwd=root)
    assert captions.returncode == 0, captions.stderr
    assert len(captions.stdout.splitlines()) == 3
    out = tmp_path / "redrawn.png"
    options = ["--infill", str(file), "--mask", "8,8,24,20", "--prompt", "hat", "--out", str(out)]
    best = tmp_path / "best.png"
    redrawn = generate(unbroken, *options, "--best", str(best))
    assert redrawn.returncode == 0, redrawn.stderr
    assert out.is_file()
    again = generate(unbroken, "--caption", str(best), "--candidates", "1")  # a picture like others
    assert again.returncode == 0, again.stderr
    with Image.open(file) as picture, Image.open(best) as one:
        assert one.size == picture.size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "wanted --prompt"),
        (["--prompt", "a", "--candidates", "0"], "candidates: wanted at least 1"),
        (["--infill", "README.md"], "--mask"),
        (["--caption", "README.md"], "README.md: no picture"),
        (["--caption", "gone.png"], "gone.png: no such file"),
        (["--prompt", "a", "--top-p", "2"], "--top-p: wanted"),
        (["--prompt", "a", "--run", "no/run"], "no run"),
    ],
)
def test_generate_refuses_wrong_input_clearly(unbroken, arguments, message, generate):
    done = generate(unbroken, *arguments)
    assert done.returncode != 0 and message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_run_that_names_code_of_others_is_not_opened_without_trust(unbroken, tmp_path, generate):
    run = tmp_path / "theirs"
    shutil.copytree(unbroken, run)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    made = tmp_path / "made"
    named = {"class_path": "os.mkdir", "init_args": {"path": str(made)}}
    recipe["retrieval"]["encoder"] = named
    for folder in (run, run / "decoder"):
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = generate(run, "--prompt", "a", "--out", str(tmp_path / "a.png"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "retrieval.encoder: this run names 'os.mkdir'" in done.stderr
    for door in (open_parts, open_subject):
        with pytest.raises(ValueError, match="retrieval.encoder: this run names 'os.mkdir'"):
            door(run, "cpu")
    assert not made.exists()
    # trust runs it, and still asks for the Protocol
    with pytest.raises(ValueError, match="wanted what keeps cm3_retrieval.interface.Encoder"):
        open_parts(run, "cpu", trust=True)
    assert made.is_dir()
