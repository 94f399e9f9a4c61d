"""The rule by which length and learning rate follow from the number of labels."""

import itertools

import pytest
from fewvox.seg.few_labels import lr_share, steps_for


def test_four_times_the_labels_are_trained_on_twice_as_long():
    assert [steps_for(n) for n in (1, 4, 16, 64)] == [250, 500, 1000, 2000]
    assert steps_for(2) == 400


def test_the_rate_is_that_of_many_labels_from_16_on_and_never_below_half_of_it():
    assert [lr_share(n) for n in (1, 16, 1000)] == [0.5, 1.0, 1.0]
    assert lr_share(4) == pytest.approx(2**-0.5)
    rising = [lr_share(n) for n in range(1, 17)]
    assert all(a < b for a, b in itertools.pairwise(rising))
