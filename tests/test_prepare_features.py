"""apps/prepare.py --features: a set for each feature of captioned pictures, in one call."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from instruction_files import png, write
from prepared_here import SIZE, records

from cm3_imagetok import load_image, square
from cm3leon.instructions.features import open_feature
from cm3leon.instructions.features.hed import HED
from cm3leon.preparation.command import read_options
from cm3leon.preparation.job import FeaturePreparation
from cm3leon.preparation.worker import open_tokenizers
from cm3leon.recipe_file import read_recipe


@pytest.fixture
def captioned(tmp_path) -> Path:
    """Captioned pictures, as an imagefolder."""
    rows = []
    for n, split in enumerate(("train", "train", "validation", "test")):
        write(tmp_path / f"data/{n}.png", png(n))
        rows.append({"file_name": f"{n}.png", "text": f"a dog {n}", "split": split})
    write(tmp_path / "data/metadata.jsonl", "\n".join(map(json.dumps, rows)))
    return tmp_path / "data"


@pytest.fixture
def prepare(app_here, parted, captioned, tmp_path):
    """`prepare(*arguments)`: runs the app on the captioned pictures."""
    given = ["--from", str(captioned), "--folder", str(tmp_path / "sets"), "--parts", str(parted)]
    more = ["--workers", "1", "--device", "cpu"]
    return lambda *arguments: app_here("prepare.py", *given, *more, *arguments)


@pytest.mark.slow
def test_a_set_for_each_feature_that_can_be_made(prepare, captioned, parted, tmp_path):
    torch.manual_seed(0)
    torch.save(HED((4, 4, 4, 4, 4)).state_dict(), tmp_path / "hed.pth")
    names = ("canny", "hed", "depth")
    weights = ["--feature-weights", f"hed={tmp_path / 'hed.pth'},depth={tmp_path / 'none'}"]
    done = prepare("--features", ",".join(names), *weights)
    assert done.returncode == 0, done.stderr
    wanted = "depth: left out: --feature-weights: wanted a folder of transformers' DPT"
    assert wanted in done.stdout and "depth=FOLDER; got" in done.stdout
    assert "made canny, hed in " in done.stdout
    assert sorted(path.name for path in (tmp_path / "sets").iterdir()) == ["canny", "hed"]
    pixels = np.asarray(square(load_image(captioned / "0.png"), SIZE))
    tokenizers = open_tokenizers(read_recipe(parted), trust=False)
    for name, path in (("canny", None), ("hed", tmp_path / "hed.pth")):
        found = {one.texts["caption"]: one for one in records(tmp_path / "sets" / name)["train"]}
        assert set(found) == {"a dog 0", "a dog 1"}
        feature = open_feature(name, path)(pixels)
        codes = tokenizers.encode(np.stack([feature, pixels]))
        assert np.array_equal(
            [found["a dog 0"].codes["feature"], found["a dog 0"].codes["image"]], codes
        )
    done = prepare("--features", "canny,hed", *weights[:1], f"hed={tmp_path / 'hed.pth'}")
    assert done.returncode == 0 and done.stdout.count("done before, kept") == 2


def test_where_none_can_be_made_it_is_an_error(prepare, tmp_path):
    done = prepare("--features", "hed,depth")
    assert done.returncode == 1
    assert "hed: left out: --feature-weights: wanted ControlNetHED.pth" in done.stdout
    assert "--features: wanted at least one that can be made, got hed, depth" in done.stderr
    assert not (tmp_path / "sets").exists()


def test_pictures_with_features_of_their_own_are_refused(prepare, captioned):
    row = {"file_name": "0.png", "text": "a", "feature_file_name": "1.png"}
    write(captioned / "metadata.jsonl", row)
    done = prepare("--features", "canny,scribble")
    assert done.returncode == 1
    assert "wanted pictures whose features are computed, got feature_file_name" in done.stderr


def test_options_of_features(capsys, root):
    smoke = ["--config", str(root / "apps/configs/smoke.yaml"), "--folder", "b", "--from", "a"]
    given = ["--features", "hed, canny,hed", "--feature-weights", "hed=w.pth", "--fit", "pad"]
    _, options, _ = read_options("", [*smoke, *given])
    assert isinstance(options, FeaturePreparation)
    assert options.features == ("hed", "canny")
    one = options.alone("hed")
    assert (one.task.name, one.folder, one.fit) == ("hed", Path("b/hed"), "pad")
    assert one.feature_weights == Path("w.pth") and options.alone("canny").feature_weights is None
    for way in ("hed=w.pth", "w.pth"):
        _, options, _ = read_options("", [*smoke, "--task", "hed", "--feature-weights", way])
        assert options.feature_weights == Path("w.pth")
    for more, words in (
        (["--features", "canny,mlsd"], "--features: wanted some of canny, scribble, hed"),
        (["--features", "canny", "--task", "hed"], "--features: wanted it without --task"),
        (["--features", "hed", "--feature-weights", "w.pth"], "wanted NAME=PATH with commas"),
        (["--features", "hed", "--feature-weights", "depth=w"], "NAME of hed, got 'depth=w'"),
        (["--features", "hed", "--near-bits", "3"], "--near-bits: wanted only without --task"),
    ):
        with pytest.raises(SystemExit):
            read_options("", [*smoke, *more])
        assert words in capsys.readouterr().err
