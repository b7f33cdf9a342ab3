import pytest

from cm3_imagetok import ImageTokenizer
from cm3_imagetok.contract import check_image_tokenizer


def test_vqgan_keeps_the_contract(tokenizer):
    assert isinstance(tokenizer, ImageTokenizer)
    check_image_tokenizer(tokenizer, 16)


def test_the_contract_catches_a_wrong_implementation(tokenizer):
    class OneTooMany:
        num_codes = tokenizer.num_codes
        downsampling = tokenizer.downsampling
        decode = staticmethod(tokenizer.decode)

        def encode(self, images):
            return tokenizer.encode(images) + self.num_codes

    with pytest.raises(AssertionError, match="codes lie in"):
        check_image_tokenizer(OneTooMany(), 16)
