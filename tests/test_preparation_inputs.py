"""A prepared folder is of one set of parts, settings and raw pairs; others are refused."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cm3leon.preparation.inputs import PARTS, begun, copy_parts, fingerprint_of_inputs
from cm3leon.preparation.job import Preparation
from cm3leon.recipe import ImageRecipe, Recipe, RetrievalRecipe, TextRecipe
from cm3leon.stages import Stages


def write_folder(folder: Path, *captions: str) -> Path:
    """An imagefolder of files that nobody opens."""
    folder.mkdir(exist_ok=True)
    for number in range(len(captions)):
        (folder / f"{number}.png").write_bytes(b"picture")
    lines = [json.dumps({"file_name": f"{n}.png", "text": c}) for n, c in enumerate(captions)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def parts_run(folder: Path, text: int) -> Path:
    """A run that has made its parts, which are files of a word."""
    stages = Stages(folder, say=lambda _: None)
    for stage, part in PARTS.values():

        def work(out: Path, part=part) -> None:
            (out / part).mkdir()
            (out / part / "weights").write_text(f"{part} of {text if part == 'tokenizer' else 0}")

        stages.run(stage, text if stage == "texttok" else 0, [], work)
    return folder


def test_a_folder_is_of_one_set_of_parts(tmp_path):
    source = write_folder(tmp_path / "raw", "a")
    made, recipe = tmp_path / "prepared", Recipe()

    def start(run: int, retrained: int | None = None) -> bool:
        parts = parts_run(tmp_path / f"run{run}", run if retrained is None else retrained)
        options = Preparation(source=source, folder=made, parts=parts)
        finished = begun(made, inputs=fingerprint_of_inputs(recipe, options))
        copy_parts(recipe, options)
        return finished

    assert not start(1) and not start(1)
    copied = made / "texttok" / "tokenizer" / "weights"
    assert copied.read_text() == "tokenizer of 1"
    shutil.rmtree(made / "clip")  # as if killed between two copies
    with pytest.raises(ValueError, match="made from other settings, parts or raw pairs"):
        start(2)
    assert not (made / "clip").exists()
    assert not start(1) and (made / "clip" / "clip" / "weights").is_file()
    begun(made, job="models")
    for name in ("inputs", "job"):  # both stay noted, whatever is asked
        with pytest.raises(ValueError, match="made from other"):
            begun(made, **{name: "others"})
    noted = made / "work" / "job.json"
    noted.rename(made / "prepared.json")
    assert start(1)
    with pytest.raises(ValueError, match="made from other"):
        start(1, retrained=3)
    (made / "prepared.json").unlink()
    with pytest.raises(ValueError, match="made from other"):  # parts that nobody has noted
        start(1)


def test_named_parts_count_with_their_arguments(tmp_path):
    source = write_folder(tmp_path / "raw", "a")
    options = Preparation(source=source, folder=tmp_path / "prepared")

    def inputs(**text: Any) -> str:
        named = {"class_path": "of.others", "init_args": {"size": 1}}
        recipe = Recipe(
            texttok=TextRecipe(tokenizer={**named, "init_args": text}),
            imagetok=ImageRecipe(tokenizer=named),
            retrieval=RetrievalRecipe(encoder=named),
        )
        return fingerprint_of_inputs(recipe, options)

    assert inputs(size=1) == inputs(size=1) != inputs(size=2)
    with pytest.raises(FileNotFoundError, match="run to take texttok from, or texttok.tokenizer"):
        fingerprint_of_inputs(Recipe(), options)


@pytest.mark.parametrize("change", ["bytes", "gone", "time", "metadata"])
def test_a_changed_picture_makes_another_job(tmp_path, change):
    source = write_folder(tmp_path / "raw", "a", "b", "c")
    options = Preparation(source=source, folder=tmp_path, parts=parts_run(tmp_path / "run", 0))
    before = fingerprint_of_inputs(Recipe(), options)
    (source / "not listed.png").write_bytes(b"")
    assert fingerprint_of_inputs(Recipe(), options) == before
    path = source / "1.png"
    if change == "bytes":
        path.write_bytes(path.read_bytes() + b"more")
    elif change == "gone":
        path.unlink()
    elif change == "time":
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1000))
    else:
        path = source / "metadata.jsonl"
        path.write_text(path.read_text().replace('"c"', '"other words"'))
    assert fingerprint_of_inputs(Recipe(), options) != before
