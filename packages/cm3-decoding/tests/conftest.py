import pytest
import torch

VOCAB_SIZE = 30
CONTEXT = 40


class TableModel:
    """A language model without weights to train: logits depend on the sum and the last of all ids.

    Everything it remembers of a row is an int, so its logits are exactly the same in any batch.
    """

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.by_sum = torch.randn(VOCAB_SIZE, VOCAB_SIZE, generator=generator) * 2
        self.by_last = torch.randn(VOCAB_SIZE, VOCAB_SIZE, generator=generator) * 2
        self.rows_read = []

    def make_cache(self, batch_size, length):
        if length > CONTEXT:
            raise ValueError(f"length: wanted at most {CONTEXT}, got {length}")
        return {
            "sum": torch.zeros(batch_size, dtype=torch.long),
            "used": torch.zeros(batch_size, dtype=torch.long),
            "length": length,
        }

    def prefill(self, input_ids, lengths, cache):
        counts = torch.arange(input_ids.shape[1]) < lengths[:, None]
        return self._read(
            (input_ids * counts).sum(1), lengths, cache, self._last(input_ids, lengths)
        )

    def decode_one_token(self, input_ids, cache):
        return self._read(input_ids, torch.ones_like(input_ids), cache, input_ids)

    def _last(self, input_ids, lengths):
        return input_ids.gather(1, lengths[:, None] - 1)[:, 0]

    def _read(self, added, lengths, cache, last):
        cache["sum"] += added
        cache["used"] += lengths
        assert cache["used"].max() <= cache["length"], "read more than there is room for"
        self.rows_read.append(len(last))
        return self.by_sum[cache["sum"] % VOCAB_SIZE] + self.by_last[last]

    def logits(self, ids):
        """Without a cache: logits (V,) after ids (length,)."""
        return self.by_sum[int(ids.sum()) % VOCAB_SIZE] + self.by_last[int(ids[-1])]


class JoiningCache(dict):
    """A cache of the table model whose rows come and go."""

    def select_rows(self, rows):
        self["sum"], self["used"] = self["sum"][rows], self["used"][rows]

    def join(self, other):
        self["sum"] = torch.cat([self["sum"], other["sum"]])
        self["used"] = torch.cat([self["used"], other["used"]])
        self["length"] = max(self["length"], other["length"])


class LookaheadCache(JoiningCache):
    """One whose last ids can be taken back, too."""

    def forget(self, counts):
        rows = torch.arange(len(counts))
        self["used"] = self["used"] - counts
        self["sum"] = torch.stack(self["sums"])[len(self["sums"]) - 1 - counts, rows]


class LookaheadModel(TableModel):
    """The table model, which also reads several ids in one pass."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.passes = []

    def make_cache(self, batch_size, length):
        return LookaheadCache(super().make_cache(batch_size, length))

    def decode_one_token(self, input_ids, cache):
        self.passes.append(1)
        return super().decode_one_token(input_ids, cache)

    def decode_several(self, input_ids, cache, start, stop):
        self.passes.append(input_ids.shape[1])
        cache["sums"] = [cache["sum"].clone()]
        logits = []
        for ids in input_ids.unbind(1):
            logits.append(super().decode_one_token(ids, cache)[:, start:stop])
            cache["sums"].append(cache["sum"].clone())
        return torch.stack(logits, 1)


class RealDecoder:
    """A small decoder with attention and 8,192 codes, whose products round as the batch decides.

    Its cache holds ids alone, and every pass reads all of them.
    """

    def __init__(self, dtype, vocab_size=8256, width=64, heads=4, layers=2):
        generator = torch.Generator().manual_seed(0)

        def weight(*shape):
            return (torch.randn(shape, generator=generator) / shape[-1] ** 0.5).to(dtype)

        self.embedding, self.positions = weight(vocab_size, width) * 8, weight(256, width) * 8
        self.layers = [
            (weight(3 * width, width), weight(width, width), weight(4 * width, width),
             weight(width, 4 * width))
            for _ in range(layers)
        ]  # fmt: skip
        self.output, self.heads = weight(vocab_size, width) * 2, heads

    def make_cache(self, batch_size, length):
        return {"ids": torch.zeros(batch_size, 0).long(), "lengths": torch.zeros(batch_size).long()}

    def prefill(self, input_ids, lengths, cache):
        cache["ids"], cache["lengths"] = input_ids, lengths
        return self._read(cache)

    def decode_one_token(self, input_ids, cache):
        longer = torch.nn.functional.pad(cache["ids"], (0, 1))
        cache["ids"] = longer.scatter(1, cache["lengths"][:, None], input_ids[:, None])
        cache["lengths"] = cache["lengths"] + 1
        return self._read(cache)

    def _read(self, cache):
        functional = torch.nn.functional
        x = self.embedding[cache["ids"]] + self.positions[: cache["ids"].shape[1]]
        for qkv, out, up, down in self.layers:
            parts = functional.layer_norm(x, x.shape[-1:]) @ qkv.T
            parts = parts.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(*parts, is_causal=True)
            x = x + mixed.transpose(1, 2).flatten(2) @ out.T
            x = x + functional.gelu(functional.layer_norm(x, x.shape[-1:]) @ up.T) @ down.T
        last = x[torch.arange(len(x)), cache["lengths"] - 1]
        return functional.layer_norm(last, last.shape[-1:]) @ self.output.T


@pytest.fixture
def real_decoder():
    return RealDecoder


@pytest.fixture
def model():
    return TableModel()


@pytest.fixture
def joining(model, monkeypatch):
    make_cache = model.make_cache
    monkeypatch.setattr(model, "make_cache", lambda *size: JoiningCache(make_cache(*size)))
    return model


@pytest.fixture
def looking():
    return LookaheadModel()


@pytest.fixture
def prompts():
    return [torch.tensor([3, 1, 4, 1, 5]), torch.tensor([9, 2]), torch.tensor([6, 5, 3])]


@pytest.fixture
def unconditional():
    return [torch.tensor([3, 0]), torch.tensor([9, 0, 0, 0]), torch.tensor([6, 0])]
