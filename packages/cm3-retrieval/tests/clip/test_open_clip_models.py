import zipfile

import open_clip
import pytest
import torch

from cm3_retrieval import ClipEncoder
from cm3_retrieval.clip.open_clip_models import bundled_tokenizer, open_tokenizer


def test_unknown_names_and_tags_say_what_there_is():
    with pytest.raises(ValueError, match="got 'ViT-B-23'; near: .*ViT-B-32"):
        ClipEncoder("ViT-B-23")
    with pytest.raises(ValueError, match=r"tag of ViT-B-32 \(openai, .*got 'no-such'"):
        ClipEncoder("ViT-B-32", "no-such")


@pytest.mark.parametrize("tag", ["openai", "laion400m_e32"])
def test_a_failed_download_is_one_clear_error(tag):
    name = "ViT-B-32-quickgelu"
    with pytest.raises(RuntimeError, match=f"could not load '{tag}': the download failed"):
        ClipEncoder(name, tag)


def test_the_quickgelu_trap_by_tag():
    with pytest.raises(ValueError, match="wanted 'ViT-B-32-quickgelu', got 'ViT-B-32'"):
        ClipEncoder("ViT-B-32", "openai")
    with pytest.raises(ValueError, match="wanted 'ViT-B-16-quickgelu', got 'ViT-B-16'"):
        ClipEncoder("ViT-B-16", "metaclip_400m")


@pytest.mark.parametrize("name", ["clip_224.openai/model.safetensors", "OpenAI-vit.safetensors"])
def test_the_quickgelu_trap_by_path(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match="wanted 'ViT-B-32-quickgelu', got 'ViT-B-32'"):
        ClipEncoder("ViT-B-32", path)


def test_torch_script_archives_are_refused(tmp_path):
    archive = tmp_path / "ViT-B-32.pt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("ViT-B-32/constants.pkl", b"")
    with pytest.raises(ValueError, match="TorchScript archive"):
        ClipEncoder("ViT-B-32", archive)


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"nothing": torch.zeros(1)}, path)
    with pytest.raises(RuntimeError, match="does not hold weights of ViT-S-32-alt"):
        ClipEncoder("ViT-S-32-alt", path)


def test_tokens_are_open_clips_own():
    texts = ["a red apple, food & drink", "", "naïve café 12", "word " * 200]
    assert torch.equal(bundled_tokenizer(32)(texts), open_clip.SimpleTokenizer()(texts, 32))
    assert torch.equal(open_tokenizer("ViT-B-32")(texts), open_clip.SimpleTokenizer()(texts, 77))


@pytest.mark.parametrize(
    "text", ["<end_of_text>", "<START_OF_TEXT>", "a &lt;end_of_text&gt; b", "<end_of_text><end"]
)
def test_typed_special_tokens_stay_text(text):
    ids = bundled_tokenizer(32)([text])[0].tolist()
    assert ids[0] == 49406 and ids.count(49406) == 1 and ids.count(49407) == 1


def test_random_weights_repeat_and_leave_torchs_generator_alone():
    state = torch.random.get_rng_state()
    model = ClipEncoder("ViT-S-32-alt")
    assert torch.equal(state, torch.random.get_rng_state())
    assert ClipEncoder("ViT-S-32-alt").encoder_id == model.encoder_id
    assert model.encoder_id.startswith("ViT-S-32-alt:")
