"""What label values mean is told from all labels together, and mended only where one reading makes sense."""

import pytest
from fewvox.data.fingerprint import Fingerprint
from fewvox.data.label_rules import judge_labels
from fewvox.data.plan import label_table
from fewvox.data.reading import ScanOptions


@pytest.fixture
def judge(make_facts):
    """Judges labels given by the voxels of their values; cases are named a, b, ..."""

    def make(*labels, channels=None, **options):
        facts = [
            make_facts(name, label_voxels=voxels, label_channels=count)
            for name, voxels, count in zip("abcdefgh", labels, channels or [1] * len(labels), strict=False)
        ]
        return judge_labels(facts, ScanOptions(**options))

    return make


def told(rules) -> list[tuple[str, str, str]]:
    return [(p.severity, p.case, p.found) for p in rules.problems]


def table(rules, ignore=None):
    return label_table(Fingerprint.of(rules.facts), rules.kind, ignore)


def test_consecutive_values_and_unlabelled_cases_are_nothing_to_tell(judge):
    rules = judge({0: 9, 1: 2}, None, {0: 9, 2: 2})
    assert (told(rules), rules.kind, rules.background) == ([], "classes", 0)
    assert judge(None, None).problems == ()


def test_gaps_are_told_with_the_values(judge):
    (found,) = told(judge({0: 9, 2: 5}, {0: 9, 7: 5}))
    assert found == ("corrected", "", "the values 0, 2, 7")
    (refused,) = judge({0: 9, 2: 5}, fix=False).problems
    assert (refused.severity, "--no-fix" in refused.remedy) == ("error", True)


def test_255_among_masks_of_1_is_read_as_1(judge):
    rules = judge({0: 9, 1: 2}, {0: 8, 255: 3}, {0: 9}, None)
    assert told(rules)[0] == ("corrected", "b", "a mask of 0 and 255")
    assert [f.label_voxels for f in rules.facts] == [{0: 9, 1: 2}, {0: 8, 1: 3}, {0: 9}, None]
    assert rules.aliases == {255: 1}
    assert rules.facts[1].corrections == ("a mask of 0 and 255",)
    refused = judge({0: 9, 1: 2}, {0: 8, 255: 3}, fix=False)
    assert [p.severity for p in refused.problems] == ["error"]


@pytest.mark.parametrize(
    "labels",
    [
        [{0: 9, 255: 1}, {0: 9, 255: 3}],
        [{0: 9, 1: 1, 255: 1}, {0: 9, 255: 3}],
        [{0: 9, 2: 1}, {0: 9, 255: 3}],
    ],
    ids=["all white", "both in one", "another value"],
)
def test_255_that_may_be_a_class_stays_one(judge, labels):
    rules = judge(*labels)
    assert rules.aliases == {}
    assert [p.severity for p in rules.problems] == ["corrected"]
    assert 255 in table(rules).values


def test_of_two_expected_classes_the_commonest_value_is_background(judge):
    rules = judge({0: 5, 1: 90, 4: 7}, {0: 5, 9: 8}, classes=2)
    assert (rules.kind, rules.background) == ("instances", 1)
    (found,) = told(rules)
    assert found == ("corrected", "", "4 values where two classes are expected (0, 1, 4, 9)")
    assert [p.severity for p in judge({0: 5, 1: 9, 4: 7}, classes=2, fix=False).problems] == ["error"]


def test_two_values_without_0_are_two_classes_too(judge):
    """Masks of 1 and 2 were once taken for three classes, without a word."""
    rules = judge({1: 3, 2: 60}, classes=2)
    assert (rules.kind, rules.background, len(rules.problems)) == ("instances", 2, 1)
    assert judge({0: 3, 1: 60}, classes=2).problems == ()


@pytest.mark.parametrize(
    ("labels", "cases"),
    [
        ([{0: 90, 1: 9, 2: 8}, {0: 90, 1: 5, 3: 1}], ["b"]),
        ([{1: 9, 2: 8, 3: 1}, {1: 90, 2: 9}], ["a"]),
    ],
)
def test_more_than_three_expected_classes_are_errors_at_the_rarest(judge, labels, cases):
    rules = judge(*labels, classes=3)
    assert told(rules) == [
        ("error", c, "the label value 3 (1 voxels), one of 4 in the data set") for c in cases
    ]


def test_fewer_classes_than_expected_are_a_warning(judge):
    (found,) = told(judge({0: 90, 1: 9}, classes=3))
    assert found == ("warning", "", "2 values (0, 1)")
    assert judge({0: 90, 1: 9, 2: 1}, classes=3).problems == ()


def test_where_0_is_unannotated_the_lowest_value_is_background(judge):
    """As ilastik writes it. With 2 --classes 0 once counted as a third."""
    for expected in (2, None):
        rules = judge({1: 50, 2: 3}, {2: 7}, ignore=0, classes=expected)
        assert told(rules) == []
        assert table(rules, 0).values == (1, 2)
    assert judge({1: 50, 2: 3}, ignore=0, label_kind="instances").background == 1
    assert [p.found for p in judge({2: 50, 4: 3}, ignore=0).problems] == ["the values 2, 4"]


def test_labels_of_background_alone_are_empty_whatever_its_value(judge):
    assert told(judge({0: 5}, {0: 7})) == [("error", "", "all 2 labels are empty")]
    assert told(judge({1: 5}, {1: 7}, ignore=0)) == [("error", "", "all 2 labels are empty")]
    assert told(judge({}, ignore=0)) == [("error", "", "all 1 labels are empty")]
    assert told(judge({1: 5}, {1: 7, 2: 3}, ignore=0)) == [("warning", "a", "an empty label")]


def test_numbered_objects_are_an_error_until_somebody_says_what_they_are(judge):
    objects = [{0: 90, **dict.fromkeys(range(1, n + 1), 1)} for n in (3, 6)]
    (found,) = told(judge(*objects))
    assert found == ("error", "", "3 to 6 values above 0 in a label, as if objects were numbered")
    rules = judge(*objects, label_kind="instances")
    assert (rules.kind, rules.background, rules.problems) == ("instances", 0, ())
    assert judge(*objects, label_kind="classes").problems == ()


def test_overlapping_labels_have_a_channel_for_each_class(judge):
    labels = [{0: 9, 1: 5, 2: 0}] * 3
    assert judge(*labels, channels=[2, 2, 2], label_kind="overlapping").problems == ()
    assert told(judge(*labels, channels=[2, 3, 2], label_kind="overlapping")) == [
        ("error", "b", "a label of 3 channels")
    ]
    (first, *_) = told(judge(*labels, channels=[2, 2, 2], label_kind="overlapping", classes=2))
    assert first == ("error", "a", "a label of 2 channels")
    assert judge(*labels, channels=[2, 2, 2], label_kind="overlapping", classes=3).problems == ()


def test_an_ignored_value_that_is_also_the_number_of_a_channel_is_no_class_less(judge):
    rules = judge({0: 9, 1: 5}, channels=[1], label_kind="overlapping", ignore=1)
    assert rules.problems == ()
