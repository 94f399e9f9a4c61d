"""Splits keep subjects together and depend on nothing but seeds and names."""

import random

import pytest
from fewvox.data.errors import UserError
from fewvox.data.splits import MIN_LABELS_TO_VALIDATE, few_labels, folds, split, without_subjects_of
from fewvox.data.store import StoredCase
from hypothesis import given
from hypothesis import strategies as st


def cases_of(*subjects: int) -> list[StoredCase]:
    """One annotated case for each number, which is its subject."""
    return [
        StoredCase(
            id=f"case{n}",
            subject=f"subject{subject}",
            shape=(1, 1, 1),
            levels=((1, 1, 1),),
            labelled=True,
            source_shape=(1, 1, 1),
            source_spacing=None,
            source_unit=None,
            image_hash="",
            label_hash="",
            content_hash="",
        )
        for n, subject in enumerate(subjects)
    ]


COHORT = cases_of(*range(20), *range(10))  # ten of twenty subjects came twice
seeds = st.integers(0, 2**32)
# from many cases of one subject to one case of each
numbers = st.integers(1, 20).flatmap(lambda n: st.lists(st.integers(0, n - 1), min_size=1, max_size=30))


def subjects_of(cases: list[StoredCase], ids: tuple[str, ...]) -> set[str]:
    return {case.subject for case in cases if case.id in ids}


@given(numbers, st.integers(0, 5), seeds, seeds)
def test_no_subject_stands_on_two_sides(numbers, test, seed, split_seed):
    cases = cases_of(*numbers)
    try:
        made = split(cases, test=test, labelled=None, seed=seed, split_seed=split_seed)
    except UserError:  # too few subjects for that test set
        assert len(set(numbers)) <= test
        return
    sides = [subjects_of(cases, side) for side in (made.train, made.validation, made.test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == len(set(numbers))
    assert sorted(made.train + made.validation + made.test) == sorted(case.id for case in cases)
    assert made.train
    assert len(made.test) >= test


@given(seeds, st.integers(1, 20), st.integers(1, 20))
def test_fewer_labels_are_among_more(seed, one, other):
    less, more = (set(few_labels(COHORT, count, seed)) for count in sorted((one, other)))
    assert less <= more


@given(seeds, st.integers(1, 20))
def test_labels_are_of_as_many_subjects(seed, count):
    chosen = few_labels(COHORT, count, seed)
    assert len(chosen) == len(subjects_of(COHORT, chosen)) == count


@given(seeds, st.randoms())
def test_the_order_of_the_cases_does_not_matter(seed, order: random.Random):
    shuffled = order.sample(COHORT, len(COHORT))
    assert split(shuffled, test=5, labelled=8, seed=seed) == split(COHORT, test=5, labelled=8, seed=seed)


@given(seeds, seeds, st.sampled_from([None, 1, 8]))
def test_the_test_set_depends_on_its_own_seed_alone(one, other, labelled):
    first, second = (split(COHORT, test=6, labelled=labelled, seed=seed) for seed in (one, other))
    assert first.test == second.test


def test_every_seed_draws_its_own():
    drawn = {split(COHORT, test=6, labelled=3, seed=seed).train for seed in range(20)}
    tests = {split(COHORT, test=6, labelled=3, seed=0, split_seed=seed).test for seed in range(20)}
    assert len(drawn) > 15
    assert len(tests) > 15


@given(seeds, st.integers(1, 10))
def test_added_cases_never_move_a_training_subject_into_the_test_set(seed, test):
    before = split(COHORT[:20], test=test, labelled=None, seed=0, split_seed=seed)
    grown = [*COHORT[:20], *cases_of(*range(40))[20:]]
    after = split(grown, test=test, labelled=None, seed=0, split_seed=seed)
    trained = subjects_of(COHORT[:20], before.train + before.validation)
    assert not trained & subjects_of(grown, after.test)


@pytest.mark.parametrize(("labelled", "validated"), [(1, 0), (7, 0), (8, 1), (10, 2), (15, 3)])
def test_validation_takes_a_fifth_when_there_are_enough(labelled, validated):
    assert MIN_LABELS_TO_VALIDATE == 8
    made = split(cases_of(*range(20)), test=5, labelled=labelled, seed=0)
    assert (len(made.validation), len(made.train)) == (validated, labelled - validated)


@pytest.mark.parametrize("seed", range(10))
def test_validation_leaves_a_subject_to_train_on(seed):
    """A subject of one case and one of nine once both went into validation."""
    made = split(cases_of(0, *[1] * 9), test=0, labelled=None, seed=seed)
    assert made.train
    assert made.validation


def test_without_a_number_all_that_are_left_are_used():
    made = split(COHORT, test=0, labelled=None, seed=0)
    assert made.test == ()
    assert len(made.train + made.validation) == len(COHORT)


def test_without_the_subjects_of_held_out_cases_nothing_of_them_is_left():
    cases = cases_of(0, 1, 2, 1, 0)
    assert without_subjects_of(cases, ["case3"]) == ("case0", "case2", "case4")
    assert without_subjects_of(cases, []) == tuple(case.id for case in cases)


def test_more_labels_than_subjects_are_refused():
    with pytest.raises(UserError, match="at most 3") as caught:
        few_labels(cases_of(0, 0, 1, 2), 4, seed=0)
    assert caught.value.where == "--labelled 4"


def test_a_test_set_that_leaves_nothing_is_refused():
    with pytest.raises(UserError, match="--test 2"):
        split(cases_of(0, 1), test=2, labelled=1, seed=0)


@given(numbers, st.integers(2, 6), st.integers(0, 3), seeds)
def test_over_all_folds_each_label_validates_once_with_its_subject(numbers, count, test, seed):
    cases = cases_of(*numbers)
    given = {"test": test, "labelled": None, "seed": 0, "split_seed": seed}
    try:
        made = [split(cases, fold=(number, count), **given) for number in range(count)]
    except UserError:  # too few subjects for that test set, or for a fold each
        assert len(set(numbers)) < max(test, 1) + count
        return
    validated = [case for one in made for case in one.validation]
    assert len({one.test for one in made}) == 1
    assert sorted((*validated, *made[0].test)) == sorted(case.id for case in cases)
    for one in made:
        sides = [subjects_of(cases, side) for side in (one.train, one.validation, one.test)]
        assert sum(map(len, sides)) == len(set(numbers))
        assert one.train
        assert one.validation


def test_few_labels_validate_where_folds_are_asked_for():
    for seed in range(5):
        made = [split(COHORT, test=4, labelled=3, seed=seed, fold=(number, 3)) for number in range(3)]
        known = {case for one in made for case in (*one.train, *one.validation)}
        assert known == set(split(COHORT, test=4, labelled=3, seed=seed).train)
        assert [len(one.validation) for one in made] == [1, 1, 1]


def test_the_folds_of_all_labels_are_the_same_for_every_seed():
    made = [split(COHORT, test=4, labelled=None, seed=seed, fold=(1, 5)) for seed in (0, 7)]
    assert made[0] == made[1]
    other = split(COHORT, test=4, labelled=None, seed=0, split_seed=1, fold=(1, 5))
    assert other.validation != made[0].validation


@given(st.randoms(use_true_random=False))
def test_folds_do_not_depend_on_the_order_of_cases(order):
    shuffled = list(COHORT)
    order.shuffle(shuffled)
    assert folds(shuffled, 5, 3) == folds(COHORT, 5, 3)


@pytest.mark.parametrize(
    ("fold", "told"),
    [
        ((0, 4), "--folds 4: 3 subjects .* Ask for 2 to 3 folds"),
        ((0, 1), "--folds 1: 3 subjects"),
        ((3, 3), "--fold 3: there are 3 folds.*from 0 to 2"),
        ((-1, 3), "--fold -1"),
    ],
)
def test_a_fold_that_cannot_be_is_refused(fold, told):
    with pytest.raises(UserError, match=f"(?s){told}"):
        split(COHORT, test=0, labelled=3, seed=0, fold=fold)


def test_a_single_subject_has_no_folds():
    with pytest.raises(UserError, match="Label more subjects"):
        split(cases_of(0, 0, 0), test=0, labelled=None, seed=0, fold=(0, 2))
