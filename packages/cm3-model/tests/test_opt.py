import pytest
import torch

from cm3_model import CheckpointError, import_opt


@pytest.fixture
def ids():
    return torch.randint(6, 60, (3, 24), generator=torch.Generator().manual_seed(2))


def save_opt(transformers, folder, **changes):
    torch.manual_seed(0)
    values = {
        "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "ffn_dim": 72, "max_position_embeddings": 24, "word_embed_proj_dim": 32,
        "enable_bias": False, "layer_norm_elementwise_affine": False, "init_std": 0.3,
    }  # fmt: skip
    config = transformers.OPTConfig(**(values | changes))
    model = transformers.OPTForCausalLM(config).eval()
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def test_opt_without_biases_has_transformers_logits(ids, transformers, tmp_path):
    theirs = save_opt(transformers, tmp_path)
    ours = import_opt(tmp_path)
    for length in (1, 2, 9, 24):
        wanted = theirs(ids[:, :length]).logits
        torch.testing.assert_close(ours(ids[:, :length]), wanted, rtol=1e-5, atol=1e-5)
    lengths = torch.tensor([4, 9, 7])
    cache = ours.make_cache(3, 24)
    got = ours.prefill(ids[:, :9], lengths, cache)
    whole = theirs(ids).logits
    rows = torch.arange(3)
    while lengths.max() < 24:
        torch.testing.assert_close(got, whole[rows, lengths - 1], rtol=1e-5, atol=1e-5)
        got = ours.decode_one_token(ids[rows, lengths], cache)
        lengths = lengths + 1
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    got, wanted = ours(ids, documents=mask), theirs(ids, attention_mask=mask).logits
    torch.testing.assert_close(got[mask == 1], wanted[mask == 1], rtol=1e-5, atol=1e-5)
    packed = ours(ids[:1], documents=torch.tensor([[0] * 10 + [1] * 14]))
    alone = [theirs(ids[:1, :10]).logits, theirs(ids[:1, 10:]).logits]
    torch.testing.assert_close(packed, torch.cat(alone, 1), rtol=1e-5, atol=1e-5)


def test_an_opt_with_biases_is_refused(transformers, tmp_path):
    save_opt(transformers, tmp_path, enable_bias=True)
    with pytest.raises(CheckpointError, match="enable_bias: wanted False, got True"):
        import_opt(tmp_path)


def test_an_opt_without_the_last_norm_is_refused(transformers, tmp_path):
    save_opt(transformers, tmp_path, _remove_final_layer_norm=True)
    with pytest.raises(CheckpointError, match="_remove_final_layer_norm: wanted False, got True"):
        import_opt(tmp_path)
