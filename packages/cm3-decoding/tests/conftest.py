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


@pytest.fixture
def model():
    return TableModel()


@pytest.fixture
def prompts():
    return [torch.tensor([3, 1, 4, 1, 5]), torch.tensor([9, 2]), torch.tensor([6, 5, 3])]


@pytest.fixture
def unconditional():
    return [torch.tensor([3, 0]), torch.tensor([9, 0, 0, 0]), torch.tensor([6, 0])]
