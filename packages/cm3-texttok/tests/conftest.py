import itertools

import pytest

from cm3_texttok import DocumentLayout, TextTokenizer, Vocabulary

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
