"""The public names; `__init__.py` imports each when it is first used."""

from .adapters import (
    TransformersModel as TransformersModel,
)
from .batch import (
    Batch as Batch,
    Row as Row,
)
from .config import (
    SamplingConfig as SamplingConfig,
    Stream as Stream,
)
from .constraints import (
    Constraint as Constraint,
    max_new_tokens as max_new_tokens,
)
from .contrastive import (
    cd_k as cd_k,
)
from .generation import (
    Step as Step,
    generate as generate,
    generate_rows as generate_rows,
)
from .guidance import (
    classifier_free_guidance as classifier_free_guidance,
    image_text_guidance as image_text_guidance,
)
from .interface import (
    INTERFACE_VERSION as INTERFACE_VERSION,
    LanguageModel as LanguageModel,
    ReadsAhead as ReadsAhead,
)
from .processors import (
    apply_temperature as apply_temperature,
    restrict as restrict,
    top_k_filter as top_k_filter,
    top_p_filter as top_p_filter,
)
from .reranking import (
    best_of as best_of,
    candidate_pool as candidate_pool,
    rerank as rerank,
)
from .segments import (
    CodeBlock as CodeBlock,
    ConstraintSegment as ConstraintSegment,
    Forced as Forced,
    Interleaved as Interleaved,
    TextUntil as TextUntil,
)
