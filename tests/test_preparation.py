"""The steps of a preparation one by one: squares and boxes, copies, a shard's work, decisions."""

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cm3_imagetok import load_image
from cm3_retrieval import RetrievalConfig
from cm3_retrieval.sealed_folder import MANIFEST_NAME, read_folder
from cm3leon.data.pairs import SPLITS, DataError, key_of
from cm3leon.preparation.command import read_options
from cm3leon.preparation.copies import near_copies, picture_hash
from cm3leon.preparation.decisions import Members, decide, encoded, pairs_of, sampled
from cm3leon.preparation.driver import encode_all
from cm3leon.preparation.encoding import COMPONENT, ShardEncoder
from cm3leon.preparation.finishing import ShardFinisher
from cm3leon.preparation.job import Job, Preparation, share_of
from cm3leon.preparation.sample import write_sample
from cm3leon.preparation.source import Shard, open_source
from cm3leon.preparation.squares import boxes_of, fitted, moved
from cm3leon.preparation.worker import Worker, is_sealed
from cm3leon.recipe import DataRecipe, DecoderRecipe, ImageRecipe, Recipe

SIZE, DIM = 16, 4


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(60, 30), (30, 60), (40, 40), (7, 90)])
def test_boxes_move_with_their_picture(fit, size):
    """A red rectangle is where its box says, after any fit."""
    box = [size[0] * 0.3, size[1] * 0.3, size[0] * 0.7, size[1] * 0.7]
    picture = Image.new("RGB", size, "blue")
    ImageDraw.Draw(picture).rectangle([box[0], box[1], box[2] - 1, box[3] - 1], fill="red")
    square = np.asarray(fitted(picture, 64, fit)).astype(int)
    assert square.shape == (64, 64, 3)
    found = moved(box, *size, 64, fit)
    rows, columns = np.nonzero((square[..., 0] > 128) & (square[..., 1] < 128))
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    # the rectangle was drawn on whole pixels of the picture
    assert np.abs(np.array(found) - seen).max() <= 1 + 64 / min(size)


def test_a_box_that_is_cropped_away_is_none_and_one_at_the_edge_is_cut():
    assert moved([0, 0, 10, 30], 60, 30, 32, "crop") is None
    assert moved([0, 0, 30, 30], 60, 30, 30, "crop") == [0.0, 0.0, 15.0, 30.0]
    assert moved([0, 0, 10, 30], 60, 30, 60, "pad") == [0.0, 15.0, 10.0, 45.0]


def test_boxes_of_hugging_face_are_corner_and_size():
    assert boxes_of({"objects": {"bbox": [[1, 2, 3, 4]]}}) == [[1, 2, 4, 6]]
    assert boxes_of({"boxes": [[0, 0, 1, 1]], "objects": {"bbox": []}}) == [[0, 0, 1, 1]]
    assert boxes_of({}) is None and boxes_of({"objects": {"bbox": "no"}}) == "no"


@pytest.mark.parametrize("bits", [0, 1, 3, 8])
def test_near_copies_are_those_that_brute_force_finds(bits):
    rng = np.random.default_rng(bits)
    some = rng.integers(0, 2**63, 40, dtype=np.uint64)
    flips = [sum(1 << int(b) for b in rng.permutation(64)[:n]) for n in rng.integers(0, 10, 200)]
    hashes = some[rng.integers(0, 40, 200)] ^ np.array(flips, np.uint64)
    clusters = near_copies(hashes, bits)
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= bits
    while not np.array_equal(near, (wider := near @ near)):  # what copies link is one cluster
        near = wider
    np.testing.assert_array_equal(clusters[:, None] == clusters[None], near)
    assert len(near_copies(hashes[:0], bits)) == 0


def test_a_picture_saved_again_is_a_near_copy():
    rng = np.random.default_rng(0)
    pictures = [
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8)).resize((80, 80))
        for _ in range(5)
    ]
    hashes = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "jpeg", quality=85)
        hashes += [picture_hash(picture), picture_hash(load_image(file.getvalue()))]
    clusters = near_copies(np.array(hashes, np.uint64), 3)
    assert np.array_equal(clusters[::2], clusters[1::2]) and len(set(clusters)) == 5


class Models:
    """Tokenizers and encoder that add up pixels and letters."""

    num_codes_per_image = 4
    dim = DIM
    encoder_id = "adds"

    @property
    def text(self):
        return self

    def encode(self, pixels):
        return pixels.reshape(len(pixels), 4, -1).sum(-1, dtype=np.int64) % 8192

    def encode_batch(self, texts):
        return [list(text.encode()) for text in texts]

    def encode_texts(self, texts):
        return np.stack([vector(list(text.encode())) for text in texts])

    def encode_images(self, images):
        return np.stack([vector([int(image.sum())]) for image in images])


def vector(seed) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal(DIM)
    return (found / np.linalg.norm(found)).astype(np.float32)


def png(seed: int, size=(24, 20)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize(size)


def write_folder(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """An imagefolder; the picture of a row is drawn by its number unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        path = folder / row["file_name"]
        if not path.exists() and "missing" not in row["file_name"]:
            png(row.get("seed", number)).save(path)
    lines = [json.dumps({k: v for k, v in row.items() if k != "seed"}) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def encode(folder: Path, rows, *, views: int = 1, max_length: int = 60, **options):
    """Encode an imagefolder; gives the rows, the quarantine, the manifest and the job."""
    source = write_folder(folder / "raw", rows)
    recipe = Recipe(
        data=DataRecipe(size=SIZE),
        imagetok=ImageRecipe(tokenizer={"class_path": "of.others"}),
        decoder=DecoderRecipe(
            max_length=max_length, views=views, model={"num_layers": 1, "width": 32, "num_heads": 1}
        ),
    )
    given = Preparation(source=source, folder=folder / "prepared", **options)
    job = Job(recipe=recipe, options=given, fingerprint="f", trust=False)
    raw, models = open_source(source, job.work), Models()
    encoder = ShardEncoder(job, raw, models, models)  # pyright: ignore
    for number, shard in enumerate(raw.shards()):
        encoder.encode(shard, encoded(job.work, number))
    manifest, paths = read_folder(encoded(job.work, 0), MANIFEST_NAME, COMPONENT)
    bad = [json.loads(line) for line in paths["quarantine.jsonl"].read_text().splitlines()]
    return pairs_of(job.work, 0).to_pylist(), bad, manifest, job


def test_a_shard_becomes_rows_and_what_is_wrong_is_told(tmp_path):
    rows = [
        {"file_name": "0.png", "text": ["a", "b", "a"], "source": "here", "licence": "CC0"},
        {"file_name": "1.png", "text": ""},
        {"file_name": "missing.png", "text": "c"},
        {"file_name": "3.png", "text": "d", "boxes": [[0, 0, 1, 20], [4, 2, 12, 12]]},
        {"file_name": "4.png", "text": "x" * 60},
        {"file_name": "5.png", "text": "e", "boxes": [[3, 3, 1, 1]]},
        {"file_name": "6.png", "text": "f", "license": 4, "url": "https://a.org"},
    ]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "6.png").write_bytes(b"\x89PNG broken")
    found, bad, manifest, _ = encode(tmp_path, rows)
    assert [(r["file_name"], r["caption"]) for r in found] == [
        ("0.png", "a"), ("0.png", "b"), ("3.png", "d")
    ]  # fmt: skip
    assert [b["key"] for b in bad] == ["1.png", "missing.png", "5.png", "6.png", "4.png"]
    assert {b["file"] for b in bad} == {"metadata.jsonl"}
    words = [
        "wanted a string as 'text'",
        "No such file",
        "wanted 'boxes'",
        "no picture in a format of",
        "at most 53 ids, got 60",
    ]
    for word, line in zip(words, bad, strict=True):
        assert word in line["reason"]
    one, two, three = found
    assert (one["source"], one["licence"]) == ("here", "CC0") and three["source"] == "3.png"
    assert one["content"] == two["content"] != three["content"]
    assert one["key"] != two["key"] and one["name"] == two["name"] == key_of("0.png")
    np.testing.assert_allclose(three["boxes"], [[1.6, 1.6, 8.0, 9.6]], rtol=1e-6)
    assert manifest["counts"]["boxes"] == 2 and manifest["counts"]["boxes_cropped_away"] == 1
    pixels = np.asarray(fitted(png(3), SIZE, "crop"))
    assert three["codes"] == Models().encode(pixels[None])[0].tolist()
    assert three["text_ids"] == [[ord("d")]]
    assert np.array_equal(three["image_vector"], vector([int(pixels.sum())]))
    assert np.array_equal(three["text_vector"], vector([ord("d")]))


def test_further_views_are_of_training_pictures(tmp_path):
    splits = ["train", "test", "validation"]
    rows = [{"file_name": f"{s}.png", "text": s[0], "split": s} for s in splits]
    found = encode(tmp_path, rows, views=3)[0]
    assert [len(row["codes"]) for row in found] == [12, 4, 4]
    assert found[0]["text_ids"] == [list(text.encode()) for text in ("t", "t #1", "t #2")]
    plain = Models().encode(np.asarray(fitted(png(0), SIZE, "crop"))[None])[0]
    assert found[0]["codes"][:4] == plain.tolist()
    assert found[0]["codes"][4:8] != plain.tolist()


def test_only_named_licences_are_let_in_and_the_others_counted(tmp_path):
    names = ["CC-BY", "cc-by ", "CC0", None, "All rights reserved"]
    rows = [{"file_name": f"{n}.png", "text": "a", "licence": x} for n, x in enumerate(names)]
    found, bad, manifest, _ = encode(tmp_path, rows, licences=("cc-by", "cc0"))
    assert [row["file_name"] for row in found] == ["0.png", "1.png", "2.png"] and bad == []
    assert [row["licence"] for row in found] == ["CC-BY", "cc-by", "CC0"]
    assert manifest["left_out_by_licence"] == {"": 1, "All rights reserved": 1}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"licence": "CC\ud800"}, "licence: wanted Unicode"),
        ({"licence": "CC0", "boxes": [[0, 0, 1, 10**400]]}, "wanted 'boxes'"),
        ({"licence": "CC0", "boxes": [[-(10**400), 0.5, 1, 1]]}, "wanted 'boxes'"),
        ({"licence": "CC0", "boxes": [[0, 0, 1, float("inf")]]}, "wanted 'boxes'"),
        ({"licence": "CC0", "objects": {"bbox": [[0.5, 0, 10**400, 2]]}}, "wanted 'boxes'"),
    ],
)
def test_one_bad_record_is_quarantined_and_ends_nothing(tmp_path, wrong, words):
    rows = [{"file_name": "0.png", "text": "a", "licence": "CC0"},
            {"file_name": "1.png", "text": "b", **wrong}]  # fmt: skip
    found, bad, _, _ = encode(tmp_path, rows, licences=("CC0",))
    assert [row["file_name"] for row in found] == ["0.png"]
    assert [b["key"] for b in bad] == ["1.png"] and words in bad[0]["reason"]


def test_a_folder_whose_name_is_no_utf8_costs_its_own_records(tmp_path):
    rows = [{"file_name": "0.png", "text": "a"}]
    write_folder(tmp_path / "raw" / "caf\udce9", rows)
    found, bad, _, _ = encode(tmp_path, rows)
    assert [row["file_name"] for row in found] == ["0.png"]
    assert [b["key"] for b in bad] == ["caf\udce9/0.png"] and "wanted Unicode" in bad[0]["reason"]


def test_a_rotten_set_is_stopped(tmp_path):
    rows = [{"file_name": f"{n}.png", "text": "a" if n else ""} for n in range(10)]
    *_, job = encode(tmp_path, rows, max_bad=0.05)
    engine = SimpleNamespace(run=lambda task, shards, finished: [finished(s) for s in shards])
    shards = open_source(job.options.source, job.work).shards()
    with pytest.raises(DataError, match=r"max-bad: wanted at most 5.00% .* got 1 of 10") as told:
        encode_all(job, shards, engine, print)
    assert "0.png" in str(told.value)
    loose = Job(**{**vars(job), "options": Preparation(**{**vars(job.options), "max_bad": 0.1})})
    encode_all(loose, shards, engine, print)


def test_a_worker_reads_the_shard_that_it_is_sent_whatever_the_source_has_become(tmp_path):
    *_, job = encode(tmp_path, [{"file_name": "0.png", "text": "a"}])
    (sent,) = open_source(job.options.source, job.work).shards()
    worker = Worker(job)
    worker.__dict__["models"] = Models(), Models()
    (job.work / "ranges" / "ranges.json").write_text('{"shards": []}')  # as others would list it
    worker.run("encode", 3, sent)
    assert [row["file_name"] for row in pairs_of(job.work, 3).to_pylist()] == ["0.png"]
    place = encoded(job.work, 3)
    assert is_sealed(place, job.fingerprint, sent)
    assert not is_sealed(place, "of another job", sent)
    with pytest.raises(ValueError, match=f"wanted what was made of b.tar, got {sent.name}"):
        is_sealed(place, job.fingerprint, Shard(file="b.tar"))


def unlisted(path: Path) -> None:
    listed = path.with_name("metadata.jsonl")
    lines = listed.read_text().splitlines()
    listed.write_text("\n".join(line for line in lines if path.name not in line))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.unlink(), "1.png: wanted the picture that was encoded before, got: "),
        (lambda path: png(7).save(path), "1.png: wanted the picture .* got other bytes"),
        (unlisted, "1.png: wanted the picture .* got no such picture"),
    ],
)
def test_a_picture_that_changes_before_the_second_pass_is_told(tmp_path, change, words):
    rows = [{"file_name": f"{n}.png", "text": ["a", "b"]} for n in range(3)]
    *_, job = encode(tmp_path, rows)
    table, models = pairs_of(job.work, 0), Models()
    keys = table.column("key").to_numpy()[[2, 3, 4]]  # both captions of 1.png, one of 2.png

    def pixels() -> np.ndarray:
        shutil.rmtree(job.work / "ranges")
        source = open_source(job.options.source, job.work)
        finisher = ShardFinisher(job, source, models, models, RetrievalConfig())  # pyright: ignore
        (shard,) = source.shards()
        return finisher._pixels(shard, table, keys)

    wanted = [np.asarray(fitted(png(n), SIZE, "crop")) for n in (1, 1, 2)]
    assert np.array_equal(pixels(), wanted)
    change(job.options.source / "1.png")
    with pytest.raises(ValueError, match=words):
        pixels()


def test_a_sample_is_of_the_source_as_it_is_now(tmp_path):
    source, folder = tmp_path / "raw", tmp_path / "sample"
    write_folder(source, [{"file_name": "0.png", "text": "old"}])
    open_source(source, folder / ".work").shards()  # a call was killed after this
    write_folder(source, [{"file_name": "0.png", "text": "new"}])
    assert write_sample(Preparation(source=source, folder=folder), 5, seed=0) == 1
    assert '"text": "new"' in (folder / "metadata.jsonl").read_text()


def test_a_sample_leaves_out_what_is_no_unicode(tmp_path):
    source, folder = tmp_path / "raw", tmp_path / "sample"
    rows = [{"file_name": "0.png", "text": "a", "licence": "CC\ud800"},
            {"file_name": "1.png", "text": "b", "licence": "CC0"}]  # fmt: skip
    write_folder(source, rows)
    write_folder(source / "caf\udce9", rows[1:])
    options = Preparation(source=source, folder=folder, licences=("CC0",))
    assert write_sample(options, 5, seed=0) == 1
    assert '"source": "1.png"' in (folder / "metadata.jsonl").read_text()


def decided(tmp_path, rows, *, near_bits=3, drop=False, validation=0.0, test=0.0):
    *_, job = encode(tmp_path, rows)
    found = decide(
        job.work, 1, near_bits=near_bits, drop_duplicates=drop, validation_share=validation,
        test_share=test, seed=0,
    )  # fmt: skip
    return found, pairs_of(job.work, 0).to_pylist(), job


def given_splits(rows):
    """Add one picture of each split, so that none is empty."""
    extra = [{"file_name": f"{s}.png", "text": s, "split": s, "seed": 900 + n}
             for n, s in enumerate(("train", "validation", "test"))]  # fmt: skip
    return [*({"split": "train", **row} for row in rows), *extra]


def test_repeated_pairs_and_near_copies(tmp_path):
    rows = given_splits(
        [
            {"file_name": "a.png", "text": "one", "seed": 1},
            {"file_name": "a.png", "text": "one"},  # the same pair once more
            {"file_name": "a.png", "text": "another caption of it"},
            {"file_name": "b.png", "text": "two", "seed": 1},  # the same picture by another name
            {"file_name": "c.png", "text": "three", "seed": 2},
        ]
    )
    found, pairs, _ = decided(tmp_path / "all", rows)
    assert found.counts["repeated"] == 1 and found.counts["near_duplicates"] == 1
    assert found.kept.tolist() == [True, False, *[True] * 6]
    dropped, _, _ = decided(tmp_path / "dropped", rows, drop=True)
    assert dropped.kept.tolist() == [True, False, True, False, *[True] * 4]
    assert dropped.counts["near_duplicates"] == 1
    # a.png and b.png are one file's bytes, so one group
    assert len(set(found.group[[0, 2, 3]])) == 1 and len(set(found.group)) == 6


def test_a_group_is_what_shares_a_picture_a_caption_or_a_name(tmp_path):
    rows = given_splits(
        [
            {"file_name": "0.png", "text": "same caption"},
            {"file_name": "1.png", "text": ["same caption", "bridge"]},
            {"file_name": "2.png", "text": "bridge"},
            {"file_name": "3.png", "text": "x", "group": "named"},
            {"file_name": "4.png", "text": "y", "group": "named"},
            {"file_name": "5.png", "text": "named by none"},
        ]
    )
    found, pairs, job = decided(tmp_path, rows)
    of_file: dict[str, set[int]] = {}
    for pair, group in zip(pairs, found.group.tolist(), strict=True):
        of_file.setdefault(pair["file_name"][:-4], set()).add(group)
    assert of_file["0"] == of_file["1"] == of_file["2"] and len(of_file["1"]) == 1
    assert of_file["3"] == of_file["4"] != of_file["5"]
    found.save(job.work / "decisions")
    members = Members(job.work / "decisions", found)
    assert sorted(members(int(found.keys[0]))) == sorted(found.keys[:4].tolist())
    assert members(int(found.keys[-1])) == []  # of its group nobody is in training


def test_splits_are_drawn_by_group_and_not_by_order(tmp_path):
    rows = [{"file_name": f"{n}.png", "text": f"caption {n % 150}", "seed": n} for n in range(300)]
    found, pairs, _ = decided(tmp_path / "a", rows, validation=0.2, test=0.3)
    side = dict(zip((p["key"] for p in pairs), found.split.tolist(), strict=True))
    of_caption: dict[str, set[int]] = {}
    for pair in pairs:
        of_caption.setdefault(pair["caption"], set()).add(side[pair["key"]])
    assert all(len(sides) == 1 for sides in of_caption.values())
    shares = np.bincount(found.split, minlength=3)[:3] / len(pairs)
    assert np.abs(shares - [0.5, 0.2, 0.3]).max() < 0.12  # 150 groups: 3 standard deviations
    again, others, _ = decided(tmp_path / "b", [dict(r) for r in rows[::-1]],
                               validation=0.2, test=0.3)  # fmt: skip
    assert side == dict(zip((p["key"] for p in others), again.split.tolist(), strict=True))
    some = sampled(found, 10)
    for place in range(3):
        rows_of_split = np.flatnonzero(found.split == place)
        lowest = rows_of_split[np.argsort(found.keys[rows_of_split])[:10]]
        assert set(some) & set(rows_of_split) == set(lowest)


def test_given_splits_are_kept_and_a_mixture_or_an_empty_one_refused(tmp_path):
    rows = given_splits([{"file_name": "0.png", "text": "test", "split": "train"}])
    found, _, _ = decided(tmp_path / "a", rows)
    assert [SPLITS[place] for place in found.split] == ["train", "train", "validation", "test"]
    assert found.counts["held_out_pairs_of_training_groups"] == 1  # the caption "test"
    with pytest.raises(DataError, match="a split for every record or for none"):
        decided(tmp_path / "b", [*rows, {"file_name": "9.png", "text": "none"}])
    with pytest.raises(DataError, match="got none in validation; of 1 usable pairs"):
        decided(tmp_path / "c", [{"file_name": "0.png", "text": "a"}])
    with pytest.raises(DataError, match="at least one usable pair"):
        decided(tmp_path / "d", [{"file_name": "0.png", "text": ""}])


def test_shares_and_options_are_checked(capsys):
    assert share_of("1%") == 0.01 and share_of("0.5") == 0.5
    for wrong in ("one", "%", ""):
        with pytest.raises(ValueError, match="wanted a share such as 1%"):
            share_of(wrong)
    for options, words in (
        ({"workers": 0}, "workers: wanted at least 1, got 0"),
        ({"max_bad": 2.0}, "max_bad: wanted 0% to 100%"),
        ({"fit": "cut"}, "fit: wanted one of"),
        ({"near_bits": 16}, "near_bits: wanted at most 15"),
    ):
        with pytest.raises(ValueError, match=words):
            Preparation(source=Path("a"), folder=Path("b"), **options)
    with pytest.raises(SystemExit):
        read_options("", ["--source", "a"])
    assert "--folder: wanted a folder" in capsys.readouterr().err
    smoke = ["--config", "apps/configs/smoke.yaml", "--source", "a", "--folder", "b"]
    recipe, options, sample = read_options(
        "", [*smoke, "--licences", "CC0,CC-BY", "--max-bad", "2%", "--seed", "4"]
    )
    assert (recipe.name, recipe.seed, options.licences) == ("smoke", 4, ("CC0", "CC-BY"))
    assert options.max_bad == 0.02 and sample is None
