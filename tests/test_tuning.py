"""Adapters on a small Chameleon: from training to files that other libraries open."""

import copy

import pytest
import torch

from cm3_model import (
    Decoder,
    DecoderConfig,
    export_chameleon,
    import_chameleon,
    load_decoder,
    save_decoder,
)
from cm3_model.config import CHAMELEON_PARTS
from cm3_train import (
    CM3Module,
    LoraConfig,
    OptimConfig,
    add_adapters,
    build_optimizer,
    fit,
    load_weights,
    merge_adapters,
    next_token_loss,
)

WORDS = 60
NO_PICTURES = {
    "vocabulary_map": {"<image>": 5},
    "vq_config": {
        "base_channels": 32, "channel_multiplier": [1], "num_res_blocks": 1,
        "latent_channels": 4, "embed_dim": 4, "num_embeddings": 4, "resolution": 8,
    },
}  # fmt: skip


@pytest.fixture
def chameleon():
    config = DecoderConfig(
        vocab_size=WORDS, max_length=24, num_layers=2, width=32, num_heads=4, mlp_width=40,
        init_std=0.02, **CHAMELEON_PARTS,
    )  # fmt: skip
    model = Decoder(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "query_norm" not in name and "key_norm" not in name:  # alike for all heads
                weight.normal_(0, 0.3, generator=generator)
    return model


@pytest.fixture
def ids():
    return torch.randint(6, WORDS, (3, 24), generator=torch.Generator().manual_seed(2))


def train(model, ids, steps=40, bfloat16=False):
    optimizer = build_optimizer(model, OptimConfig(lr=0.01, weight_decay=0.0))
    losses = []
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            hidden = model.hidden(ids[:, :-1])
            loss = next_token_loss(hidden, ids[:, 1:], model.head_weight, chunk_size=16)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def test_adapters_learn_and_merged_weights_open_everywhere(chameleon, ids, tmp_path):
    import transformers

    base = copy.deepcopy(chameleon)
    add_adapters(chameleon, LoraConfig(rank=8), torch.Generator().manual_seed(3))
    assert torch.equal(chameleon(ids), base(ids))
    losses = train(chameleon, ids)
    assert losses[-1] < 0.5 * losses[0]
    chameleon.eval()
    with torch.no_grad():
        wanted = chameleon(ids)
        merge_adapters(chameleon)
        torch.testing.assert_close(chameleon(ids), wanted, rtol=0, atol=1e-5)
        assert (wanted - base(ids)).abs().max() > 0.1

        save_decoder(chameleon, tmp_path / "ours")
        export_chameleon(chameleon, tmp_path / "huggingface", config=NO_PICTURES)
        export_chameleon(chameleon, tmp_path / "original", "original")
        for back in (
            load_decoder(tmp_path / "ours"),
            import_chameleon(tmp_path / "huggingface"),
            import_chameleon(tmp_path / "original"),
        ):
            torch.testing.assert_close(back(ids), wanted, rtol=0, atol=1e-5)
        theirs = transformers.ChameleonForConditionalGeneration.from_pretrained(
            tmp_path / "huggingface"
        ).eval()
        torch.testing.assert_close(theirs(ids).logits, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_checkpointed_blocks_give_adapters_the_same_gradients(chameleon, ids, mode):
    add_adapters(chameleon, LoraConfig(rank=8), torch.Generator().manual_seed(3))
    other = copy.deepcopy(chameleon)
    other.activation_checkpointing = mode
    assert train(chameleon, ids, steps=4) == pytest.approx(train(other, ids, steps=4), rel=1e-5)
    for mine, theirs in zip(chameleon.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_base_in_bfloat16_trains_draws_and_is_exported_in_float32(chameleon, ids, tmp_path):
    add_adapters(chameleon, LoraConfig(rank=8, bfloat16_base=True))
    losses = train(chameleon, ids, bfloat16=True)
    assert losses[-1] < 0.7 * losses[0]
    module = CM3Module(chameleon, OptimConfig(ema_decay=0.9), (10, 18))
    kept = module.kept_model.eval()
    with torch.no_grad():
        cache = kept.make_cache(1, 8)  # as a sheet of drawings does, without autocast
        logits = kept.prefill(ids[:1, :4], torch.tensor([4]), cache)
        assert kept.decode_one_token(logits.argmax(-1), cache).isfinite().all()
    plain = Decoder(chameleon.config)
    plain.load_state_dict(module.export_state())
    save_decoder(plain, tmp_path)
    back = load_decoder(tmp_path)
    assert back.output.weight.dtype == torch.float32
    with torch.no_grad():
        found, wanted = back(ids), kept(ids).float()
    assert (found - wanted).std() < 0.02 * wanted.std()  # bfloat16 has 8 bits


class Batches:
    """A loader that is no list."""

    def __init__(self, ids):
        self.ids = ids

    def __iter__(self):
        yield {"input_ids": self.ids[:, :-1], "labels": self.ids[:, 1:]}


def test_a_run_in_mixed_precision_from_base_to_merged_file(chameleon, ids, tmp_path):
    base = copy.deepcopy(chameleon)

    def module():
        """As an app makes it, before training and after it."""
        model = copy.deepcopy(base)
        add_adapters(model, LoraConfig(rank=4, bfloat16_base=True))
        model.activation_checkpointing = "full"
        return CM3Module(model, OptimConfig(lr=0.01, total_steps=30, ema_decay=0.5), (10, 18))

    best = fit(
        module(), Batches(ids), Batches(ids), run_dir=tmp_path / "run", max_steps=30, val_every=30,
        checkpoint_every=30, precision="bf16-mixed", accelerator="cpu",
    )  # fmt: skip
    trained = module()
    load_weights(trained, best)
    tuned = Decoder(base.config)
    tuned.load_state_dict(trained.export_state())
    save_decoder(tuned, tmp_path / "model")
    back = load_decoder(tmp_path / "model")
    with torch.no_grad():
        before, after = (
            next_token_loss(model.hidden(ids[:, :-1]), ids[:, 1:], model.head_weight).item()
            for model in (base, back)
        )
    assert after < 0.7 * before
    assert (tmp_path / "run/best.ckpt").stat().st_size < (
        tmp_path / "model/model.safetensors"
    ).stat().st_size
