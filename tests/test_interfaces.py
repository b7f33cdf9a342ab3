"""Each provider fits the Protocol of each of its consumers, and they agree on what they pass."""

from importlib import import_module
from types import ModuleType

import numpy as np
import pytest
import torch

from cm3_decoding import (
    CodeBlock,
    Row,
    SamplingConfig,
    contract as decoding_contract,
    generate_rows,
    streams,
)
from cm3_decoding.config import Sampler
from cm3_decoding.interface import LanguageModel
from cm3_imagetok import VQGAN, VQGANConfig, contract as imagetok_contract
from cm3_imagetok.interface import ImageTokenizer
from cm3_model import Decoder, DecoderConfig, KVCache, shared_prefixes
from cm3_model.interface import CausalLM
from cm3_retrieval import ClipEncoder
from cm3_retrieval.interface import Encoder
from cm3_texttok import DocumentLayout, TextTokenizer, Vocabulary, contract as texttok_contract
from cm3_texttok.interface import Tokenizer
from cm3_train import CM3Config, cm3_transform, contract as train_contract, undo_cm3
from cm3_train.interface import TrainableModel

WORDS = ["red apple, food & drink", "a fox", "woman firefighter: medium skin tone"] * 20


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(WORDS, vocab_size=340, num_masks=8)


@pytest.fixture(scope="module")
def vocabulary(tokenizer) -> Vocabulary:
    return Vocabulary.from_tokenizer(tokenizer, 16)


@pytest.fixture(scope="module")
def decoder(vocabulary) -> Decoder:
    torch.manual_seed(0)
    config = DecoderConfig(
        vocab_size=vocabulary.size, max_length=64, num_layers=2, width=32, num_heads=2
    )
    return Decoder(config).eval()


def test_the_text_tokenizer_is_a_tokenizer(tokenizer):
    provided: Tokenizer = tokenizer
    texttok_contract.check_tokenizer(provided)


def test_the_vqgan_is_an_image_tokenizer():
    config = VQGANConfig(
        image_size=16, channels=8, channel_multipliers=(1, 1), norm_groups=4, z_channels=8,
        embed_dim=4, num_codes=16, num_res_blocks=1,
    )  # fmt: skip
    provided: ImageTokenizer = VQGAN(config).eval()
    imagetok_contract.check_image_tokenizer(provided, 16)


def test_clip_is_an_encoder():
    provided: type[Encoder] = ClipEncoder
    for name in ("dim", "encoder_id", "encode_texts", "encode_images"):
        assert hasattr(provided, name)


def test_the_decoder_serves_training_and_decoding(decoder, vocabulary):
    lm: CausalLM = decoder
    for_decoding: LanguageModel = decoder
    for_training: TrainableModel = decoder
    assert lm is for_decoding is for_training
    decoding_contract.check_language_model(decoder, vocabulary.size)
    train_contract.check_trainable_model(decoder, vocab_size=vocabulary.size)


@pytest.mark.parametrize("worth", [1, 10**9])
def test_candidates_draw_the_same_whether_they_share_their_prompt(decoder, monkeypatch, worth):
    monkeypatch.setattr(streams, "STEM_WORTH", worth)
    monkeypatch.setattr(shared_prefixes, "WORTH", worth)
    ids = torch.randint(4, 40, (2, 20), generator=torch.Generator().manual_seed(0))
    samplers: list[Sampler] = ["top-p", "cd-k"]
    rows = [
        Row(
            prompts={
                "conditional": document,
                "unconditional": torch.cat([document[:17], ids[0, :1]]),
            },
            segments=[CodeBlock(start=5, stop=40, length=6 + seed % 3)],
            config=SamplingConfig(sampler=sampler, guidance_scale=2.0),
            seed=seed,
        )
        for document in ids
        for sampler in samplers
        for seed in range(3)
    ]
    together = generate_rows(decoder, rows, batch_size=8)  # some wait, and join
    for row, found in zip(rows, together, strict=True):
        (alone,) = generate_rows(NoSharing(decoder), [row])
        assert torch.equal(found, alone)


class NoSharing:
    """A decoder whose caches share nothing."""

    def __init__(self, decoder: Decoder) -> None:
        self.prefill, self.decode_one_token = decoder.prefill, decoder.decode_one_token
        self.decoder = decoder

    def make_cache(self, batch_size: int, length: int) -> KVCache:
        cache = self.decoder.make_cache(batch_size, length)
        cache.shares_prefixes = False
        return cache


def test_training_and_prompts_lay_documents_out_alike(tokenizer, vocabulary):
    layout = DocumentLayout(vocabulary)
    text = tokenizer.encode(WORDS[0])
    codes = np.arange(16) % 16
    document = layout.training([(text, codes)])
    whole_caption = cm3_transform(
        document,
        config=CM3Config(mask_probability=1.0, whole_text_probability=1.0),
        rng=np.random.default_rng(0),
        eos_id=vocabulary.eos_id,
        break_id=vocabulary.break_id,
        infill_id=vocabulary.infill_id,
        mask_ids=vocabulary.mask_ids,
    )
    prompt = layout.caption_prompt(codes)
    np.testing.assert_array_equal(whole_caption[: len(prompt)], prompt)
    np.testing.assert_array_equal(whole_caption[len(prompt) :], [*text, vocabulary.eos_id])
    unconditional = layout.unconditional_prompt()
    np.testing.assert_array_equal(whole_caption[: len(unconditional)], unconditional)


@pytest.mark.parametrize("seed", range(20))
def test_training_and_prompts_cut_regions_alike(tokenizer, vocabulary, seed):
    layout = DocumentLayout(vocabulary)
    text, codes = tokenizer.encode(WORDS[1]), np.arange(16)
    document = layout.training([(text, codes)])
    transformed = cm3_transform(
        document,
        config=CM3Config(mask_probability=1.0, whole_text_probability=0.0, region_probability=1.0),
        rng=np.random.default_rng(seed),
        eos_id=vocabulary.eos_id,
        break_id=vocabulary.break_id,
        infill_id=vocabulary.infill_id,
        mask_ids=vocabulary.mask_ids,
        grid=(4, 4),
    )
    body = transformed[: int(np.flatnonzero(transformed == vocabulary.infill_id)[0])]
    kept = vocabulary.ids_to_codes(body[vocabulary.is_image(body)])
    masked = ~np.isin(codes, kept)
    prompt = layout.infill_prompt(text, codes, masked)
    np.testing.assert_array_equal(transformed[: len(prompt)], prompt)
    expected = []
    moved = list(codes[masked])
    for mask_id, length in layout.infill_continuations(masked):
        expected += [] if mask_id is None else [mask_id]
        expected += list(vocabulary.codes_to_ids(np.array([moved.pop(0) for _ in range(length)])))
    np.testing.assert_array_equal(transformed[len(prompt) :], [*expected, vocabulary.eos_id])
    restored = undo_cm3(transformed, infill_id=vocabulary.infill_id, mask_ids=vocabulary.mask_ids)
    np.testing.assert_array_equal(restored, document)


@pytest.mark.parametrize(
    "name", ["cm3_decoding", "cm3_imagetok", "cm3_model", "cm3_retrieval", "cm3_train"]
)
def test_every_public_name_is_there_when_it_is_first_used(name):
    package = import_module(name)
    assert len(package.__all__) > 5
    for public in package.__all__:
        assert not isinstance(getattr(package, public), ModuleType), public
