import pytest

import cm3_imagetok


def test_every_public_name_is_there():
    for name in cm3_imagetok.__all__:
        assert getattr(cm3_imagetok, name) is not None
        assert name in dir(cm3_imagetok)
    with pytest.raises(AttributeError, match="paint"):
        _ = cm3_imagetok.paint
