import copy

import pytest
import torch

from cm3_imagetok import PRESETS, VQGAN, VQGANConfig, revive_dead_codes


def test_paper_shape_at_full_size():
    config = VQGANConfig()
    with torch.device("meta"):
        model = VQGAN(config)
        codes = model.encode(torch.empty(1, 3, 256, 256))
    assert (config.grid_size, config.num_codes) == (32, 8192)
    assert codes.shape == (1, 32, 32)


@pytest.mark.slow
def test_paper_tokenizer_with_real_pictures_at_full_size():
    torch.manual_seed(0)
    model = VQGAN(PRESETS["cm3leon-256"]).eval()
    codes = model.encode(torch.rand(1, 3, 256, 256) * 2 - 1)
    assert codes.shape == (1, 32, 32) and codes.dtype == torch.int64
    assert 0 <= int(codes.min()) and int(codes.max()) < 8192
    decoded = model.decode(codes)
    assert decoded.shape == (1, 3, 256, 256)
    assert decoded.isfinite().all() and float(decoded.abs().max()) <= 1


@pytest.mark.skipif(
    torch.cpu._is_avx512_bf16_supported(), reason="this CPU computes in bfloat16 itself"
)
def test_where_bfloat16_is_emulated_its_weights_work_in_float32(tokenizer):
    halved = copy.deepcopy(tokenizer).bfloat16()
    rounded = copy.deepcopy(halved).float()
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    images = images.bfloat16().float()  # what both get
    codes = halved.encode(images)
    assert torch.equal(codes, rounded.encode(images))
    torch.testing.assert_close(halved.decode(codes), rounded.decode(codes), atol=0.02, rtol=0)
    if tokenizer.config.quantizer != "ema":  # whose averages need float32
        halved.train()(images)[0].square().mean().backward()
        assert halved.encoder.conv_in.weight.grad.abs().sum() > 0


def test_gradients_and_their_absence_give_the_same_pictures(tokenizer):
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    codes = tokenizer.encode(images)  # without gradients memory is reused
    z = tokenizer.latent(images)
    assert z.requires_grad
    torch.testing.assert_close(tokenizer.quantize.encode(z), codes)
    drawn = tokenizer.render(tokenizer.quantize.decode(codes)).clamp(-1, 1)
    torch.testing.assert_close(drawn.detach(), tokenizer.decode(codes))


def test_parameter_names_are_tamings():
    with torch.device("meta"):
        names = set(VQGAN(VQGANConfig(attention_resolutions=(32,))).state_dict())
    for name in (
        "encoder.conv_in.weight",
        "encoder.down.0.block.1.norm1.weight",
        "encoder.down.0.downsample.conv.weight",
        "encoder.down.3.attn.0.proj_out.weight",
        "encoder.mid.attn_1.q.weight",
        "decoder.up.3.upsample.conv.weight",
        "decoder.up.0.block.2.conv2.bias",
        "quantize.embedding.weight",
        "quant_conv.weight",
        "post_quant_conv.bias",
    ):
        assert name in names


def test_without_a_decoder_there_are_codes_but_no_pictures(tiny):
    model = VQGAN(VQGANConfig(**{**vars(tiny), "has_decoder": False})).eval()
    codes = model.encode(torch.rand(1, 3, 16, 16))
    assert codes.shape == (1, 4, 4)
    with pytest.raises(RuntimeError, match="no decoder"):
        model.decode(codes)


def test_non_square_pictures(tokenizer):
    images = torch.rand(2, 3, 16, 32) * 2 - 1
    codes = tokenizer.encode(images)
    assert codes.shape == (2, 4, 8)
    assert tokenizer.decode(codes).shape == images.shape


def test_gradient_reaches_encoder_and_decoder(tokenizer):
    tokenizer.train()
    reconstruction, quantized = tokenizer(torch.rand(2, 3, 16, 16) * 2 - 1)
    (reconstruction.square().mean() + quantized.loss).backward()
    for name in ("encoder.conv_in", "decoder.conv_out", "quant_conv", "post_quant_conv"):
        gradient = tokenizer.get_submodule(name).weight.grad
        assert gradient is not None and gradient.abs().sum() > 0


def test_training_reconstructs_better(tokenizer):
    tokenizer.train()
    images = torch.rand(8, 3, 1, 1).expand(8, 3, 16, 16) * 2 - 1
    optimizer = torch.optim.Adam([p for p in tokenizer.parameters() if p.requires_grad], 3e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for step in range(100):
        z = tokenizer.latent(images)
        quantized = tokenizer.quantize(z)
        losses.append((tokenizer.render(quantized.grid) - images).square().mean())
        optimizer.zero_grad()
        (losses[-1] + quantized.loss).backward()
        optimizer.step()
        if step % 10 == 0 and step < 60:
            usage = torch.bincount(quantized.codes.flatten(), minlength=16)
            revive_dead_codes(tokenizer.quantize, z.detach(), usage, 1, generator)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    "shape", [(1, 3, 15, 16), (1, 1, 16, 16), (3, 16, 16), (1, 3, 0, 16), (0, 3, 16, 16)]
)
def test_wrong_pictures_are_named(tokenizer, shape):
    with pytest.raises(ValueError, match="images: wanted"):
        tokenizer.encode(torch.zeros(shape))


def test_an_array_is_no_tensor(tokenizer):
    for name, call in (("images", tokenizer.encode), ("codes", tokenizer.decode)):
        with pytest.raises(TypeError, match=rf"{name}: wanted a torch\.Tensor, got ndarray"):
            call(torch.zeros(1, 3, 16, 16).numpy())


@pytest.mark.parametrize(
    "codes",
    [torch.zeros(1, 4, 4), torch.full((1, 4, 4), 16), torch.full((1, 4, 4), -1), torch.tensor([1])],
)
def test_wrong_codes_are_named(tokenizer, codes):
    with pytest.raises(ValueError, match="codes: wanted"):
        tokenizer.decode(codes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: ((x + 1) * 127.5).to(torch.uint8), "floating point in .-1, 1., got torch.uint8"),
        (lambda x: (x * 127).to(torch.int8), "floating point in .-1, 1., got torch.int8"),
        (lambda x: x > 0, "floating point in .-1, 1., got torch.bool"),
        (lambda x: (x + 1) * 127.5, r"values in \[-1, 1\], got [\d.]+ to 2[\d.]+"),
        (lambda x: x * 1.5, r"values in \[-1, 1\], got -1.\d+ to 1.\d+"),
        (lambda x: x.masked_fill(x > 0.9, torch.nan), r"values in \[-1, 1\], got nan"),
        (lambda x: x.masked_fill(x > 0.9, torch.inf), r"values in \[-1, 1\], got -[\d.]+ to inf"),
    ],
)
def test_pictures_of_another_range_are_refused(tokenizer, change, words):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokenizer.encode(images)
    with pytest.raises(ValueError, match=f"images: wanted {words}"):
        tokenizer.encode(change(images))


@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.uint16, torch.uint32, torch.int8, torch.int16, torch.int32, torch.int64],
)
def test_codes_are_integers_of_any_type(tokenizer, dtype):
    codes = torch.arange(16).reshape(1, 4, 4)
    assert torch.equal(tokenizer.decode(codes.to(dtype)), tokenizer.decode(codes))
    for wrong in (torch.bool, torch.float32, torch.complex64):
        with pytest.raises(ValueError, match="codes: wanted integers"):
            tokenizer.decode(codes.to(wrong))


def test_the_hash_of_a_codebook_tells_codebooks_apart(tokenizer):
    before = tokenizer.codebook_sha256
    assert before == tokenizer.codebook_sha256 != VQGAN(tokenizer.config).codebook_sha256
    with torch.no_grad():
        tokenizer.encoder.conv_in.weight.zero_()
    assert tokenizer.codebook_sha256 == before
