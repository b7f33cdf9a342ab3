import itertools

import numpy as np
import pytest

from cm3_texttok import DocumentLayout, InstructionLayout, TextTokenizer, Vocabulary

COLOURS = "red orange yellow green blue violet brown black white grey".split()
THINGS = "apple fox firefighter house tree boat flower mountain".split()


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    return [
        f"{colour} {thing}: with a {other} {place} beside it"
        for colour, thing, other, place in itertools.product(
            COLOURS, THINGS, COLOURS[:4], ("river", "road", "lamp")
        )
    ]


@pytest.fixture(scope="session")
def tokenizer(corpus) -> TextTokenizer:
    return TextTokenizer.train(corpus, vocab_size=400, num_masks=4)


@pytest.fixture(scope="session")
def vocabulary(tokenizer) -> Vocabulary:
    return Vocabulary.from_tokenizer(tokenizer, num_codes=32)


@pytest.fixture(scope="session")
def layout(vocabulary) -> DocumentLayout:
    return DocumentLayout(vocabulary)


@pytest.fixture(scope="session")
def layouts(tokenizer, vocabulary) -> InstructionLayout:
    return InstructionLayout(tokenizer, vocabulary)


@pytest.fixture(scope="session")
def filled() -> dict:
    """A record with every field of the paper's tasks."""
    return {
        "instruction": "make it blue",
        "text": "1991",
        "caption": "a red fox",
        "boxes": "fox at (1, 2) -> (30, 40), tree at (5, 6) -> (70, 80)",
        "question": "what is it?",
        "answer": "(B)",
        "context": "N/A",
        "options": "(A) a fox (B) a boat",
        "explanation": "It floats.",
        "source": [1, 2],
        "feature": [3, 4],
        "image": [[5, 6], [7, 8]],
    }


@pytest.fixture(scope="session")
def said(layout, tokenizer):
    """`said(ids)`: the segments of a document as text and codes."""

    def segments(ids):
        return [
            tokenizer.decode(values.tolist()) if kind == "text" else np.asarray(values).tolist()
            for kind, values in layout.read(ids).restore()
        ]

    return segments
