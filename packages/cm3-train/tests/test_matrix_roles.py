"""Heads and embeddings go by what they are: every model here is tried under other names too."""

import pytest
import torch
from torch import Tensor, nn

from cm3_train import hidden_matrices

VOCABULARY, WIDTH = 40, 8
HEADS = ["output", "lm_head", "to_logits", "classifier", "unembed", "proj_out", "x"]


class Block(nn.Module):
    def __init__(self, hidden: int = 4 * WIDTH) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.head_mix = nn.Linear(WIDTH, WIDTH)  # named as a head, and is none
        self.output = nn.Linear(WIDTH, hidden)
        self.embed = nn.Linear(hidden, WIDTH)
        self.scale = nn.Parameter(torch.ones(2, WIDTH))


OF_A_BLOCK = {"head_mix.weight", "output.weight", "embed.weight"}


class Model(nn.Module):
    def __init__(self, head: str = "output", *, hidden: int = 4 * WIDTH, tied: bool = False):
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Parameter(torch.zeros(16, WIDTH))
        self.blocks = nn.ModuleList(Block(hidden) for _ in range(2))
        self.add_module(head, nn.Linear(WIDTH, VOCABULARY, bias=False))
        if tied:
            self.get_submodule(head).weight = self.table.weight


def of_blocks(prefix=""):
    return {f"{prefix}blocks.{n}.{name}" for n in range(2) for name in OF_A_BLOCK}


class Wrapper(nn.Module):
    """Holds the blocks' model, and the head away from them."""

    def __init__(self, head: str) -> None:
        super().__init__()
        self.inner = Model()
        del self.inner.output
        self.add_module(head, nn.Linear(WIDTH, VOCABULARY))


@pytest.mark.parametrize("head", HEADS)
def test_the_head_is_left_out_whatever_its_name(head):
    assert set(hidden_matrices(Model(head))) == of_blocks()
    assert set(hidden_matrices(Model(head, tied=True))) == of_blocks()
    assert set(hidden_matrices(Wrapper(head))) == of_blocks("inner.")


def test_the_head_is_left_out_wherever_the_model_is_wrapped():
    wrapped = {
        "decoder.": nn.ModuleDict({"decoder": Model()}),
        "a.b.": nn.ModuleDict({"a": nn.ModuleDict({"b": Model("to_logits")})}),
        "0.": nn.Sequential(Model("classifier"), nn.ReLU()),
        "module.": nn.DataParallel(Model("unembed")),
        "_orig_mod.": torch.compile(Model()),
        "1.": nn.ModuleList([Model(), Model("proj_out")]),
    }
    for prefix, model in wrapped.items():
        found = {name for name in hidden_matrices(model) if name.startswith(prefix)}
        assert found == of_blocks(prefix), prefix


def test_as_wide_as_the_vocabulary_within_a_block_is_a_coincidence():
    assert set(hidden_matrices(Model(hidden=VOCABULARY))) == of_blocks()


def test_several_heads_and_plain_sequences():
    heads = nn.ModuleDict(
        {
            "table": nn.Embedding(VOCABULARY, WIDTH),
            "mix": nn.Linear(WIDTH, WIDTH),
            "each": nn.ModuleList([nn.Linear(WIDTH, VOCABULARY) for _ in range(3)]),
        }
    )
    assert hidden_matrices(heads) == ["mix.weight"]
    layers = nn.Embedding(VOCABULARY, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, VOCABULARY)
    assert hidden_matrices(nn.Sequential(*layers)) == ["1.weight"]
    assert hidden_matrices(nn.ModuleList(layers)) == ["1.weight"]


def test_what_a_model_declares_as_its_head_is_left_out():
    class Declares(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.last = nn.Linear(8, 8), nn.Linear(8, 5)

        @property
        def head_weight(self) -> Tensor:
            return self.last.weight

    assert hidden_matrices(nn.ModuleDict({"inner": Declares()})) == ["inner.mix.weight"]


def test_convolutions_beside_a_stack_are_ways_in_and_out():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3)
            self.levels = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv1d(4, 4, 3))])
            self.last = nn.Conv2d(4, 6, 3)

    model = nn.ModuleDict({"encoder": Encoder(), "mix": nn.Conv2d(6, 6, 1)})
    assert hidden_matrices(model) == [
        "encoder.levels.0.0.weight",
        "encoder.levels.0.1.weight",
        "mix.weight",
    ]


def test_attention_and_recurrent_layers_of_pytorch():
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "gru": nn.GRU(8, 6)})
    assert hidden_matrices(model) == [
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "gru.weight_ih_l0",
        "gru.weight_hh_l0",
    ]


def test_frozen_matrices_and_bare_parameters_are_left_out(tiny):
    model = tiny.Model()
    assert hidden_matrices(model) == ["qkv.weight", "mix.weight"]
    model.mix.requires_grad_(False)
    model.bare = nn.Parameter(torch.zeros(16, 16))
    assert hidden_matrices(model) == ["qkv.weight"]
