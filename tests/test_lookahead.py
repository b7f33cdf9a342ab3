"""A decoder that reads guesses of the next ids draws what it draws id by id."""

import pytest
import torch

from cm3_decoding import (
    CodeBlock,
    Forced,
    Interleaved,
    Row,
    SamplingConfig,
    TextUntil,
    generate_rows,
    streams,
)
from cm3_decoding.contract import check_language_model
from cm3_model import Decoder, DecoderConfig, compile_decoding, pack_weights, shared_prefixes

CODES = CodeBlock(start=32, stop=96, length=20)
TEXT = TextUntil(start=0, stop=32, stop_ids=(1, 2, 3), max_new_tokens=12)
BOTH = Interleaved(
    text=TextUntil(start=1, stop=31, stop_ids=(1, 2), max_new_tokens=6),
    picture=CodeBlock(start=32, stop=96, length=5),
    open_id=31,
    close_ids=(30,),
    max_pictures=2,
)
CONFIGS = [
    SamplingConfig(guidance_scale=2.0, top_p=0.9),
    SamplingConfig(sampler="cd-k", cd_alpha=0.2),
    SamplingConfig(sampler="greedy", guidance_scale=1.5),
    SamplingConfig(temperature=0.7, top_k=20),
]
KINDS = {
    "paper": {},
    "places": {"positions": "rotary-places", "image_ids": (32, 96)},
    "grouped": {"positions": "rotary", "num_kv_heads": 1},
    "untied": {"tie_embeddings": False, "activation": "swiglu", "norm": "rms"},
}


def decoder(**changes):
    shape = {"vocab_size": 96, "max_length": 128, "num_layers": 2, "width": 32, "num_heads": 4}
    model = Decoder(DecoderConfig(**(shape | changes))).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():  # mild, so that some guesses are right
            weight.copy_(torch.randn(weight.shape, generator=generator) / 5)
    return model


@pytest.fixture
def rows():
    document = torch.arange(40) % 29 + 3
    generator = torch.Generator().manual_seed(1)
    made = []
    for number in range(12):
        text = torch.randint(3, 29, (1 + number % 5,), generator=generator)
        before = document if number % 3 else document[:7]
        made.append(
            Row(
                prompts={
                    "conditional": torch.cat([before, text]),
                    "unconditional": torch.cat([before, torch.tensor([0])]),
                },
                segments=[[CODES], [TEXT], [Forced(ids=(5, 6, 7)), CODES], [BOTH]][number % 4],
                config=CONFIGS[number % 3 if number % 4 else 3],
                seed=number,
            )
        )
    return made


def count_passes(model, monkeypatch):
    passes, plain = [], model.decode_several

    def counted(ids, *others):
        passes.append(ids.shape[1])
        return plain(ids, *others)

    monkeypatch.setattr(model, "decode_several", counted)
    return passes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shares", [False, True])
def test_ids_are_those_drawn_one_by_one(rows, kind, shares, monkeypatch):
    monkeypatch.setattr(shared_prefixes, "WORTH", 1 if shares else 10**9)
    monkeypatch.setattr(streams, "STEM_WORTH", 1 if shares else 10**9)
    model = decoder(**KINDS[kind])
    passes = count_passes(model, monkeypatch)
    wanted = generate_rows(model, rows, batch_size=5)
    plain = len(passes)
    for lookahead in (2, 6, 30):
        for batch_size in (1, 5, 12):
            found = generate_rows(model, rows, batch_size=batch_size, lookahead=lookahead)
            assert all(map(torch.equal, found, wanted)), (lookahead, batch_size)
    passes.clear()
    generate_rows(model, rows, batch_size=5, lookahead=6)
    assert len(passes) < 0.9 * plain


def test_a_compiled_step_looks_ahead(rows):
    wanted = generate_rows(decoder(), rows[:4], batch_size=2)
    model = compile_decoding(decoder(max_length=256), backend="eager")
    model.load_state_dict(decoder().state_dict() | {
        "position_embedding.weight": torch.nn.functional.pad(
            decoder().position_embedding.weight.detach(), (0, 0, 0, 128))
    })  # fmt: skip
    found = generate_rows(model, rows[:4], batch_size=2, lookahead=4)
    assert all(map(torch.equal, found, wanted))
    torch.compiler.reset()


def test_packed_weights_look_ahead(rows):
    model = pack_weights(decoder(), 4)
    wanted = generate_rows(model, rows, batch_size=2)
    found = generate_rows(model, rows, batch_size=2, lookahead=5)
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("kind", KINDS)
def test_our_decoder_keeps_what_a_look_ahead_is_promised(kind):
    with torch.no_grad():
        check_language_model(decoder(**KINDS[kind]), 96)
