"""Decoding for token-based image models: guidance, CD-K, constraints, re-ranking."""

from cm3_decoding.adapters import TransformersModel
from cm3_decoding.constraints import (
    CodeBlock,
    Constraint,
    ConstraintSegment,
    Forced,
    Interleaved,
    TextUntil,
)
from cm3_decoding.contrastive import cd_k
from cm3_decoding.generate import Step, generate
from cm3_decoding.guidance import classifier_free_guidance, image_text_guidance
from cm3_decoding.interface import INTERFACE_VERSION, LanguageModel
from cm3_decoding.processors import apply_temperature, restrict, top_k_filter, top_p_filter
from cm3_decoding.rerank import best_of, candidate_pool, rerank
from cm3_decoding.sampling import SamplingConfig

__all__ = [
    "INTERFACE_VERSION",
    "CodeBlock",
    "Constraint",
    "Forced",
    "Interleaved",
    "LanguageModel",
    "SamplingConfig",
    "ConstraintSegment",
    "Step",
    "TextUntil",
    "TransformersModel",
    "apply_temperature",
    "best_of",
    "candidate_pool",
    "cd_k",
    "classifier_free_guidance",
    "generate",
    "image_text_guidance",
    "rerank",
    "restrict",
    "top_k_filter",
    "top_p_filter",
]
