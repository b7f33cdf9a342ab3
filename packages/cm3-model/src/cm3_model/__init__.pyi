"""The public names; `__init__.py` imports each when it is first used."""

from .chameleon import (
    export_chameleon as export_chameleon,
    import_chameleon as import_chameleon,
)
from .checkpoint import (
    CheckpointError as CheckpointError,
    load_decoder as load_decoder,
    read_manifest as read_manifest,
    save_decoder as save_decoder,
)
from .compiled import (
    compile_decoding as compile_decoding,
)
from .config import (
    PRESETS as PRESETS,
    DecoderConfig as DecoderConfig,
    num_parameters as num_parameters,
    operations_a_token as operations_a_token,
)
from .interface import (
    INTERFACE_VERSION as INTERFACE_VERSION,
    CausalLM as CausalLM,
)
from .kv_cache import (
    KVCache as KVCache,
)
from .opt import (
    import_opt as import_opt,
)
from .packing import (
    pack_weights as pack_weights,
)
from .quantization import (
    quantize_int8 as quantize_int8,
)
from .transformer import (
    Decoder as Decoder,
)
