"""Which matrices of a model map hidden states to hidden states: those are Muon's.

Told by what a module is and where it stands, never by its name, so that wrapping a model or calling
its head otherwise changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor, nn

_FUSED = re.compile(r"(^|[._])\w*qkv\w*([._]|$)")
_MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def hidden_matrices(model: nn.Module) -> list[str]:
    """Return the names of the trainable parameters that map hidden states to hidden states.

    Candidates are the weights of linear layers, of convolutions (the matrix of their outputs by all
    else), of PyTorch's attention and of its recurrent layers. Bare parameters, such as positions,
    are none. The ways into and out of the model are left out:

    - what shares its weight with an `nn.Embedding`;
    - what a module declares as its `head_weight`;
    - a linear layer with as many outputs as an embedding has rows: it maps to the vocabulary. In a
      stack of blocks (an `nn.ModuleList`) that the embedding is not in, it is a coincidence;
    - linear layers and convolutions right beside a stack of blocks, in the module that holds it.
    """
    return list(matrix_blocks(model))


def matrix_blocks(model: nn.Module) -> dict[str, int]:
    """Return the hidden matrices by name, and of how many stacked ones each consists.

    That is 3 for fused queries, keys and values, the number of gates for a recurrent layer, else 1.
    """
    outer = {id(weight) for weight in _outer(model)}
    found: dict[str, int] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            blocks = _blocks(module, name, parameter)
            if blocks and parameter.requires_grad and id(parameter) not in outer:
                found[name] = blocks
    return found


def _blocks(module: nn.Module, name: str, parameter: Tensor) -> int:
    """Return of how many matrices a parameter of a module consists, 0 where it is no matrix."""
    own = name.rpartition(".")[2]
    if isinstance(module, _MAPS) and own == "weight":
        fused = _FUSED.search(name) and parameter.shape[0] == 3 * parameter.shape[1]
        return 3 if fused else 1
    if isinstance(module, nn.MultiheadAttention) and own.endswith("proj_weight"):
        return 3 if own == "in_proj_weight" else 1
    if isinstance(module, nn.RNNBase) and own.startswith(("weight_ih", "weight_hh")):
        return parameter.shape[0] // module.hidden_size
    return 0


def _outer(model: nn.Module) -> Iterator[Tensor]:
    modules = dict(model.named_modules())
    tables = {n: m for n, m in modules.items() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    stacks = [name for name, module in modules.items() if _is_stack(module)]
    for name, module in modules.items():
        if name in tables:
            yield tables[name].weight
        if isinstance(declared := getattr(module, "head_weight", None), Tensor):
            yield declared
        if any(_is_stack(child) for child in module.children()):
            yield from (child.weight for child in module.children() if isinstance(child, _MAPS))
        if isinstance(module, nn.Linear):
            block = _block_around(name, stacks)
            for table_name, table in tables.items():
                if module.out_features == table.num_embeddings and table_name.startswith(block):
                    yield module.weight


def _is_stack(module: nn.Module) -> bool:
    """Tell whether a module is a list of blocks; a list of single layers is none."""
    return isinstance(module, nn.ModuleList) and any(
        len(list(block.children())) > 0 for block in module
    )


def _block_around(name: str, stacks: list[str]) -> str:
    """Return the start of all names in the innermost block that `name` is a part of, or nothing.

    Of `decoder.blocks.3.mlp.up`, with `decoder.blocks` a stack, that is `decoder.blocks.3.`.
    """
    found = ""
    for stack in stacks:
        start = f"{stack}." if stack else ""
        number, dot, _ = name.removeprefix(start).partition(".")
        if name.startswith(start) and dot and len(start) >= len(found):
            found = f"{start}{number}."
    return found
