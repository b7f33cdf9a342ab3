"""The CM3Leon decoder-only transformer with a static KV cache."""

from cm3_model.chameleon import export_chameleon, import_chameleon
from cm3_model.checkpoint import CheckpointError, load_decoder, read_manifest, save_decoder
from cm3_model.config import PRESETS, DecoderConfig, num_parameters
from cm3_model.interface import INTERFACE_VERSION, CausalLM
from cm3_model.kv_cache import KVCache
from cm3_model.loss import chunked_cross_entropy
from cm3_model.opt import import_opt
from cm3_model.quantization import quantize_int8
from cm3_model.transformer import Decoder

__all__ = [
    "INTERFACE_VERSION",
    "PRESETS",
    "CausalLM",
    "CheckpointError",
    "Decoder",
    "DecoderConfig",
    "KVCache",
    "chunked_cross_entropy",
    "export_chameleon",
    "import_chameleon",
    "import_opt",
    "load_decoder",
    "num_parameters",
    "quantize_int8",
    "read_manifest",
    "save_decoder",
]
