"""A recipe that names a class runs it only with trust, and only if it keeps the Protocol."""

import sys
from dataclasses import replace

import pytest
import torch

from cm3_imagetok import PRESETS, VQGAN, save_vqgan
from cm3_imagetok.interface import ImageTokenizer
from cm3_retrieval.interface import Encoder
from cm3_texttok.interface import Tokenizer
from cm3leon import parts
from cm3leon.named_parts import fingerprint_of_part, part_of
from cm3leon.recipe import ImageRecipe, Recipe, RetrievalRecipe, TextRecipe

STRANGER = """
from pathlib import Path

Path(__file__).with_name("imported").touch()

class Whole:
    num_codes, downsampling = 16, 4
    def __init__(self, size=1):
        Path(__file__).with_name("called").touch()
        self.size = size
    def encode(self, images): ...
    def decode(self, codes): ...

class Half:
    num_codes, downsampling = 16, 4
    def __init__(self):
        Path(__file__).with_name("called").touch()
    def encode(self, images): ...

class Late:
    # has its members when it is made
    def __init__(self):
        self.num_codes, self.downsampling = 16, 4
        self.encode = self.decode = print

def make(size=2):
    Path(__file__).with_name("called").touch()
    return Whole(size)

def nothing():
    return None
"""


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A package of someone else; returns what of it has been run."""
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda: {path.name for path in tmp_path.iterdir()} & {"imported", "called"}
    sys.modules.pop("stranger", None)


def image_part(path, trust, arguments=None):
    spec = {"class_path": path, "init_args": arguments}
    return part_of(spec, "imagetok.tokenizer", ImageTokenizer, trust=trust)


@pytest.mark.parametrize("name", ["Whole", "Half", "Late", "make", "nothing"])
def test_without_trust_code_of_others_is_not_even_imported(stranger, name):
    with pytest.raises(ValueError, match=f"imagetok.tokenizer: .*'stranger.{name}'.*--trust"):
        image_part(f"stranger.{name}", trust=False)
    assert not stranger()


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("os.mkdir", {"path": "made"}),
        ("os.system", {"command": "mkdir made"}),
        ("subprocess.Popen", {"args": ["mkdir", "made"]}),
        ("builtins.exec", {}),
        # ours, but none that keeps the Protocol, or not ours at all
        ("cm3_train.artifact.write_json", {"path": "made", "value": 1}),
        ("cm3_train.artifact.os.mkdir", {"path": "made"}),
        ("cm3_imagetok.commands.Path", {}),
        ("cm3_imagetok.artifact.json", {}),
        ("cm3_imagetok.load_image", {"path": "made"}),
        ("cm3_imagetok.VQGANConfig", {}),
        ("cm3_retrieval.commands.shutil", {}),
        ("cm3leon.recipe.Recipe", {}),
    ],
)
def test_without_trust_nothing_but_a_part_is_called(tmp_path, monkeypatch, path, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="^imagetok.tokenizer: "):
        image_part(path, trust=False, arguments=arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("trust", [True, False])
def test_parts_of_our_packages_need_no_trust(tmp_path, trust):
    torch.manual_seed(0)
    save_vqgan(VQGAN(replace(PRESETS["tiny-64"], channels=16, norm_groups=8)), tmp_path / "vqgan")
    made = image_part("cm3_imagetok.load_vqgan", trust, {"folder": str(tmp_path / "vqgan")})
    assert isinstance(made, VQGAN)
    # their own complaints: they were called
    clip = {"class_path": "cm3_retrieval.ClipEncoder", "init_args": {"model_name": "none"}}
    with pytest.raises(ValueError, match="^model_name: wanted one of open_clip"):
        part_of(clip, "retrieval.encoder", Encoder, trust=trust)
    ids = {"pad_id": 0, "eos_id": 1, "break_id": 2, "infill_id": 3, "mask_ids": [4]}
    words = {"path": str(tmp_path / "gone.json"), **ids}
    text = {"class_path": "cm3_texttok.huggingface.HFTokenizer", "init_args": words}
    with pytest.raises(FileNotFoundError):
        part_of(text, "texttok.tokenizer", Tokenizer, trust=trust)


def test_with_trust_any_callable_makes_a_part(stranger):
    assert image_part("stranger.Whole", True, {"size": 3}).size == 3
    assert image_part("stranger.make", trust=True).size == 2
    assert image_part("stranger.Late", trust=True).num_codes == 16
    assert stranger() == {"imported", "called"}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("stranger.Half", "ImageTokenizer, got 'stranger.Half' without decode"),
        (
            "fractions.Fraction",
            "ImageTokenizer, got 'fractions.Fraction' without .*, encode, decode",
        ),
        ("stranger.nothing", "'stranger.nothing' without num_codes, downsampling, encode, decode"),
        ("", "class_path: wanted package.Class, got ''"),
        ("stranger", "class_path: wanted package.Class, got 'stranger'"),
        ("stranger.Nobody", "class_path: wanted package.Class, got 'stranger.Nobody'"),
        ("no.such.Module", "class_path: wanted package.Class, got 'no.such.Module'"),
        (3, "class_path: wanted package.Class, got 3"),
    ],
)
def test_what_is_no_part_is_named_before_it_is_used(stranger, path, message):
    with pytest.raises(ValueError, match=f"^imagetok.tokenizer: .*{message}"):
        image_part(path, trust=True)


@pytest.mark.parametrize("arguments", [{"sise": 3}, [1], 7])
def test_arguments_that_do_not_fit_are_named(stranger, arguments):
    spec = {"class_path": "stranger.Whole", "init_args": arguments}
    fingerprint_of_part(spec)
    with pytest.raises(ValueError, match="^imagetok.tokenizer: class_path: wanted"):
        part_of(spec, "imagetok.tokenizer", ImageTokenizer, trust=True)


def test_each_door_of_a_run_asks_for_trust(stranger):
    named = {"class_path": "stranger.Whole"}
    recipe = Recipe(
        texttok=TextRecipe(tokenizer=named),
        imagetok=ImageRecipe(tokenizer=named),
        retrieval=RetrievalRecipe(encoder=named),
    )
    cpu = torch.device("cpu")
    doors = {
        "texttok.tokenizer": lambda **trust: parts.open_text_tokenizer(recipe, **trust),
        "imagetok.tokenizer": lambda **trust: parts.open_image_tokenizer(recipe, cpu, **trust),
        "retrieval.encoder": lambda **trust: parts.open_encoder(recipe, cpu, **trust),
    }
    for role, door in doors.items():
        with pytest.raises(ValueError, match=f"{role}: this run names 'stranger.Whole'"):
            door()
    with pytest.raises(ValueError, match="texttok.tokenizer: this run names"):
        parts.parts_of(recipe, cpu)
    assert not stranger()
    assert doors["imagetok.tokenizer"](trust=True).num_codes == 16
    for role in ("texttok.tokenizer", "retrieval.encoder"):  # the same class in a wrong place
        with pytest.raises(ValueError, match=f"{role}: wanted what keeps"):
            doors[role](trust=True)


def test_a_named_part_is_known_by_its_files(tmp_path):
    (tmp_path / "weights").write_bytes(b"one")
    spec = {"class_path": "package.Class", "init_args": {"folder": str(tmp_path), "size": 3}}
    before = fingerprint_of_part(spec)
    assert fingerprint_of_part(spec) == before
    (tmp_path / "weights").write_bytes(b"other")
    assert fingerprint_of_part(spec) != before
