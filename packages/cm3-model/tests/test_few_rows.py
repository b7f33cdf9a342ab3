import pytest
import torch

from cm3_model.few_rows import multiply


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3, 64), (2, 1, 64), (100, 64)])
def test_where_there_is_no_kernel_products_are_the_same(dtype, shape):
    x, scale = torch.randn(shape).to(dtype), torch.rand(10)
    weight = torch.randn(10, 64).to(dtype)
    tolerance = {"rtol": 2e-2, "atol": 5e-2 if dtype == torch.bfloat16 else 2e-2}
    wanted = x.double() @ weight.double().T
    torch.testing.assert_close(multiply(x, weight).double(), wanted, **tolerance)
    rounded = torch.randint(-127, 128, (10, 64), dtype=torch.int8)
    wanted = x.double() @ (rounded.double() * scale[:, None] / 127).T
    found = multiply(x, rounded, scale / 127)
    assert found.dtype == dtype and found.shape == (*shape[:-1], 10)
    torch.testing.assert_close(found.double(), wanted, **tolerance)
