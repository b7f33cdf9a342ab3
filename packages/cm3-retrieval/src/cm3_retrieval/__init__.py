"""Multimodal dense retrieval: CLIP documents, a FAISS memory bank, and CM3Leon's strategy.

What needs open_clip is imported on first use: that takes ten times as long as all the rest.
"""

from typing import TYPE_CHECKING, Any

from cm3_retrieval.contract import check_encoder
from cm3_retrieval.documents import document_vectors, encode_documents, search_documents
from cm3_retrieval.index import build_index, search
from cm3_retrieval.index_plan import IndexConfig, expected_bytes, plan_index
from cm3_retrieval.interface import INTERFACE_VERSION, Encoder
from cm3_retrieval.memory_bank import MemoryBank
from cm3_retrieval.neighbour_table import NeighbourTable
from cm3_retrieval.neighbours import (
    build_neighbour_table,
    inference_context,
    training_context,
)
from cm3_retrieval.strategy import RetrievalConfig, drop_query_tokens, select

if TYPE_CHECKING:
    from cm3_retrieval.encoder import ClipEncoder
    from cm3_retrieval.training import ClipTrainingConfig, train_clip

__all__ = [
    "INTERFACE_VERSION",
    "ClipEncoder",
    "ClipTrainingConfig",
    "Encoder",
    "IndexConfig",
    "MemoryBank",
    "NeighbourTable",
    "RetrievalConfig",
    "build_index",
    "build_neighbour_table",
    "check_encoder",
    "document_vectors",
    "drop_query_tokens",
    "encode_documents",
    "expected_bytes",
    "inference_context",
    "plan_index",
    "search",
    "search_documents",
    "select",
    "train_clip",
    "training_context",
]


def __getattr__(name: str) -> Any:
    if name == "ClipEncoder":
        from cm3_retrieval import encoder

        return encoder.ClipEncoder
    if name in ("ClipTrainingConfig", "train_clip"):
        from cm3_retrieval import training

        return getattr(training, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
