"""What a command says about sampling is used, or refused by name."""

import pytest

from cm3_decoding import SamplingConfig
from cm3leon.drawing.sampling import plain_sampler_of, samplers_of, unguided
from cm3leon.parts import Habits


def habits(*samplers, **settings):
    configs = tuple(SamplingConfig(sampler=sampler, **settings) for sampler in samplers)
    return Habits(samplers=configs, retrieve=0)


@pytest.mark.parametrize(
    ("own", "sampler", "kinds"),
    [
        (("top-p",), None, ("top-p",)),
        (("top-p", "cd-k"), None, ("top-p", "cd-k")),
        (("cd-k",), "greedy", ("greedy",)),
        (("greedy",), "mixed", ("top-p", "cd-k")),
    ],
)
def test_the_command_overrules_the_runs_samplers(own, sampler, kinds):
    made = samplers_of(habits(*own, guidance_scale=3.0), sampler, {"cd_k": None})
    assert tuple(config.sampler for config in made) == kinds
    assert all(config.guidance_scale == 3 for config in made)


@pytest.mark.parametrize(
    ("own", "sampler", "name", "value"),
    [
        (("top-p",), None, "cd_alpha", 0.2),
        (("top-p",), None, "cd_k", 2),
        (("cd-k",), None, "guidance_scale", 2.0),
        (("top-p",), "cd-k", "top_p", 0.5),
        (("greedy",), None, "temperature", 2.0),
        (("top-p", "cd-k"), "greedy", "top_p", 0.5),
    ],
)
def test_a_value_that_no_sampler_uses_is_refused(own, sampler, name, value):
    with pytest.raises(ValueError, match=f"{name}: does nothing with {sampler or own[0]}"):
        samplers_of(habits(*own), sampler, {name: value})


def test_a_value_of_a_sampler_that_has_no_turn_is_refused():
    with pytest.raises(ValueError, match="cd_alpha: does nothing with top-p"):
        samplers_of(habits("top-p", "cd-k"), None, {"cd_alpha": 0.2}, candidates=1)
    made = samplers_of(habits("top-p", "cd-k"), None, {"cd_alpha": 0.2}, candidates=2)
    assert [config.sampler for config in made] == ["top-p", "cd-k"]


def test_a_value_that_one_of_the_samplers_uses_is_taken():
    for name, value in (("cd_alpha", 0.2), ("guidance_scale", 2.0), ("top_p", 0.5)):
        made = samplers_of(habits("top-p"), "mixed", {name: value})
        assert all(getattr(config, name) == value for config in made)
    # outside its interval CD-K draws by top-p
    (made,) = samplers_of(habits("cd-k", guidance_interval=(0, 9)), None, {"top_p": 0.5})
    assert made.top_p == 0.5


@pytest.mark.parametrize(
    ("sampler", "plain"), [("top-p", "top-p"), ("cd-k", "top-p"), ("greedy", "greedy")]
)
def test_captions_are_drawn_without_a_second_stream(sampler, plain):
    config = unguided(SamplingConfig(sampler=sampler, guidance_scale=3.0))
    assert config.sampler == plain and config.streams == ("conditional",)


@pytest.mark.parametrize(
    ("sampler", "changes", "words"),
    [
        ("cd-k", {}, "sampler: wanted top-p or greedy for captions and redrawn parts, got cd-k"),
        ("mixed", {}, "sampler: wanted top-p or greedy"),
        (None, {"guidance_scale": 3.0}, "guidance_scale: does nothing with captions and redrawn"),
        ("top-p", {"image_guidance_scale": 3.0}, "image_guidance_scale: does nothing with capt"),
        (None, {"cd_k": 3}, "cd_k: does nothing with top-p"),
        ("greedy", {"top_p": 0.5}, "top_p: does nothing with greedy"),
    ],
)
def test_what_changes_no_caption_is_refused(sampler, changes, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        plain_sampler_of(habits("cd-k", "top-p", guidance_scale=3.0), sampler, changes)


def test_what_changes_a_caption_is_taken_from_a_run_of_another_sampler():
    own = habits("cd-k", "top-p", guidance_scale=3.0)
    wanted = SamplingConfig(sampler="top-p", top_p=0.5)
    assert plain_sampler_of(own, None, {"top_p": 0.5, "cd_k": None}) == wanted
