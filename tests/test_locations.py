import pytest
from hypothesis import given, strategies as st

from cm3leon.instructions.locations import read_boxes, said_boxes

NAME = st.text("abc de", min_size=1, max_size=8).map(str.strip).filter(bool)
AT = st.integers(0, 254)


@st.composite
def boxes(draw):
    x0, y0 = draw(AT), draw(AT)
    return draw(NAME), (x0, y0, draw(st.integers(x0 + 1, 255)), draw(st.integers(y0 + 1, 255)))


@given(st.lists(boxes(), min_size=1, max_size=4))
def test_boxes_come_back_from_their_text(found):
    assert read_boxes(said_boxes(found, 256)) == found


def test_boxes_are_said_as_the_paper_says_them():
    """Figure 15; 0..255 whatever the size of the picture."""
    box = [("bottle", (49.75, 32.5, 51, 37.5))]
    assert said_boxes(box, 64) == "bottle at (199, 130) -> (204, 150)"
    assert said_boxes([("a", (-3, 0, 64, 70))], 64) == "a at (0, 0) -> (255, 255)"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "wanted `name at"),
        ("fox", "wanted `name at"),
        ("fox at (1, 2) -> (3, 4), tree", "wanted `name at"),
        ("fox at (5, 2) -> (3, 4)", "x0 < x1"),
        ("fox at (5, 2) -> (300, 4)", "at most 255"),
    ],
)
def test_other_texts_are_refused(text, wanted):
    with pytest.raises(ValueError, match=wanted):
        read_boxes(text)
