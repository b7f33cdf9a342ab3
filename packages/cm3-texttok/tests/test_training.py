import pytest

from cm3_texttok import TextTokenizer


def test_training_is_deterministic(tokenizer, corpus):
    again = TextTokenizer.train(iter(corpus), vocab_size=400, num_masks=4)
    assert again.model_bytes == tokenizer.model_bytes


def test_pieces_do_not_depend_on_threads(tokenizer, corpus):
    one = TextTokenizer.train(corpus, vocab_size=400, num_masks=4, num_threads=1)
    assert one.encode_batch(corpus) == tokenizer.encode_batch(corpus)


def test_training_is_quiet(corpus, capfd):
    TextTokenizer.train(corpus, vocab_size=400)
    assert capfd.readouterr() == ("", "")


def test_long_lines_and_newlines_are_learnt_from():
    """A line past sentencepiece's limit would be skipped, so its words would not be pieces."""
    one_line = "zebra quagga " * 20_000
    many_lines = "bamboo\nmandolin\n\n" * 1000
    tokenizer = TextTokenizer.train([one_line, many_lines], vocab_size=320, num_masks=1)
    for word in ("zebra", " quagga", "bamboo", "mandolin"):
        assert len(tokenizer.encode(word)) == 1, word


def test_word_without_an_end():
    tokenizer = TextTokenizer.train(["ab" * 100_000], vocab_size=270, num_masks=1)
    assert len(tokenizer.encode("ab" * 16)) <= 8


@pytest.mark.parametrize("mark", ["\t", "\0", "\u2581", "\u2585", "\r"])
def test_texts_with_the_trainers_own_marks_are_learnt_from(mark):
    tokenizer = TextTokenizer.train([f"zebra{mark}quagga"] * 20, vocab_size=280, num_masks=1)
    assert len(tokenizer.encode("zebra")) == len(tokenizer.encode("quagga")) == 1
    assert tokenizer.decode(tokenizer.encode(f"zebra{mark}quagga")) == f"zebra{mark}quagga"


def test_control_names_in_the_corpus_stay_text(corpus):
    tokenizer = TextTokenizer.train(
        corpus + ["<break> <mask:1> <pad> <0x41> <unk>"] * 500, vocab_size=400
    )
    ids = tokenizer.encode("<break> <mask:1>")
    assert min(ids) >= tokenizer.byte_ids.start  # the structural ids come before
    assert tokenizer.decode(ids) == "<break> <mask:1>"


def test_vocab_size_error_names_the_bounds(corpus):
    with pytest.raises(ValueError, match=r"vocab_size: wanted at most \d+ .*got 56320") as high:
        TextTokenizer.train(corpus)
    with pytest.raises(ValueError, match=r"vocab_size: wanted at least \d+ .*got 280") as low:
        TextTokenizer.train(corpus, vocab_size=280)
    for error in (high, low):
        bound = int(str(error.value).split()[4])
        assert TextTokenizer.train(corpus, vocab_size=bound).vocab_size == bound


@pytest.mark.parametrize("texts", [[], [""], ["\n", "\0"]])
def test_empty_corpus(texts):
    with pytest.raises(ValueError, match="texts: wanted at least one text"):
        TextTokenizer.train(texts, vocab_size=300)


@pytest.mark.parametrize("error", [OSError("unreadable"), KeyboardInterrupt()])
def test_error_of_the_corpus_passes_through(error):
    def texts():
        yield "one"
        raise error

    with pytest.raises(type(error)) as caught:
        TextTokenizer.train(texts(), vocab_size=300)
    assert caught.value is error


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"vocab_size": 0}, "vocab_size: wanted 278 to 2147483647, got 0"),
        ({"vocab_size": 10}, "vocab_size: wanted 278 to 2147483647, got 10"),
        ({"vocab_size": -5}, "vocab_size: wanted 278 to 2147483647, got -5"),
        ({"vocab_size": 277}, "vocab_size: wanted 278 to 2147483647, got 277"),
        ({"vocab_size": 2**31}, "vocab_size: wanted 278 to 2147483647, got 2147483648"),
        ({"vocab_size": 400, "num_masks": 200}, "vocab_size: wanted 462 to 2147483647, got 400"),
        ({"num_masks": 100_000}, "num_masks: wanted 1 to 65536, got 100000"),
        ({"num_masks": 2**40}, "num_masks: wanted 1 to 65536"),
        ({"num_masks": 0}, "num_masks: wanted 1 to 65536, got 0"),
        ({"num_threads": 0}, "num_threads: wanted 1 to 1024, got 0"),
        ({"num_threads": 10**6}, "num_threads: wanted 1 to 1024, got 1000000"),
    ],
)
def test_numbers_that_no_corpus_fits_are_named_before_it_is_read(numbers, words):
    def corpus():
        pytest.fail("the corpus was read")
        yield ""

    with pytest.raises(ValueError, match=words):
        TextTokenizer.train(corpus(), **numbers)


def test_the_least_number_of_ids_is_enough():
    assert TextTokenizer.train([" "] * 9, vocab_size=263, num_masks=1).vocab_size == 263
