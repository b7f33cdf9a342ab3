import pytest
import torch

from cm3_decoding import LanguageModel
from cm3_decoding.contract import check_language_model


def test_the_tests_own_model_keeps_the_promises(model):
    provider: LanguageModel = model
    check_language_model(provider, 30)


def test_a_model_that_reads_its_padding_fails(model, monkeypatch):
    monkeypatch.setattr(model, "_last", lambda input_ids, lengths: input_ids[:, -1])
    with pytest.raises(AssertionError, match="a row in a batch"):
        check_language_model(model, 30)


def test_a_model_that_forgets_fails(model, monkeypatch):
    honest = model.decode_one_token

    def forgetful(input_ids, cache):
        cache["sum"].zero_()
        return honest(input_ids, cache)

    monkeypatch.setattr(model, "decode_one_token", forgetful)
    with pytest.raises(AssertionError, match="a row in a batch"):
        check_language_model(model, 30)


def test_logits_of_the_wrong_size_fail(model):
    with pytest.raises(AssertionError, match=r"logits \(B, V\)"):
        check_language_model(model, 29)


def test_nan_fails(model):
    model.by_last = torch.full_like(model.by_last, float("nan"))
    with pytest.raises(AssertionError, match="finite"):
        check_language_model(model, 30)


def test_a_model_that_reads_ahead_is_checked_too(looking, monkeypatch):
    check_language_model(looking, 30)
    decode = looking.decode_several
    monkeypatch.setattr(looking, "decode_several", lambda *given: decode(*given).flip(1))
    with pytest.raises(AssertionError, match="the logits after each id"):
        check_language_model(looking, 30)
    monkeypatch.setattr(looking, "decode_several", decode)
    monkeypatch.setattr(looking.make_cache(1, 1).__class__, "forget", lambda cache, counts: None)
    with pytest.raises(AssertionError, match="that `forget` leaves|a row goes on"):
        check_language_model(looking, 30)
