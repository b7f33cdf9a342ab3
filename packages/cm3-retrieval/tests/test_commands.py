import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from cm3_retrieval import ClipEncoder, IndexConfig, MemoryBank, NeighbourTable, train_clip
from cm3_retrieval.cli import main


@pytest.fixture
def bank_folder(tmp_path, picture_folder, clip_folder, capsys):
    folder = tmp_path / "bank"
    assert main(["build", str(folder), str(picture_folder), "--encoder", str(clip_folder)]) == 0
    capsys.readouterr()
    return folder


def run(capsys, *arguments) -> str:
    """Standard output of a command that must succeed."""
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert status == 0, err
    return out


def refusal(capsys, *arguments) -> str:
    """The one line on standard error of a command that must fail."""
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert status == 1 and out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("cm3-retrieval ")]
    assert "Traceback" not in err
    return line


@pytest.mark.slow
def test_train_then_build_then_search(tmp_path, picture_folder, capsys):
    clip, bank = tmp_path / "clip", tmp_path / "bank"
    out = run(capsys, "train", clip, picture_folder, "--steps", 1)
    assert "trained on 12 captioned pictures" in out
    run(capsys, "build", bank, picture_folder, "--encoder", clip)
    encoder = ClipEncoder.load(clip)
    assert MemoryBank.load(bank, encoder.encoder_id).metadata.num_rows == 13
    assert "  1  " in run(capsys, "search", bank, "--encoder", clip, "--text", "thing")


def test_build_keeps_captions_paths_and_what_is_missing(bank_folder, picture_folder, captions):
    bank = MemoryBank.load(bank_folder)
    rows = bank.metadata_of(bank.keys)
    assert [row["caption"] for row in rows] == [*captions, ""]
    assert [row["has_both"] for row in rows] == [True] * 12 + [False]
    assert rows[2]["path"] == str(picture_folder.resolve() / "02.png")


def test_a_picture_finds_itself_and_its_page_shows_it(
    bank_folder, picture_folder, clip_folder, capsys, tmp_path, captions
):
    page = tmp_path / "found.html"
    out = run(
        capsys, "search", bank_folder, "--encoder", clip_folder, "-k", 3, "--html", page,
        "--image", picture_folder / "04.png", "--text", captions[4],
    )  # fmt: skip
    first = out.splitlines()[1].split()
    assert first[:3] == ["1", "1.0000", "4"] and first[-1].endswith("04.png")
    assert len(out.splitlines()) == 5 and f"{page}: 3 pictures" in out
    assert page.read_text(encoding="utf-8").count("<img") == 3
    everything = run(
        capsys, "search", bank_folder, "--encoder", clip_folder, "-k", 99, "--text", ""
    )
    assert len(everything.splitlines()) == 14  # k beyond the count: all there are


def test_add_takes_only_what_is_new(bank_folder, picture_folder, clip_folder, capsys, pictures):
    same = run(capsys, "add", bank_folder, picture_folder, "--encoder", clip_folder)
    assert "0 new, 13 documents" in same
    shutil.copy(picture_folder / "00.png", picture_folder / "copy.png")
    (picture_folder / "broken.png").write_bytes(b"no picture")
    assert main(
        ["add", str(bank_folder), str(picture_folder), "--encoder", str(clip_folder)]
    ) == 0  # fmt: skip
    out, err = capsys.readouterr()
    assert "1 new, 14 documents" in out
    assert "left out: " in err and "broken.png" in err
    bank = MemoryBank.load(bank_folder)
    assert bank.keys[-1] == 13 and bank.metadata_of([13])[0]["path"].endswith("copy.png")


def test_broken_pictures_stop_no_command(tmp_path, picture_folder, clip_folder, capsys):
    """The same pictures are left out of a bank, of what is added, and of training."""
    bank, clip = tmp_path / "bank", ("--encoder", clip_folder)
    (picture_folder / "cut.png").write_bytes((picture_folder / "02.png").read_bytes()[:2000])
    (picture_folder / "cut.txt").write_text("a cut one")
    (picture_folder / "._0.png").write_bytes(b"macOS")
    (picture_folder / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    for command in ("build", "add", "add"):
        assert main([command, str(bank), str(picture_folder), "--encoder", str(clip_folder)]) == 0
        out, err = capsys.readouterr()
        assert "13 documents" in out and ("0 new" in out) == (command == "add")
        left = [line for line in err.splitlines() if line.startswith("left out: ")]
        assert ["cut.png" in line for line in left] == [True, False] and "eps.png" in left[1]
    for path in picture_folder.rglob("*.png"):
        path.write_bytes(b"no picture")
    assert "none of 15 pictures" in refusal(capsys, "build", bank, picture_folder, *clip)
    assert "2 pictures with captions, got 0" in refusal(capsys, "train", bank, picture_folder)


def test_left_out_lines_stand_above_the_progress_line(
    tmp_path, picture_folder, clip_folder, capsys
):
    (picture_folder / "zz.png").write_bytes(b"no picture")
    bank = tmp_path / "bank"
    assert main(["build", str(bank), str(picture_folder), "--encoder", str(clip_folder)]) == 0
    err = capsys.readouterr().err
    assert [part for part in err.replace("\r", "\n").split("\n") if "left out" in part] == [
        f"left out: {picture_folder / 'zz.png'}: "
        "no picture in a format of PNG, JPEG, WEBP, GIF, BMP, TIFF"
    ]


def test_build_says_what_it_dropped(tmp_path, picture_folder, clip_folder, capsys):
    (picture_folder / "more/metadata.csv").write_text(
        "file_name,text\nplain.png,NA\n./plain.png,a plain one\ngone.png,gone\n"
    )
    bank = tmp_path / "bank"
    assert main(["build", str(bank), str(picture_folder), "--encoder", str(clip_folder)]) == 0
    out, err = capsys.readouterr()
    assert "1 documents, 1 with captions, 1 rows of metadata without a picture" in out
    assert "12 pictures without a row" in out and "metadata.csv:4: more/gone.png" in err
    assert MemoryBank.load(bank).metadata_of([0])[0]["caption"] == "NA\na plain one"


def test_training_takes_every_caption_of_a_picture(tmp_path, picture_folder, capsys, monkeypatch):
    rows = [("00.png", "a"), ("00.png", "b"), ("01.png", "b"), ("02.png", "c"), ("03.png", "")]
    lines = (json.dumps({"file_name": file, "text": text}) for file, text in rows)
    (picture_folder / "metadata.jsonl").write_text("\n".join(lines))
    (picture_folder / "03.txt").unlink()
    given = {}

    def record(captions, images, config, *, groups, **_):
        given.update(captions=captions, images=images, groups=groups)
        return type("", (), {"encoder_id": "x"})

    monkeypatch.setattr("cm3_retrieval.clip.training.train_clip", record)
    assert "3 captioned pictures" in run(capsys, "train", tmp_path / "clip", picture_folder)
    assert given["captions"] == ["a", "b", "b", "c"] and given["groups"] == [0, 0, 0, 1]
    assert np.array_equal(given["images"][0], given["images"][1])
    assert not np.array_equal(given["images"][1], given["images"][2])


def test_half_an_emoji_is_refused_before_any_work(tmp_path, picture_folder, capsys):
    (picture_folder / "metadata.jsonl").write_text(
        '{"file_name": "00.png", "text": "a"}\n' r'{"file_name": "01.png", "text": "half \ud83d"}'
    )
    text = refusal(capsys, "build", tmp_path / "bank", picture_folder, "--encoder", tmp_path)
    assert "metadata.jsonl:2: 'text': wanted Unicode, got half a surrogate pair" in text


def test_names_that_are_no_utf8_stop_nothing(tmp_path, picture_folder, clip_folder, capsys):
    for name in (b"caf\xe9.png", b"old\xff.tmp"):
        (picture_folder / os.fsdecode(name)).write_bytes((picture_folder / "03.png").read_bytes())
    bank = tmp_path / "bank"
    assert main(["build", str(bank), str(picture_folder), "--encoder", str(clip_folder)]) == 0
    out, err = capsys.readouterr()
    assert "13 documents" in out
    assert r"caf\xe9.png: wanted a name in UTF-8" in err


def test_folders_whose_names_are_no_utf8_are_printed_escaped(
    tmp_path, picture_folder, clip_folder, capsys, monkeypatch
):
    """Standard output in strict UTF-8, as `capsys` has it, ends no command after its work."""
    odd, clip = tmp_path / os.fsdecode(b"b\xff\x1b11"), ("--encoder", clip_folder)
    written = type("", (), {"encoder_id": "x"})
    monkeypatch.setattr("cm3_retrieval.clip.training.train_clip", lambda *_, **__: written)
    page = odd.with_suffix(".html")
    for command in (
        ("build", odd, picture_folder, *clip),
        ("add", odd, picture_folder, *clip),
        ("verify", odd),
        ("search", odd, *clip, "--text", "a", "--html", page),
        ("eval", odd, "--histogram", odd.with_suffix(".png")),
        ("neighbours", odd, odd / "table", *clip),
        ("train", odd, picture_folder),
    ):
        assert r"b\xff\x1b11" in run(capsys, *command)
    run(capsys, "info", odd)


def test_captions_send_nothing_to_the_terminal(tmp_path, picture_folder, clip_folder, capsys):
    (picture_folder / "00.txt").write_text("\x1b[31mred\x1b]0;title\x07 \u202ethe end\x9b1m")
    clip, bank = ("--encoder", clip_folder), tmp_path / "bank"
    run(capsys, "build", bank, picture_folder, *clip)
    out = run(capsys, "search", bank, *clip, "--text", "red", "-k", 13)
    assert r"\x1b[31mred\x1b]0;title\x07" in out
    assert all(character.isprintable() for character in out.replace("\n", ""))


def test_neighbours_of_all_documents(bank_folder, clip_folder, capsys, tmp_path):
    out = run(
        capsys, "neighbours", bank_folder, tmp_path / "table", "--encoder", clip_folder,
        "--max-relevance", 1, "--duplicate-threshold", 1, "--candidates", 3,
    )  # fmt: skip
    assert "13 documents" in out
    table = NeighbourTable.load(tmp_path / "table")
    assert not (tmp_path / "table" / "parts").exists()
    assert table.candidate_keys["image"].shape == (13, 3)
    for key in range(13):
        found = table.candidates(key)
        assert len(found["image"]) == 3 and key not in found["image"]
        assert len(found["text"]) == (3 if key < 12 else 0)  # the last has no text


def test_no_command_replaces_what_another_wrote(
    bank_folder, picture_folder, clip_folder, capsys, tmp_path
):
    """A folder that is taken is refused before pictures or encoder are even looked for."""
    own = tmp_path / "own"
    own.mkdir()
    for name in ("manifest.json", "clip_config.json"):
        (own / name).write_text('{"name": "of a browser"}')
    before = {path: path.read_bytes() for path in [*own.iterdir(), *bank_folder.iterdir()]}
    none = tmp_path / "none"
    for command in (
        ("neighbours", bank_folder, bank_folder, "--encoder", none),
        ("neighbours", bank_folder, own, "--encoder", none),
        ("build", own, none, "--encoder", none),
        ("train", own, none),
    ):
        text = refusal(capsys, *command)
        assert "wanted no such file, or that of a saved cm3-retrieval/" in text
        assert f"{command[2 if command[0] == 'neighbours' else 1]}/" in text
    assert {path: path.read_bytes() for path in [*own.iterdir(), *bank_folder.iterdir()]} == before


def test_neighbours_deletes_its_own_parts_alone(bank_folder, clip_folder, capsys, tmp_path):
    kept = tmp_path / "table" / "parts" / "of a guitar.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    run(capsys, "neighbours", bank_folder, tmp_path / "table", "--encoder", clip_folder)
    assert list(kept.parent.iterdir()) == [kept]


def test_a_new_picture_never_gets_the_key_of_a_deleted_one(
    bank_folder, picture_folder, clip_folder, capsys
):
    bank = MemoryBank.load(bank_folder)
    bank.delete([12])
    bank.save(bank_folder)
    out = run(capsys, "add", bank_folder, picture_folder, "--encoder", clip_folder)
    assert "1 new, 13 documents" in out
    assert MemoryBank.load(bank_folder).keys.tolist() == [*range(12), 13]


def test_two_adds_at_once_add_each_picture_once(bank_folder, picture_folder, clip_folder, capsys):
    bank = MemoryBank.load(bank_folder)
    bank.delete([0, 12])
    bank.save(bank_folder)
    command = [sys.executable, "-m", "cm3_retrieval.cli", "add", bank_folder, picture_folder]
    command = [str(part) for part in (*command, "--encoder", clip_folder)]
    adds = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    news = sorted(re.search(r"(\d) new, 13", add.communicate()[0])[1] for add in adds)
    assert [add.returncode for add in adds] == [0, 0] and news == ["0", "2"]
    assert sorted(MemoryBank.load(bank_folder).keys.tolist()) == [*range(1, 12), 13, 14]


def test_eval_info_and_verify(bank_folder, capsys, tmp_path):
    out = run(capsys, "eval", bank_folder, "-k", 5, "--histogram", tmp_path / "scores.png")
    figures = dict(line.split() for line in out.splitlines()[:5])
    assert figures["recall"] == "1" and figures["queries"] == "13" and figures["k"] == "5"
    assert (tmp_path / "scores.png").stat().st_size > 500
    out = run(capsys, "info", bank_folder)
    assert re.search(r"count +13\n", out) and '"factory": "Flat"' in out
    assert "13 documents" in run(capsys, "verify", bank_folder)
    index = next(bank_folder.glob("index-*.faiss"))
    changed = bytearray(index.read_bytes())
    changed[len(changed) // 2] ^= 1
    index.write_bytes(changed)
    for command in ("verify", "info", "eval"):
        assert index.name in refusal(capsys, command, bank_folder)


def test_eval_asks_with_captions_and_pictures_and_wants_true_vectors(
    bank_folder, clip_folder, capsys, tmp_path
):
    out = run(capsys, "eval", bank_folder, "--encoder", clip_folder, "-k", 5)
    figures = dict(line.split() for line in out.splitlines())
    assert figures["recall_text"] == figures["recall_image"] == "1"
    bank = MemoryBank.load(bank_folder)
    vectors = bank.vectors_of(bank.keys)
    short = MemoryBank.build(
        bank.keys, vectors, {}, "e", IndexConfig(factory="PCA1,Flat", rescore=0)
    )
    short.save(tmp_path / "short")
    assert "vectors: wanted the documents' own, (13, 16)" in refusal(
        capsys, "eval", tmp_path / "short"
    )
    np.save(tmp_path / "v.npy", vectors)
    given = ("--vectors", tmp_path / "v.npy")
    out = run(capsys, "eval", tmp_path / "short", "-k", 5, *given)
    assert 0 < float(dict(line.split() for line in out.splitlines())["recall"]) < 1


def test_an_index_by_factory_string(tmp_path, picture_folder, clip_folder, capsys):
    bank = tmp_path / "bank"
    out = run(capsys, "build", bank, picture_folder, "--encoder", clip_folder, "--index", "HNSW8")
    assert "index HNSW8" in out
    assert np.array_equal(MemoryBank.load(bank).keys, np.arange(13))


def test_build_tunes_an_index_with_cells(tmp_path, picture_folder, clip_folder, capsys):
    for path in sorted(picture_folder.glob("*.png"))[5:]:  # fewer than the results compared
        path.unlink()
    bank = tmp_path / "bank"
    run(capsys, "build", bank, picture_folder, "--encoder", clip_folder, "--index", "IVF2,SQ8")
    figures = run(capsys, "eval", bank, "--encoder", clip_folder)
    for kind in ("text", "image"):
        assert float(re.search(rf"recall_{kind} +(\S+)", figures)[1]) >= 0.95


def test_wrong_input_is_one_line_and_status_1(
    bank_folder, picture_folder, clip_folder, capsys, tmp_path
):
    clip = ("--encoder", clip_folder)
    none = tmp_path / "none"
    assert "no manifest.json" in refusal(capsys, "info", none)
    assert "wanted a folder of pictures" in refusal(capsys, "build", none, none, *clip)
    assert "--pretrained" in refusal(capsys, "build", none, picture_folder)
    unknown = ("--encoder", "ViT-B-33", "--pretrained", "openai")
    assert "near: ['ViT-B-32'" in refusal(capsys, "build", none, picture_folder, *unknown)
    wrong = ("--encoder", "ViT-B-32", "--pretrained", "openai")
    assert "-quickgelu" in refusal(capsys, "search", bank_folder, "--text", "a", *wrong)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    text = refusal(capsys, "search", bank_folder, "--image", broken, *clip)
    assert "broken.png: no picture in a format of PNG" in text
    factory = ("--index", "IVFx,Nothing")
    assert "'IVFx,Nothing'" in refusal(capsys, "build", none, picture_folder, *factory, *clip)
    too_many = ("--index", "IVF64,PQ4")
    assert "could not be trained" in refusal(
        capsys, "build", none, picture_folder, *too_many, *clip
    )
    assert not none.exists()
    for captionless in picture_folder.glob("*.txt"):
        captionless.unlink()
    assert "2 pictures with captions, got 0" in refusal(capsys, "train", none, picture_folder)


def test_a_bank_of_another_encoder_is_refused(
    bank_folder, picture_folder, tmp_path, capsys, captions, pictures, tiny
):
    other = tmp_path / "other"
    train_clip(captions, pictures, replace(tiny, seed=1), folder=other)
    for command in (
        ("search", bank_folder, "--text", "a"),
        ("add", bank_folder, picture_folder),
        ("neighbours", bank_folder, tmp_path / "table"),
    ):
        assert "wanted a bank of encoder" in refusal(capsys, *command, "--encoder", other)


def test_what_needs_no_encoder_imports_none(bank_folder):
    """open_clip takes some ten seconds to import; `info` must not wait for it."""
    code = "import sys; from cm3_retrieval.cli import main; bank = sys.argv[1]"
    code += "; print([main([name, bank]) for name in ('info', 'verify', 'eval')])"
    code += "; print(sorted({'torch', 'open_clip'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(bank_folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["[0, 0, 0]", "[]"]
