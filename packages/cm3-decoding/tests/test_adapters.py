from types import SimpleNamespace

import pytest
import torch

from cm3_decoding import CodeBlock, LanguageModel, SamplingConfig, TransformersModel, generate
from cm3_decoding.adapters import TransformersCache, _scaled_by_length
from cm3_decoding.contract import check_language_model

transformers = pytest.importorskip("transformers")

SHAPE = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def opt():
    torch.manual_seed(0)
    config = transformers.OPTConfig(
        **SHAPE, ffn_dim=64, max_position_embeddings=40, word_embed_proj_dim=32, init_std=0.3
    )
    return transformers.OPTForCausalLM(config).eval()


@pytest.fixture(scope="module")
def chameleon():
    torch.manual_seed(0)
    vqgan = transformers.ChameleonVQVAEConfig(
        base_channels=32, channel_multiplier=[1], num_res_blocks=1, latent_channels=4,
        embed_dim=4, num_embeddings=4, resolution=8,
    )  # fmt: skip
    pictures = {"IMGIMG" + letter + "Z": 10 + at for at, letter in enumerate("ABCDEFGH")}
    config = transformers.ChameleonConfig(
        **SHAPE, intermediate_size=64, num_key_value_heads=2, max_position_embeddings=40,
        initializer_range=0.3, vq_config=vqgan, vocabulary_map={"<image>": 5} | pictures,
    )  # fmt: skip
    return transformers.ChameleonForConditionalGeneration(config).eval()


def test_adapted_models_keep_the_promises(opt, chameleon):
    adapted: LanguageModel = TransformersModel(opt)
    check_language_model(adapted, 60)
    check_language_model(TransformersModel(opt, from_hidden=True), 60)
    check_language_model(TransformersModel(chameleon, from_hidden=True), 60)


def test_greedy_ids_are_those_of_transformers_generate(opt):
    prompt = torch.tensor([3, 14, 15, 9])
    theirs = opt.generate(
        prompt[None], max_new_tokens=12, do_sample=False, pad_token_id=1, eos_token_id=None,
    )  # fmt: skip
    anything = CodeBlock(start=0, stop=60, length=12)
    short = torch.tensor([7, 2])
    ours = generate(
        TransformersModel(opt),
        [short, prompt],
        constraint=anything,
        config=SamplingConfig(sampler="greedy"),
        seeds=[0, 1],
    )
    assert ours[1].tolist() == theirs[0, 4:].tolist()


def test_guided_greedy_ids_are_those_of_transformers_generate(opt):
    prompt, without = torch.tensor([3, 14, 15, 9]), torch.tensor([3, 9])
    theirs = opt.generate(
        prompt[None], negative_prompt_ids=without[None], guidance_scale=3.0, max_new_tokens=12,
        do_sample=False, pad_token_id=1, eos_token_id=None,
    )  # fmt: skip
    ours = generate(
        TransformersModel(opt),
        [prompt],
        unconditional=[without],
        constraint=CodeBlock(start=0, stop=60, length=12),
        config=SamplingConfig(sampler="greedy", guidance_scale=3.0),
        seeds=[0],
    )
    assert ours[0].tolist() == theirs[0, 4:].tolist()


def test_dropping_the_streams_behind_the_interval_changes_no_id(opt, monkeypatch):
    def draw():
        return generate(
            TransformersModel(opt),
            [torch.tensor([3, 14, 15, 9]), torch.tensor([4])],
            unconditional=[torch.tensor([3, 9]), torch.tensor([2])],
            constraint=CodeBlock(start=0, stop=60, length=12),
            config=SamplingConfig(sampler="greedy", guidance_scale=3.0, guidance_interval=(0, 5)),
            seeds=[0, 1],
        )

    dropped = draw()
    monkeypatch.delattr(TransformersCache, "select_rows")
    assert all(map(torch.equal, draw(), dropped))


def test_a_shared_prompt_gives_the_ids_that_it_gives_alone(opt):
    prompt, without = torch.tensor([3, 14, 15, 9]), torch.tensor([3, 9])

    def draw(*seeds):
        return generate(
            TransformersModel(opt),
            [prompt] * len(seeds),
            unconditional=[without] * len(seeds),
            constraint=CodeBlock(start=0, stop=60, length=12),
            config=SamplingConfig(guidance_scale=2.0),
            seeds=seeds,
        )

    together = draw(0, 1, 2)
    assert all(torch.equal(ids, draw(seed)[0]) for seed, ids in enumerate(together))
    assert not torch.equal(together[0], together[1])


def test_chameleon_draws_a_picture_though_its_own_forward_hides_the_codes(chameleon):
    codes = CodeBlock(start=10, stop=18, length=16)
    prompt = torch.tensor([20, 21, 6])
    (picture,) = generate(
        TransformersModel(chameleon, from_hidden=True), [prompt], constraint=codes, seeds=[0]
    )
    assert len(picture.unique()) > 1
    hidden = chameleon(prompt[None]).logits[0, -1, 10:18]
    assert bool((hidden == torch.finfo(hidden.dtype).min).all())


def test_what_does_not_fit_is_refused(opt):
    with pytest.raises(ValueError, match="length: wanted at most 40, got 41"):
        TransformersModel(opt).make_cache(1, 41)
    adapted = TransformersModel(opt)
    with pytest.raises(ValueError, match="cache: wanted room for 4 ids, got 3"):
        adapted.prefill(torch.ones(1, 4).long(), torch.tensor([4]), adapted.make_cache(1, 3))


COMMON = {
    **SHAPE, "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 40,
    "initializer_range": 0.3,
}  # fmt: skip
ALIBI = {"vocab_size": 60, "initializer_range": 0.3}
KINDS = {
    "window": ("Mistral", COMMON | {"sliding_window": 6}),
    "windows between": ("Gemma2", COMMON | {"sliding_window": 6, "head_dim": 8}),
    "recurrent": ("Lfm2", COMMON | {"layer_types": ["conv", "full_attention"]}),
    "slots": ("Mpt", ALIBI | {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 40}),
    "window in the mask": (
        "GPTNeo",
        {
            "vocab_size": 60, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 6,
            "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 40,
            "initializer_range": 0.3,
        },
    ),
    "positions by the longest row": (
        "Phi3",
        COMMON
        | {
            "original_max_position_embeddings": 14, "pad_token_id": 0,
            "rope_parameters": {
                "rope_type": "longrope", "rope_theta": 100.0, "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
            },
        },
    ),
    "wide window": ("Mistral", COMMON | {"sliding_window": 40}),
    "plain": ("Llama", COMMON),
    "within the context": (
        "Llama",
        COMMON | {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0}},
    ),
    "mask": ("Bloom", ALIBI | {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
}  # fmt: skip


def build(kind):
    name, values = KINDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**values)
    return TransformersModel(transformers.AutoModelForCausalLM.from_config(config).eval())


def greedy(model, prompts):
    return generate(
        model,
        [torch.tensor(prompt) for prompt in prompts],
        constraint=CodeBlock(start=0, stop=60, length=10),
        config=SamplingConfig(sampler="greedy"),
        seeds=range(len(prompts)),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_unequal_length_are_drawn_as_alone_or_refused(kind):
    model = build(kind)
    unequal = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 3, 5, 8]]
    alone = [greedy(model, [prompt])[0] for prompt in unequal]
    equal = [unequal[0], [2, 7, 1]]
    assert torch.equal(greedy(model, equal)[0], alone[0])
    if kind in ("wide window", "plain", "within the context", "mask"):
        assert all(map(torch.equal, greedy(model, unequal), alone))
    else:
        with pytest.raises(ValueError, match="^prompts: wanted rows of one length for .* counts"):
            greedy(model, unequal)


@pytest.mark.parametrize("name", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("key", ["type", "rope_type"])
@pytest.mark.parametrize("kind", ["longrope", "su", "dynamic"])
def test_positions_that_the_longest_row_scales_are_found(name, key, kind):
    part = {key: kind, "original_max_position_embeddings": 14}
    config = SimpleNamespace(max_position_embeddings=40)
    for values in (part, {"full_attention": part, "other": None}):
        setattr(config, name, values)
        assert list(_scaled_by_length(config)) == [(kind, 14)]
    for values in (None, {key: "linear"}, {"full_attention": {"rope_type": "yarn"}}):
        setattr(config, name, values)
        assert not list(_scaled_by_length(config))
    setattr(config, name, {key: kind})
    assert list(_scaled_by_length(config)) == [(kind, 40)]


def test_a_model_without_keys_and_values_is_refused():
    config = transformers.MambaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=1)
    model = TransformersModel(transformers.MambaForCausalLM(config).eval())
    with pytest.raises(ValueError, match="wanted one with past_key_values, got MambaForCausalLM"):
        greedy(model, [[3, 1, 4]])
