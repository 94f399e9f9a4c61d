"""What follows from the number of labels."""

import pytest
from fewvox.data.splits import MIN_LABELS_TO_VALIDATE
from fewvox.seg.few_labels import how_chosen, steps_for


def test_four_times_the_labels_are_trained_on_twice_as_long():
    assert [steps_for(n) for n in (1, 4, 16, 64)] == [250, 500, 1000, 2000]
    assert steps_for(2) == 400


@pytest.mark.parametrize(
    ("training", "validation", "told"),
    [
        (
            1,
            0,
            f"last weights after 250 steps, no validation: 1 label is fewer than {MIN_LABELS_TO_VALIDATE}",
        ),
        (
            4,
            0,
            f"last weights after 250 steps, no validation: 4 labels are fewer than {MIN_LABELS_TO_VALIDATE}",
        ),
        (MIN_LABELS_TO_VALIDATE, 0, "last weights after 250 steps, no validation: no case was set aside"),
        (7, 1, "best of validation on 1 case"),
        (2, 2, "best of validation on 2 cases"),
    ],
)
def test_which_weights_are_the_result_is_told_with_the_reason(training, validation, told):
    assert how_chosen(training, validation, 250) == f"chosen: {told}"


def test_averaged_weights_are_told_as_such():
    assert how_chosen(4, 0, 250, averaged=True).startswith("chosen: last averaged weights after 250 steps")
    assert how_chosen(8, 2, 250, averaged=True) == "chosen: best averaged weights of validation on 2 cases"
