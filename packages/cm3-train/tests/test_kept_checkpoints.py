"""Whatever moment a run is killed at, a whole checkpoint is there, and the newest one is taken."""

import json
import os
import shutil

import pytest
import torch

from cm3_train.checkpoint_io import AtomicCheckpointIO
from cm3_train.kept_checkpoints import KeptCheckpoints, check_whole, seal


class Killed(BaseException):
    pass


def write(path, step, split):
    """Write a checkpoint as a file, or as the folder that processes write together."""
    if not split:
        AtomicCheckpointIO().save_checkpoint({"step": step}, path)
        return
    path.mkdir()
    (path / "__0_0.distcp").write_bytes(bytes([step]) * 50)
    (path / "__0_1.distcp").write_bytes(bytes([step]) * 60)
    (path / "meta.pt").write_bytes(bytes([step]))
    seal(path)


def step_of(path):
    if path.is_dir():
        return (path / "meta.pt").read_bytes()[0]
    return AtomicCheckpointIO().load_checkpoint(path)["step"]


def saved(folder, keep, steps, split):
    folder.mkdir(exist_ok=True)
    kept = KeptCheckpoints(folder, keep)
    for step in steps:
        write(kept.next_path, step, split)
        kept.move_on()
    return kept


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_ones_stay_in_order(tmp_path, keep, split):
    kept = saved(tmp_path, keep, range(1, 6), split)
    names = ["last.ckpt", "last-1.ckpt", "last-2.ckpt"][:keep]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert [step_of(tmp_path / name) for name in names] == [5, 4, 3][:keep]
    assert kept.newest_whole() == tmp_path / "last.ckpt"
    fewer = saved(tmp_path, 1, [6], split)  # another number does no harm
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert fewer.newest_whole() == tmp_path / "last.ckpt"


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_kill_between_any_two_changes_leaves_the_newest(tmp_path, monkeypatch, keep, split):
    """Every rename and removal is a moment to be killed at."""
    true = os.replace, shutil.rmtree
    for moment in range(12):
        folder = tmp_path / str(moment)
        kept = saved(folder, keep, [1, 2, 3, 4], split)
        write(kept.next_path, 5, split)
        left = moment

        def dies(act):
            def acts(*arguments):
                nonlocal left
                left -= 1
                if left < 0:
                    raise Killed
                act(*arguments)

            return acts

        monkeypatch.setattr(os, "replace", dies(true[0]))
        monkeypatch.setattr(shutil, "rmtree", dies(true[1]))
        try:
            kept.move_on()
        except Killed:
            pass
        ended = left >= 0
        monkeypatch.undo()
        again = KeptCheckpoints(folder, keep)
        found = again.newest_whole()
        assert found is not None and step_of(found) == 5
        again.settle()
        assert again.newest_whole() == folder / "last.ckpt"
        steps = sorted(step_of(path) for path in folder.iterdir())
        assert steps[-1] == 5 and len(set(steps)) == len(steps) <= keep
        if ended:
            assert steps == [5, 4, 3][:keep][::-1]
            break
    assert ended and moment > 0


def damage(path):
    file = path / "__0_0.distcp" if path.is_dir() else path
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("split", [False, True])
def test_the_newest_whole_one_is_taken_and_the_broken_are_named(tmp_path, capsys, split):
    kept = saved(tmp_path, 3, [1, 2, 3], split)
    assert kept.newest_whole() == tmp_path / "last.ckpt"
    assert capsys.readouterr().err == ""
    damage(tmp_path / "last.ckpt")
    damage(tmp_path / "last-1.ckpt")
    assert kept.newest_whole() == tmp_path / "last-2.ckpt"
    said = capsys.readouterr().err
    assert said.count("damaged") == 2 and "last.ckpt" in said and "last-1.ckpt" in said
    assert said.endswith(f"{tmp_path}: goes on from last-2.ckpt instead\n")
    kept.settle()
    names = ["broken-last-1.ckpt", "broken-last.ckpt", "last.ckpt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert step_of(tmp_path / "last.ckpt") == 1
    damage(tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"wanted a whole checkpoint .*last\.ckpt.*damaged"):
        kept.newest_whole()


def test_a_folder_that_a_kill_cut_short_is_no_checkpoint(tmp_path, capsys):
    kept = saved(tmp_path, 2, [1], True)
    write(kept.next_path, 2, True)
    (kept.next_path / "manifest.json").unlink()
    assert kept.newest_whole() == tmp_path / "last.ckpt"
    assert "next.ckpt: cut short" in capsys.readouterr().err
    kept.settle()
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.clear(), "wanted the hashes of files"),
        (lambda files: files.update({"../secret": "0"}), "names of files beside it"),
        (lambda files: files.update({"more": "0"}), "wanted a part of the checkpoint"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(tmp_path, change, message):
    write(tmp_path / "a", 1, True)
    manifest = tmp_path / "a" / "manifest.json"
    content = json.loads(manifest.read_bytes())
    assert sorted(content["files"]) == ["__0_0.distcp", "__0_1.distcp", "meta.pt"]
    change(content["files"])
    manifest.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        check_whole(tmp_path / "a")
    manifest.write_text("{")
    with pytest.raises(ValueError, match="wanted JSON"):
        check_whole(tmp_path / "a")


def test_any_flipped_byte_is_found(tmp_path):
    AtomicCheckpointIO().save_checkpoint({"w": torch.ones(3)}, tmp_path / "a.ckpt")
    check_whole(tmp_path / "a.ckpt")
    content = (tmp_path / "a.ckpt").read_bytes()
    for place in range(0, len(content), 37):
        (tmp_path / "a.ckpt").write_bytes(
            content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
        )
        with pytest.raises(ValueError, match="damaged"):
            check_whole(tmp_path / "a.ckpt")
