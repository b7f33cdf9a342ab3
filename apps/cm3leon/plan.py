"""Recipes in the plain numbers of `cm3_train.plan`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cm3_model import DecoderConfig, num_parameters, operations_a_token
from cm3_train import LoraConfig
from cm3_train.plan import TARGETS, Assumptions, Layout, Shape, Strategy, cost_of, memory_of_a_step
from cm3leon.decoder_recipe import DecoderRecipe
from cm3leon.recipe import Recipe

GIB = 2**30
EIGHT_BITS = 2 * (1 + 4 / 256)
"""Bytes of the state of a weight: two moments, and a float32 for each block of 256 of them."""


def shape_of(config: DecoderConfig) -> Shape:
    """Return a decoder's numbers."""
    tables = config.vocab_size * (1 if config.tie_embeddings else 2)
    if config.positions == "learned":
        tables += config.max_length
    count = num_parameters(config)
    return Shape(
        num_layers=config.num_layers,
        width=config.width,
        mlp_width=config.mlp_hidden,
        num_heads=config.num_heads,
        vocab_size=config.vocab_size,
        activation=config.activation,
        num_parameters=count,
        block_parameters=count - tables * config.width,
        kv_width=config.kv_heads * config.head_width,
        scaled_norms=config.norm == "rms",
        normed_heads=config.qk_norm_affine,
        rotary=config.positions != "learned",
    )


def config_of(recipe: Recipe) -> DecoderConfig:
    """Return the decoder that a recipe trains, if its own tokenizers have their full size."""
    words, codes = recipe.texttok.vocab_size, recipe.imagetok.model.num_codes
    return recipe.decoder.config(words + codes, (words, words + codes))


def row_of(
    recipe: Recipe, gpus: int, assumed: Assumptions, lora: LoraConfig | None = None
) -> dict[str, Any]:
    """Return what a recipe's decoder needs on a number of GPUs.

    Where there are more GPUs than the recipe's step has rows for, a GPU takes fewer rows.

    Args:
        recipe: Whose decoder is trained.
        gpus: How many there are.
        assumed: Speed and price of one.
        lora: Adapters, if only they are trained.

    Raises:
        ValueError: The recipe's step does not divide among them, or they would split a model whose
            adapters alone are trained.
    """
    decoder, trainer = recipe.decoder, recipe.trainer
    ranks = max(1, gpus // trainer.tensor_parallel)
    length = decoder.max_length if decoder.packed_length is None else decoder.packed_length
    if decoder.tokens_per_step is not None:
        most = max(1, decoder.tokens_per_step // (length * ranks))
        decoder = replace(decoder, batch_size=min(decoder.batch_size, most))
    batches = decoder.accumulate(ranks)
    shared = decoder.batch_size if decoder.tokens_per_step else decoder.batch_size // ranks
    config = config_of(recipe)
    layout = Layout(
        tokens=shared * length,
        strategy=_strategy(recipe, gpus),
        gpus=gpus,
        tensor_parallel=min(trainer.tensor_parallel, gpus),
        checkpointing=decoder.activation_checkpointing,
        averaged=decoder.optim.ema_decay > 0,
        optimizer_bytes=EIGHT_BITS if decoder.optim.name == "adamw8bit" else 8,
        adapter_rank=None if lora is None else lora.rank,
        targets=TARGETS if lora is None else lora.targets,
        bfloat16_base=lora is not None and lora.bfloat16_base,
    )
    shape = shape_of(config)
    memory = memory_of_a_step(shape, layout)
    tokens = decoder.optim.total_steps * shared * length * ranks * batches
    each = operations_a_token(config, decoder.max_length)
    cost = cost_of(shape, layout, each, tokens, assumed)
    return {
        "recipe": recipe.name,
        "gpus": gpus,
        "strategy": layout.strategy,
        "batches": batches,
        "memory_gib": memory.total / GIB,
        "states_gib": (memory.total - memory.activations - memory.working) / GIB,
        "activations_gib": memory.activations / GIB,
        "working_gib": memory.working / GIB,
        "tokens_a_second": cost.tokens_a_second,
        "days": cost.days,
        "dollars": cost.dollars,
        "disk_mb_a_second": cost.disk_bytes_a_second / 1e6,
        "loader_mb_a_second": cost.loader_bytes_a_second / 1e6,
    }


def with_choices(recipe: Recipe, **choices: Any) -> Recipe:
    """Return a recipe with some things chosen otherwise.

    Args:
        recipe: What stays where a choice is None.
        choices: Of `model`, `activation_checkpointing`, `strategy` and `optimizer`, its name.
    """
    chosen = {name: value for name, value in choices.items() if value is not None}
    strategy = chosen.pop("strategy", recipe.trainer.strategy)
    if "optimizer" in chosen:
        chosen["optim"] = replace(recipe.decoder.optim, name=chosen.pop("optimizer"))
    decoder: DecoderRecipe = replace(recipe.decoder, sample_every=0, **chosen)
    trainer = replace(recipe.trainer, strategy=strategy)
    return replace(recipe, decoder=decoder, trainer=trainer)


def _strategy(recipe: Recipe, gpus: int) -> Strategy:
    if gpus == 1:
        return "alone"
    return "fsdp2" if recipe.trainer.strategy == "fsdp2" else "ddp"
