import torch

from cm3_imagetok import CausalPredictor


def predictor(dim=4, positions=16):
    torch.manual_seed(0)
    return CausalPredictor(dim, positions, width=32)


def explained(model, grids, steps=150):
    """Train on fresh grids; the unexplained share on the next one."""
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(next(grids)).backward()
        optimizer.step()
    with torch.no_grad():
        return float(model(next(grids)))


def test_noise_is_not_explained_and_a_repeated_vector_is():
    generator = torch.Generator().manual_seed(0)

    def noise():
        while True:
            yield torch.randn(32, 4, 4, 4, generator=generator)

    def repeated():  # each picture is one vector, sixteen times: only the first cannot be guessed
        while True:
            yield torch.randn(32, 4, 1, 1, generator=generator).expand(-1, -1, 4, 4)

    assert explained(predictor(), noise()) > 0.95
    assert explained(predictor(), repeated()) < 0.25


def test_a_guess_does_not_see_what_it_guesses():
    model = predictor()
    inputs = []
    model.head.register_forward_hook(lambda _, given, out: inputs.append(given[0].detach()))
    grid = torch.randn(2, 4, 4, 4)
    other = grid.clone()
    other.flatten(2)[:, :, 9:] = grid.flatten(2)[:, :, 9:].flip(
        0
    )  # the same values, so the same scale
    model(grid), model(other)
    torch.testing.assert_close(inputs[0][:, :10], inputs[1][:, :10])
    assert not torch.allclose(inputs[0][:, 10:], inputs[1][:, 10:])


def test_the_share_does_not_depend_on_the_scale():
    model, grid = predictor(), torch.randn(2, 4, 4, 4)
    torch.testing.assert_close(model(grid), model(grid * 1e-2), rtol=1e-4, atol=0)


def test_the_gradient_reaches_the_grid():
    grid = torch.randn(2, 4, 4, 4, requires_grad=True)
    predictor()(grid).backward()
    assert grid.grad is not None and float(grid.grad.abs().sum()) > 0
