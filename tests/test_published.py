"""A checkpoint of Chameleon's shape, with random weights: imported, tuned, asked, exported."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_chameleon import CODES, SIDE, image_name, write_download

from cm3_imagetok import load_vqgan
from cm3_model import export_chameleon
from cm3_texttok import PAPER_TASKS, chameleon_codes
from cm3_train import write_shards
from cm3leon.instructions.sets import row_of, write_task
from cm3leon.parts import open_parts
from cm3leon.published import export_run, found_in, make_base


@pytest.fixture(scope="module")
def download(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chameleon")
    write_download(folder)
    return folder


@pytest.fixture(scope="module")
def base(download, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "anole"
    make_base(found_in(download, None, None, None), run)
    return run


@torch.no_grad()
def logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    import transformers

    model = transformers.ChameleonForConditionalGeneration.from_pretrained(folder).eval()
    return model.lm_head(model.model(ids)[0])  # transformers hides those of image ids


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), np.uint8)


def test_ids_of_a_picture_are_those_that_transformers_gives_it(base, download):
    import transformers

    theirs = transformers.ChameleonForConditionalGeneration.from_pretrained(download).eval()
    tokenizers = open_parts(base, "cpu").tokenizers
    seen = torch.from_numpy(pixels()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        wanted = theirs.model.get_image_tokens(seen).flatten().tolist()
    found = tokenizers.vocabulary.codes_to_ids(tokenizers.encode(pixels()[None])[0]).tolist()
    assert found == wanted
    assert tokenizers.vocabulary.image_offset == 4 and tokenizers.vocabulary.size == 65536
    assert not np.array_equal(chameleon_codes(download / "tokenizer.json"), np.arange(CODES))


def test_a_base_has_the_logits_and_gives_the_weights_back(base, download, tmp_path):
    ids = torch.randint(16384, 16700, (2, 20), generator=torch.Generator().manual_seed(0))
    ids[:, 5:9] = torch.tensor([8197, 4, 8195, 8196])
    wanted = logits(download, ids)
    with torch.no_grad():
        found = open_parts(base, "cpu").model(ids)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    export_run(base, tmp_path / "back")
    assert torch.equal(logits(tmp_path / "back", ids), wanted)
    import transformers

    before, after = (
        transformers.ChameleonForConditionalGeneration.from_pretrained(folder).state_dict()
        for folder in (download, tmp_path / "back")
    )
    assert before.keys() == after.keys()
    assert all(value.equal(after[name]) for name, value in before.items())


def test_no_text_becomes_a_structural_id(base):
    tokenizers = open_parts(base, "cpu").tokenizers
    words = tokenizers.vocabulary
    for text in ("<s> </s> <racm3:break>", image_name(7), "<reserved08706><eoss>", "<mask>"):
        ids = tokenizers.text.encode(text)
        assert words.is_text(ids).all()
        assert tokenizers.text.decode(ids) == text


def test_without_a_memory_bank_it_says_so(base, app_here, tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    picture, run = str(tmp_path / "a.png"), ["--run", str(base), "--device", "cpu"]
    out = ["--out", str(tmp_path / "b.png"), "--candidates", "2"]
    for arguments in (
        ["--teach", picture, "--as", "zorp", "--prompt", "zorp"],
        ["--prompt", "a fox", "--retrieve", "1", *out],
        ["--caption", picture, "--retrieve", "2"],
    ):
        done = app_here("generate.py", *run, *arguments)
        assert done.returncode == 1
        assert "wanted a run with a memory bank, got one of published weights" in done.stderr
    done = app_here("generate.py", *run, "--prompt", "a fox", *out)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.png").is_file()
    done = app_here("generate.py", *run, "--caption", picture, "--candidates", "2")
    assert done.returncode == 0, done.stderr
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a"}')
    pairs = ["--source", str(tmp_path), "--folder", str(tmp_path / "pairs")]
    done = app_here("prepare.py", *pairs, "--parts", str(base))
    assert done.returncode == 1 and "wanted a run with a memory bank" in done.stderr
    done = app_here("pretrain.py", "--retrieval.bank", "false", "--runs", str(tmp_path))
    assert done.returncode == 1 and "retrieval.bank: wanted true" in done.stderr
    for options, message in (
        ([], "sets: wanted sets of apps/prepare.py --task"),
        (["--sets", "[sets/a]"], "replay: wanted 0"),
    ):
        tuning = ["--base", str(base), "--runs", str(tmp_path), *options]
        done = app_here("sft.py", *tuning, "--device", "cpu")
        assert done.returncode == 1 and message in done.stderr


def test_weights_without_a_part_that_draws_read_pictures(download, app_here, tmp_path):
    folder, run = tmp_path / "hf", tmp_path / "reads"
    shutil.copytree(download, folder, ignore=shutil.ignore_patterns("vqgan.ckpt"))
    done = app_here("published.py", "import", str(folder), "--run", str(run))
    assert done.returncode == 0, done.stderr
    assert "draws none: wanted --vqgan vqgan.ckpt" in done.stdout
    assert load_vqgan(run / "imagetok" / "vqgan").decoder is None
    done = app_here("generate.py", "--run", str(run), "--device", "cpu", "--prompt", "a fox")
    assert done.returncode == 1
    assert "wanted an image tokenizer with a decoder" in done.stderr


def test_metas_layout_gives_the_same_base(base, download, tmp_path):
    weights, tokenizer = tmp_path / "models" / "7b", tmp_path / "tokenizer"
    export_chameleon(open_parts(base, "cpu").model, weights, "original")
    tokenizer.mkdir()
    shutil.copyfile(download / "tokenizer.json", tokenizer / "text_tokenizer.json")
    shutil.copyfile(download / "vqgan.ckpt", tokenizer / "vqgan.ckpt")
    make_base(found_in(weights, None, None, SIDE), tmp_path / "meta")
    one, other = (open_parts(run, "cpu") for run in (base, tmp_path / "meta"))
    assert one.tokenizers.vocabulary == other.tokenizers.vocabulary
    other_weights = other.model.state_dict()
    for name, weight in one.model.state_dict().items():
        assert weight.equal(other_weights[name]), name
    export_run(tmp_path / "meta", tmp_path / "hf")
    ids = torch.tensor([[2, 20000, 8197, 4, 5, 8196]])
    torch.testing.assert_close(logits(tmp_path / "hf", ids), logits(download, ids))


def test_wrong_folders_are_named(download, app_here, tmp_path):
    def message(*arguments):
        done = app_here(
            "published.py", "import", *map(str, arguments), "--run", str(tmp_path / "r")
        )
        assert done.returncode == 1 and "Traceback" not in done.stderr
        return done.stderr

    assert "wanted tokenizer.json or text_tokenizer.json" in message(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "wanted vqgan.ckpt" in message(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(download, other)
    settings = json.loads((other / "tokenizer.json").read_text())
    vocab = settings["model"]["vocab"]
    vocab[image_name(0)], vocab["<reserved16379>"] = vocab["<reserved16379>"], vocab[image_name(0)]
    (other / "tokenizer.json").write_text(json.dumps(settings))
    assert "wanted a name IMGIMG...Z of each code" in message(other)


def write_sets(base: Path, app_here, folder: Path) -> list[Path]:
    """Prepare an edit set and a set of questions with the base's tokenizers."""
    (folder / "data").mkdir(parents=True)
    for number in range(8):
        Image.fromarray(pixels(number)).save(folder / "data" / f"{number}.png")
    splits = ["train"] * 6 + ["validation", "test"]
    edits = [
        {"source_file_name": f"{n}.png", "file_name": f"{(n + 1) % 8}.png", "split": split,
         "instruction": "make it <racm3:break> red"}
        for n, split in enumerate(splits)
    ]  # fmt: skip
    questions = [
        {"file_name": f"{n}.png", "question": "what colour is it?", "answer": "red", "split": split}
        for n, split in enumerate(splits)
    ]
    made = []
    for task, rows in (("edit", edits), ("vqa2", questions)):
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / "data" / "metadata.jsonl").write_text(lines)
        done = app_here(
            "prepare.py", "--task", task, "--from", str(folder / "data"), "--folder",
            str(folder / task), "--parts", str(base), "--workers", "1", "--device", "cpu",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (folder / task / "report.png").is_file()
        made.append(folder / task)
    return made


def test_records_that_name_documents_are_refused(base, app_here, tmp_path):
    task, codes = PAPER_TASKS["vqa2"], {"image": np.zeros(16, np.int64)}
    texts = {"question": "what?", "answer": "fox"}
    words = open_parts(base, "cpu").tokenizers.vocabulary.sha256
    for split in ("train", "validation"):
        rows = [row_of(key, task, texts, codes, near=(3,)) for key in range(4)]
        write_shards(rows, tmp_path / "a" / split, codes_per_image=16, vocabulary_sha256=words)
    write_task(tmp_path / "a", task)
    done = app_here(
        "sft.py", "--config", "apps/configs/sft-anole.yaml", "--base", str(base), "--runs",
        str(tmp_path), "--device", "cpu", "--sets", f"[{tmp_path / 'a'}]",
        "--tokens_per_step", "null",
    )  # fmt: skip
    assert done.returncode == 1
    assert "a: wanted records without documents, as" in done.stderr


@pytest.mark.slow
def test_from_a_download_to_an_edit_an_answer_and_weights_again(base, app_here, tmp_path):
    sets = write_sets(base, app_here, tmp_path / "sets")
    done = app_here(
        "sft.py", "--config", "apps/configs/sft-anole.yaml", "--base", str(base), "--runs",
        str(tmp_path), "--name", "tuned", "--device", "cpu", "--precision", "32-true", "--sets",
        f"[{', '.join(map(str, sets))}]", "--lora.bfloat16_base", "false", "--tokens_per_step",
        "null", "--batch_size", "4", "--val_batch_size", "4", "--val_every", "6", "--optim.lr",
        "0.01", "--optim.total_steps", "12", "--optim.warmup_steps", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = tmp_path / "tuned"
    (log,) = (run / "decoder" / "csv").rglob("metrics.csv")
    with log.open(newline="") as file:
        found = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert np.isfinite(found).all() and found[-1] < found[0]

    Image.fromarray(pixels()).save(tmp_path / "a.png")
    options = ["--run", str(run), "--device", "cpu"]
    done = app_here(
        "generate.py", *options, "--edit", str(tmp_path / "a.png"), "--instruction", "make it red",
        "--candidates", "2", "--out", str(tmp_path / "b.png"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = app_here("generate.py", *options, "--ask", str(tmp_path / "a.png"), "what colour is it?")
    assert done.returncode == 0, done.stderr

    done = app_here(
        "evaluate.py", "--run", str(run), "--sets", f"[{', '.join(map(str, sets))}]", "--device",
        "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "edits: left out: edits: wanted a run with a CLIP" in done.stdout
    result = json.loads((run / "evaluation" / "result.json").read_text())
    assert list(result["tasks"]) == ["questions"]

    done = app_here("published.py", "export", str(run), str(tmp_path / "merged"))
    assert done.returncode == 0, done.stderr
    ids = torch.randint(16384, 16700, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mine, before = (open_parts(folder, "cpu").model(ids) for folder in (run, base))
    torch.testing.assert_close(logits(tmp_path / "merged", ids), mine, rtol=1e-5, atol=1e-5)
    assert (mine - before).abs().max() > 1e-3
