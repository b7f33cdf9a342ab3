"""Decoding for token-based image models: guidance, CD-K, constraints, re-ranking."""

from cm3_decoding.constraints import CodeBlock, Constraint, Forced, Segment, TextUntil
from cm3_decoding.contrastive import cd_k
from cm3_decoding.generate import SamplingConfig, generate
from cm3_decoding.guidance import classifier_free_guidance
from cm3_decoding.interface import INTERFACE_VERSION, LanguageModel
from cm3_decoding.processors import apply_temperature, restrict, top_k_filter, top_p_filter
from cm3_decoding.rerank import best_of, candidate_pool, rerank

__all__ = [
    "INTERFACE_VERSION",
    "CodeBlock",
    "Constraint",
    "Forced",
    "LanguageModel",
    "SamplingConfig",
    "Segment",
    "TextUntil",
    "apply_temperature",
    "best_of",
    "candidate_pool",
    "cd_k",
    "classifier_free_guidance",
    "generate",
    "rerank",
    "restrict",
    "top_k_filter",
    "top_p_filter",
]
