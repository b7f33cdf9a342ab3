import itertools
import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from cm3_model import (
    CheckpointError,
    export_chameleon,
    import_chameleon,
    import_opt,
    load_decoder,
    read_manifest,
    save_decoder,
)
from cm3_model.config import CHAMELEON_PARTS
from cm3_model.replacement import JOURNAL, replacing


def write_hf_shards(model, folder):
    """A folder as transformers writes large ones: an index and its shards."""
    save_decoder(model, folder / "ours", max_shard_bytes=10_000)
    export_chameleon(model, folder)
    single = folder / "model.safetensors"
    from safetensors.torch import load_file, save_file

    tensors, index = load_file(single), {}
    names = list(tensors)
    for at, part in enumerate((names[::2], names[1::2]), start=1):
        name = f"model-{at:05d}-of-00002.safetensors"
        save_file({key: tensors[key] for key in part}, folder / name)
        index |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    single.unlink()
    shutil.rmtree(folder / "ours")


WRITERS = {
    "ours": save_decoder,
    "ours in shards": partial(save_decoder, max_shard_bytes=10_000),
    "hf": export_chameleon,
    "hf in shards": write_hf_shards,
    "original": partial(export_chameleon, layout="original"),
    "original in 3": partial(export_chameleon, layout="original", num_shards=3),
}


def read(folder):
    """The decoder in a folder, whichever layout it has."""
    try:
        return load_decoder(folder)
    except CheckpointError:
        return import_chameleon(folder)


def alike(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    return all(
        ours[name].shape == theirs[name].shape and torch.equal(ours[name], theirs[name])
        for name in ours.keys() | theirs.keys()
    )


@pytest.fixture
def two(make):
    """Two decoders that any layout holds: every head has the same norms; another shape, too."""
    old, new = make(**CHAMELEON_PARTS), make(**CHAMELEON_PARTS, mlp_width=48)
    with torch.no_grad():
        for model in (old, new):
            for name, weight in model.named_parameters():
                if "query_norm" in name or "key_norm" in name:
                    weight.copy_(weight[:1].expand_as(weight).clone())
    return old, new


@pytest.mark.parametrize("second", [name for name in WRITERS if name != "hf in shards"])
@pytest.mark.parametrize("first", WRITERS)
def test_the_later_checkpoint_is_read_and_alone(two, tmp_path, first, second):
    old, new = two
    WRITERS[first](old, tmp_path / "both")
    (tmp_path / "both" / "README.md").write_text("mine")
    (tmp_path / "both" / "model_card.json").write_text("{}")
    assert alike(read(tmp_path / "both"), old)
    WRITERS[second](new, tmp_path / "both")
    WRITERS[second](new, tmp_path / "fresh")
    assert alike(read(tmp_path / "both"), new)
    names = {path.name for path in (tmp_path / "fresh").iterdir()}
    kept = {"README.md", "model_card.json"}
    assert {path.name for path in (tmp_path / "both").iterdir()} == names | kept


@pytest.mark.parametrize(
    ("first", "second"),
    [(one, one) for one in ("ours", "ours in shards", "hf", "original in 3")]
    + [("hf in shards", "hf"), ("hf", "original"), ("original in 3", "original"), ("hf", "ours")],
)
def test_wherever_a_writer_is_killed_the_old_or_the_new_is_read(
    two, tmp_path, monkeypatch, first, second
):
    """A copy of the folder before each change of it is what a kill there would leave."""
    old, new = two
    folder, states = tmp_path / "folder", itertools.count()
    WRITERS[first](old, folder)

    def watched(call):
        def copy_first(*args, **options):
            shutil.copytree(folder, tmp_path / f"state {next(states)}")
            return call(*args, **options)

        return copy_first

    with monkeypatch.context() as patch:
        for name in ("replace", "fsync"):
            patch.setattr(os, name, watched(getattr(os, name)))
        for name in ("unlink", "mkdir"):
            patch.setattr(Path, name, watched(getattr(Path, name)))
        WRITERS[second](new, folder)
    count = next(states)
    assert count > 8
    found = []
    for at in range(count):
        model = read(tmp_path / f"state {at}")
        assert alike(model, old) or alike(model, new), at
        found.append(alike(model, new))
        assert not (tmp_path / f"state {at}" / JOURNAL).exists()
    assert found == sorted(found)  # once new, always new
    assert {False, True} == set(found)
    # the next save clears what a stopped one left
    WRITERS[second](old, tmp_path / "state 5")
    assert alike(read(tmp_path / "state 5"), old)
    hidden = [path.name for path in (tmp_path / "state 5").iterdir() if path.name[0] == "."]
    assert not hidden


def test_an_error_before_the_end_leaves_what_was_there(two, tmp_path):
    old, new = two
    save_decoder(old, tmp_path / "folder")
    for folder in ("folder", "new"):
        with pytest.raises(KeyError), replacing(tmp_path / folder) as incoming:
            (incoming / "config.json").write_text("{}")
            raise KeyError
    assert alike(load_decoder(tmp_path / "folder"), old)
    assert sorted(os.listdir(tmp_path / "folder")) == ["config.json", "model.safetensors"]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "journal",
    [
        "",
        "[]",
        "{}",
        '{"files": 3}',
        '{"files": ' + "[" * 100_000,
        '{"files": [3]}',
        '{"files": ["../x"]}',
        '{"files": ["README.md"]}',
        '{"files": ["consolidated.pth"]}',
    ],
)
@pytest.mark.parametrize("reader", [load_decoder, read_manifest, import_chameleon, import_opt])
def test_a_journal_of_something_else_is_refused(two, tmp_path, journal, reader):
    save_decoder(two[0], tmp_path)
    (tmp_path / JOURNAL).write_text(journal)
    with pytest.raises(CheckpointError, match="a stopped save cannot be finished: "):
        reader(tmp_path)
    (tmp_path / JOURNAL).unlink()
    assert alike(load_decoder(tmp_path), two[0])


def test_two_foreign_checkpoints_in_a_folder_are_refused(two, tmp_path):
    old, new = two
    write_hf_shards(old, tmp_path / "a")
    export_chameleon(new, tmp_path / "b")
    shutil.copy(tmp_path / "b" / "model.safetensors", tmp_path / "a")
    with pytest.raises(CheckpointError, match="wanted one checkpoint, got model.safetensors and"):
        import_chameleon(tmp_path / "a")
    export_chameleon(old, tmp_path / "c", "original", num_shards=3)
    export_chameleon(new, tmp_path / "d", "original")
    shutil.copy(tmp_path / "d" / "consolidated.pth", tmp_path / "c")
    with pytest.raises(CheckpointError, match="model_parallel_size: wanted 3 files, got"):
        import_chameleon(tmp_path / "c")
    (tmp_path / "c" / "consolidated.pth").unlink()
    (tmp_path / "c" / "consolidated.01.pth").unlink()
    with pytest.raises(CheckpointError, match="model_parallel_size: wanted 3 files, got"):
        import_chameleon(tmp_path / "c")
