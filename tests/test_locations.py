from cm3leon.instructions.locations import said_boxes


def test_boxes_are_said_as_the_paper_says_them():
    """Figure 15; 0..255 whatever the size of the picture."""
    box = [("bottle", (49.75, 32.5, 51, 37.5))]
    assert said_boxes(box, 64) == "bottle at (199, 130) -> (204, 150)"
    assert said_boxes([("a", (-3, 0, 64, 70))], 64) == "a at (0, 0) -> (255, 255)"


def test_places_are_rounded_to_the_grid():
    assert said_boxes([("a", (3, 9, 90, 250))], 256, grid=16) == "a at (0, 16) -> (96, 255)"
    both = said_boxes([("a", (0, 0, 1, 1)), ("b", (1, 1, 2, 2))], 2)
    assert both == "a at (0, 0) -> (128, 128), b at (128, 128) -> (255, 255)"
