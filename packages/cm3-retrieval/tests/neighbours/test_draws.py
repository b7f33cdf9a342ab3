from itertools import product

from cm3_retrieval.neighbours.draws import CONTEXT_STREAM, DROPOUT_STREAM, generator


def test_a_draw_follows_from_all_four_numbers():
    cases = list(product((0, 1), (DROPOUT_STREAM, CONTEXT_STREAM), (0, 1), (0, 2**40)))
    drawn = [generator(*case).integers(2**62) for case in cases]
    assert len(set(drawn)) == len(cases)
    assert drawn == [generator(*case).integers(2**62) for case in cases]
