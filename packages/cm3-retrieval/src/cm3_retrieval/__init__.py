"""Multimodal dense retrieval: CLIP documents, a FAISS memory bank, and CM3Leon's strategy.

What needs open_clip is imported on first use: that takes ten times as long as all the rest.
"""

from typing import TYPE_CHECKING, Any

from cm3_retrieval.bank.documents import document_vectors, encode_documents, search_documents
from cm3_retrieval.bank.memory_bank import MemoryBank
from cm3_retrieval.clip.training_config import ClipTrainingConfig
from cm3_retrieval.contract import check_encoder
from cm3_retrieval.index.config import IndexConfig
from cm3_retrieval.index.exact import build_index, search
from cm3_retrieval.index.plan import expected_bytes, plan_index
from cm3_retrieval.interface import INTERFACE_VERSION, Encoder
from cm3_retrieval.neighbours.building import build_neighbour_table
from cm3_retrieval.neighbours.context import inference_context, training_context
from cm3_retrieval.neighbours.strategy import RetrievalConfig, drop_query_tokens, select
from cm3_retrieval.neighbours.table import NeighbourTable

if TYPE_CHECKING:
    from cm3_retrieval.clip.encoder import ClipEncoder
    from cm3_retrieval.clip.training import train_clip

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
        from cm3_retrieval.clip.encoder import ClipEncoder

        return ClipEncoder
    if name == "train_clip":
        from cm3_retrieval.clip.training import train_clip

        return train_clip
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
