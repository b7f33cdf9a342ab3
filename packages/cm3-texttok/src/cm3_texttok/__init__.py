"""Text tokenizer, the joint id space of text and image codes, and document layouts."""

from cm3_texttok.chameleon import (
    ChameleonLayout,
    chameleon_codes,
    chameleon_names,
    chameleon_tokenizer,
    chameleon_vocabulary,
)
from cm3_texttok.contract import check_tokenizer
from cm3_texttok.corpus import read_texts
from cm3_texttok.document import DocumentLayout
from cm3_texttok.huggingface import HFTokenizer
from cm3_texttok.instruction import Instruction, InstructionLayout
from cm3_texttok.interface import INTERFACE_VERSION, Tokenizer
from cm3_texttok.paper_tasks import PAPER_TASKS
from cm3_texttok.ragged import Ragged
from cm3_texttok.reading import Document
from cm3_texttok.template import Task, Template
from cm3_texttok.tokenizer import TextTokenizer, load_text_tokenizer
from cm3_texttok.vocabulary import IdBlock, Vocabulary

__all__ = [
    "INTERFACE_VERSION",
    "PAPER_TASKS",
    "ChameleonLayout",
    "Document",
    "DocumentLayout",
    "HFTokenizer",
    "IdBlock",
    "Instruction",
    "InstructionLayout",
    "Ragged",
    "Task",
    "Template",
    "TextTokenizer",
    "Tokenizer",
    "Vocabulary",
    "chameleon_codes",
    "chameleon_names",
    "chameleon_tokenizer",
    "chameleon_vocabulary",
    "check_tokenizer",
    "load_text_tokenizer",
    "read_texts",
]
