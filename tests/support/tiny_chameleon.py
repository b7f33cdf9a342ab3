"""A download of Chameleon's shape with random weights: two layers, 65,536 ids, 8,192 codes."""

import json
from pathlib import Path

import numpy as np
import torch

from cm3_imagetok import VQGAN, VQGANConfig, export_vqgan

CODES, SIDE = 8192, 16
LETTERS = "ABCDEFGHIJ"


def image_name(code: int) -> str:
    return f"IMGIMG{''.join(LETTERS[int(digit)] for digit in str(code))}Z"


def names_of_ids(codes: list[int]) -> list[str]:
    """Names of the ids below 16384, as Chameleon's; `codes` are what the image ids mean."""
    names = ["<s>", "<pad>", "</s>", "<unk>", *map(image_name, codes), "<eoss>", "<racm3:break>"]
    return names + [f"<reserved{place - 4:05d}>" for place in range(len(names), 16384)]


def write_tokenizer(path: Path, codes: list[int]) -> None:
    """Write a byte-level BPE of a few merges with Chameleon's ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["Question: what colour is it? Answer: a red fox"] * 9, trainer)
    settings = json.loads(tokenizer.to_str())
    names = names_of_ids(codes)
    pieces = {name: 16384 + n for n, name in enumerate(settings["model"]["vocab"])}
    settings["model"]["vocab"] = {name: n for n, name in enumerate(names)} | pieces
    settings["model"]["vocab"]["the last piece"] = 65535
    settings["added_tokens"] = [
        dict(id=n, content=names[n], special=True, single_word=False, lstrip=False, rstrip=False,
             normalized=False)
        for n in (0, 1, 2, 3, 8196, 8197, 8710)
    ]  # fmt: skip
    path.write_text(json.dumps(settings))


def write_download(folder: Path) -> None:
    """Write what transformers writes of a tiny Chameleon, a tokenizer.json, and a whole VQGAN."""
    import transformers

    # as shuffled ids would be named: id 4 + c is not code c
    codes = np.random.default_rng(0).permutation(CODES).tolist()
    write_tokenizer(folder / "tokenizer.json", codes)
    torch.manual_seed(0)
    config = transformers.ChameleonConfig(
        vocab_size=65536, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512,
        initializer_range=0.2, vocabulary_map=named_ids(folder / "tokenizer.json"),
        vq_config=dict(resolution=SIDE, base_channels=32, channel_multiplier=[1, 1, 1],
                       num_res_blocks=1, embed_dim=8, latent_channels=8, num_embeddings=CODES),
    )  # fmt: skip
    theirs = transformers.ChameleonForConditionalGeneration(config)
    theirs.save_pretrained(folder, max_shard_size="4MB")
    whole = VQGAN(
        VQGANConfig(
            image_size=SIDE, channels=32, channel_multipliers=(1, 1, 1), num_res_blocks=1,
            attention_resolutions=(), z_channels=8, embed_dim=8, num_codes=CODES,
        )
    )  # fmt: skip
    state = {n.removeprefix("model.vqmodel."): v for n, v in theirs.state_dict().items()}
    fitting = {n: v for n, v in state.items() if n in whole.state_dict()}
    whole.load_state_dict({**whole.state_dict(), **fitting})
    export_vqgan(whole, folder / "vqgan.ckpt", "taming")


def named_ids(path: Path) -> dict[str, int]:
    return json.loads(path.read_text())["model"]["vocab"] | {"<image>": 8711}
