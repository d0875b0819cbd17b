"""Numbers as people read them."""

from thinwire.cli.words import times


def test_a_model_so_small_that_messages_outweigh_it_still_has_a_ratio() -> None:
    assert times(7, 100) == "0.07 x"
    assert times(840, 5) == "168.0 x"
    assert times(840, 0) == "-"
