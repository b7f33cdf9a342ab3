"""The encoder keeps the contract, and puts texts beside pictures of the colours that they name."""

import numpy as np
import pytest
from colour_encoder import COLOURS, ColourEncoder
from PIL import Image

from cm3_retrieval.contract import check_encoder


@pytest.mark.parametrize("words", [1, 256])
def test_the_contract_holds(words):
    check_encoder(ColourEncoder(words=words))


def test_a_text_finds_the_picture_of_its_colour():
    encoder = ColourEncoder()
    pictures = [Image.new("RGB", (40, 24), rgb) for rgb in COLOURS.values()]
    texts = [f"A {name.upper()} thing." for name in COLOURS]
    scores = encoder.encode_texts(texts).dot(encoder.encode_images(pictures).T)
    assert np.array_equal(scores.argmax(1), np.arange(len(COLOURS)))


def test_two_colours_find_the_picture_of_both():
    encoder = ColourEncoder()
    half = Image.new("RGB", (32, 32), "red")
    half.paste(Image.new("RGB", (16, 32), COLOURS["blue"]))
    pictures = [Image.new("RGB", (32, 32), "red"), half, Image.new("RGB", (32, 32), "yellow")]
    (scores,) = encoder.encode_texts(["red on blue"]).dot(encoder.encode_images(pictures).T)
    assert scores[1] > scores[0] > scores[2]
