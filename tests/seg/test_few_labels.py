"""The rule by which the length of a training follows from the number of labels."""

from fewvox.seg.few_labels import steps_for


def test_four_times_the_labels_are_trained_on_twice_as_long():
    assert [steps_for(n) for n in (1, 4, 16, 64)] == [250, 500, 1000, 2000]
    assert steps_for(2) == 400
