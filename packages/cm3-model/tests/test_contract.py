import pytest
import torch

from cm3_model import CausalLM
from cm3_model.contract import check_language_model


def test_the_decoder_keeps_its_promises(decoder):
    provider: CausalLM = decoder
    check_language_model(provider)


def test_a_model_that_looks_ahead_fails(paper_decoder, monkeypatch):
    honest = paper_decoder.hidden
    monkeypatch.setattr(paper_decoder, "hidden", lambda ids: honest(ids).flip(1).cumsum(1).flip(1))
    with pytest.raises(AssertionError, match="earlier logits ignore later ids"):
        check_language_model(paper_decoder)


def test_a_cache_that_forgets_fails(paper_decoder, monkeypatch):
    honest = paper_decoder.decode_one_token

    def forgetful(input_ids, cache):
        cache.rewind(torch.zeros_like(cache.lengths))
        return honest(input_ids, cache)

    monkeypatch.setattr(paper_decoder, "decode_one_token", forgetful)
    with pytest.raises(AssertionError, match="decode_one_token equals uncached"):
        check_language_model(paper_decoder)
