"""A training that starts from weights that are there, such as another run's (fine-tuning)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from cm3_model import Decoder, load_decoder, read_manifest

START_VALUES = {"init_std", "position_init_std"}
"""Fields of `DecoderConfig` that mean nothing once there are weights."""


def start_from(model: Decoder, folder: Path, vocabulary_sha256: str) -> None:
    """Put saved weights into a decoder.

    Args:
        model: What will be trained.
        folder: As `cm3_model.save_decoder` writes it; an imported model names no vocabulary.
        vocabulary_sha256: Of the ids that the training uses.

    Raises:
        ValueError: The weights are damaged, of another shape, or of another vocabulary: other
            tokenizers give the ids other meanings.
    """
    theirs = read_manifest(folder).get("extra", {}).get("vocabulary_sha256", vocabulary_sha256)
    saved = load_decoder(folder)
    free = set(START_VALUES)
    if model.config.positions != "learned":
        free.add("max_length")
    wanted, found = asdict(model.config), asdict(saved.config)
    other = [
        f"{name} {wanted[name]} (there {found[name]})"
        for name in wanted.keys() - free
        if wanted[name] != found[name]
    ]
    if other:
        raise ValueError(f"decoder.init_from: {folder}: wanted {', '.join(sorted(other))}")
    if theirs != vocabulary_sha256:
        raise ValueError(
            f"decoder.init_from: {folder}: wanted weights for the vocabulary "
            f"{vocabulary_sha256[:12]}, got {theirs[:12]}; name that run's tokenizers as "
            "texttok.tokenizer and imagetok.tokenizer"
        )
    model.load_state_dict(saved.state_dict())
