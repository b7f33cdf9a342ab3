"""The tokenizer keeps the contract, and a codebook of the pictures' own patches serves them."""

import pytest
import torch
from patch_tokenizer import PatchTokenizer, learn_patches
from safetensors.torch import save_file

from cm3_imagetok.contract import check_image_tokenizer


@pytest.fixture
def pictures() -> torch.Tensor:
    """Black discs on white, (12, 3, 32, 32) in [-1, 1], each larger than the one before."""
    square = (torch.arange(32) - 15.5).square()
    distance = (square[:, None] + square).sqrt()
    radii = torch.arange(3.0, 15.0)[:, None, None, None]
    return (distance > radii).float().expand(-1, 3, -1, -1) * 2 - 1


@pytest.mark.parametrize("side", [4, 8])
def test_the_contract_holds(side, tmp_path):
    check_image_tokenizer(PatchTokenizer(), 32)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    save_file({"patches": learn_patches(images, codes=16, side=side)}, tmp_path / "codebook")
    tokenizer = PatchTokenizer(str(tmp_path / "codebook"))
    assert (tokenizer.num_codes, tokenizer.downsampling) == (16, side)
    check_image_tokenizer(tokenizer, 32)


def test_a_picture_of_the_codebooks_patches_comes_back_whole():
    tokenizer = PatchTokenizer()
    codes = torch.randint(512, (2, 5, 3), generator=torch.Generator().manual_seed(0))
    assert torch.equal(tokenizer.encode(tokenizer.decode(codes)), codes)


def test_learnt_patches_are_nearer_to_new_pictures_than_plain_colours(pictures, tmp_path):
    save_file({"patches": learn_patches(pictures[::2], codes=64)}, tmp_path / "codebook")
    plain, learnt = (
        float((one.decode(one.encode(pictures[1::2])) - pictures[1::2]).square().mean())
        for one in (PatchTokenizer(), PatchTokenizer(str(tmp_path / "codebook")))
    )
    assert learnt < plain / 2
