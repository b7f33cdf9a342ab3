import pytest
import torch

from cm3_decoding.noise import Noise, _split_mix


def at(noise, step):
    rows = len(noise._first)
    return noise.at(torch.full((rows, 1), step))[:, 0]


def test_a_number_depends_on_seed_step_and_id_alone():
    many = Noise([3, 1, 7, 3], 50, 10, 300, "cpu")
    one = Noise([7], 20, 40, 90, "cpu")
    for step in (0, 5, 19):
        assert torch.equal(at(many, step)[2, 30:80], at(one, step)[0])
        assert torch.equal(at(many, step)[0], at(many, step)[3])
    assert torch.equal(at(many, 5), at(many, 5))


def test_the_keys_are_those_of_splitmix64():
    # The first number of the reference implementation for seed 0, and for 1234567.
    found = [int(key) % 2**64 for key in _split_mix(torch.tensor([0, 1234567]))]
    assert found == [0xE220A8397B1DCDAF, 6457827717110365317]


def test_numbers_do_not_change_from_version_to_version():
    found = at(Noise([0, 2**64 - 1], 2, 5, 7, "cpu"), 1)
    wanted = torch.tensor([[0.80976796, 0.42635781], [3.2383001, 2.8272800]])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)


@pytest.fixture(scope="module")
def uniforms():
    """(steps, seeds, ids) uniform numbers, as float64."""
    noise = Noise([0, 1, 2, 2**32, 2**63, -1], 80, 4, 4100, "cpu")
    return (-torch.stack([at(noise, step) for step in range(80)])).double().exp()


def test_numbers_are_exponential(uniforms):
    assert float(uniforms.min()) > 0 and float(uniforms.max()) < 1
    # In 256 equal bins, and in 20 that halve towards 1, where the ids that win lie.
    counts = torch.histc(uniforms, 256, 0, 1)
    wanted = uniforms.numel() / 256
    assert float(((counts - wanted) ** 2 / wanted).sum()) < 255 + 5 * (2 * 255) ** 0.5
    for power in range(1, 20):
        share = 2.0**-power
        found = int((uniforms > 1 - share).sum())
        deviation = (uniforms.numel() * share * (1 - share)) ** 0.5
        assert abs(found - uniforms.numel() * share) < 5 * deviation


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("seeds", [0, 1, 3])
@pytest.mark.parametrize("ids", [0, 1, 2, 64])
def test_neighbours_are_independent(uniforms, steps, seeds, ids):
    if steps == seeds == ids == 0:
        return
    centred = (uniforms - 0.5) * 12**0.5
    shape = centred.shape
    one = centred[steps:, seeds:, ids:]
    other = centred[: shape[0] - steps, : shape[1] - seeds, : shape[2] - ids]
    assert abs(float((one * other).mean()) * one.numel() ** 0.5) < 5


def test_winners_are_spread_over_the_ids(uniforms):
    winners = torch.bincount(uniforms.argmax(-1).flatten(), minlength=uniforms.shape[-1])
    assert int(winners.max()) <= 6


def test_rows_that_come_and_go_keep_their_numbers():
    noise = Noise([3, 1], 5, 10, 20, "cpu")
    noise.join(Noise([7], 9, 30, 40, "cpu"), 10, 40)
    noise.select_rows(torch.tensor([2, 0]))
    found = noise.at(torch.tensor([[8, 2], [4, 0]]))
    for row, (seed, steps) in enumerate([(7, (8, 2)), (3, (4, 0))]):
        for place, step in enumerate(steps):
            assert torch.equal(found[row, place], at(Noise([seed], 9, 10, 40, "cpu"), step)[0])
