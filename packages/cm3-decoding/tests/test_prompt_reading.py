"""Prompts are read once, and the logits after them are those of each read alone."""

import numpy as np
import pytest
import torch

from cm3_decoding import streams
from cm3_decoding.prompt_reading import make_cache, read_prompts

DOCUMENT = [3, 8, 1, 5, 9, 2, 6]
TEXTS = [[*DOCUMENT, 7], [*DOCUMENT, 4, 1], [2, 7], [*DOCUMENT, 7], [2, 7]]


@pytest.mark.parametrize(("kind", "passes"), [("stays", [5]), ("selects", [3]), ("shares", [2, 3])])
def test_logits_after_prompts_are_those_of_each_alone(model, looking, monkeypatch, kind, passes):
    monkeypatch.setattr(streams, "STEM_WORTH", 5)
    reader = model if kind == "stays" else looking
    reader.rows_read.clear()
    reading, _ = streams.lay_out([{"conditional": torch.tensor(text)} for text in TEXTS])
    if kind == "shares":
        cache_of = type(reader.make_cache(1, 1))
        monkeypatch.setattr(cache_of, "shares_prefixes", True, raising=False)
    used, limits = np.array([len(text) for text in TEXTS]), np.full(5, 4)
    cache, length = make_cache(reader, reading, used, limits)
    assert length == 9 + 4 - 1
    logits = read_prompts(reader, reading, cache)
    wanted = torch.stack([reader.logits(torch.tensor(text)) for text in TEXTS])
    torch.testing.assert_close(logits, wanted)
    assert reader.rows_read == passes
    new = torch.tensor([1, 2, 3, 4, 5])
    texts = [torch.tensor([*text, int(one)]) for text, one in zip(TEXTS, new, strict=True)]
    torch.testing.assert_close(
        reader.decode_one_token(new, cache), torch.stack([reader.logits(text) for text in texts])
    )


def test_a_prompt_that_does_not_fit_is_named(model):
    reading, _ = streams.lay_out([{"conditional": torch.tensor(text)} for text in TEXTS])
    used, limits = np.array([len(text) for text in TEXTS]), np.array([4, 40, 4, 4, 4])
    with pytest.raises(ValueError, match="^prompts: a prompt of 9 and 40 new ids do not fit"):
        make_cache(model, reading, used, limits)
