"""Which channels answer to which."""

import pytest
from fewvox.seg.channels import counterparts


@pytest.mark.parametrize(
    ("ours", "theirs", "number", "places", "by"),
    [
        (("t2", "T1"), ("T1", "T2", "flair"), 3, ((1,), (0,)), "name"),
        (("T1", "pet"), ("T1", "T2"), 2, ((0, 1), (0, 1)), "mean"),
        (("T1", "channel1"), ("a", "b"), 2, ((0,), (1,)), "order"),
        (("T1", "T2"), None, 2, ((0,), (1,)), "order"),
        (("T1", "T2"), None, 1, ((0,), (0,)), "mean"),
        (("T1",), ("dapi",), 1, ((0,),), "order"),
        (("T1", "T2"), ("T1", "t1"), 2, ((0, 1), (0, 1)), "mean"),
        (("T1",), ("T1", "T2"), 3, ((0, 1, 2),), "mean"),
    ],
)
def test_channels_are_found_by_name_by_place_or_not_at_all(ours, theirs, number, places, by):
    found = counterparts(ours, theirs, number)
    assert (found.places, found.by) == (places, by)
