"""Every case has one subject, by a table or by a pattern, or the split would leak."""

from pathlib import Path

import pytest
from fewvox.data.cases import Case
from fewvox.data.errors import DatasetError
from fewvox.data.subjects import is_table, with_subjects


def cases(*ids: str) -> list[Case]:
    return [Case(id=case, images=(Path(case),), subject=case) for case in ids]


def whose(found) -> dict[str, str]:
    return {case.id: case.subject for case in found}


@pytest.fixture
def table(tmp_path):
    def write(text: str, encoding="utf-8") -> Path:
        (tmp_path / "subjects.csv").write_text(text, encoding=encoding)
        return tmp_path / "subjects.csv"

    return write


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_subjects_come_from_the_table(table, encoding):
    text = "case,age,subject\na,7,müller\ns/b.nii.gz,8,müller\nc,9,z\nelse,1,z\n"
    found = with_subjects(cases("a", "s/b", "c"), table(text, encoding))
    assert whose(found) == {"a": "müller", "c": "z", "s/b": "müller"}


def test_a_table_with_semicolons_is_read(table):
    assert whose(with_subjects(cases("a"), table("case;subject\na;x\n"))) == {"a": "x"}


@pytest.mark.parametrize("rows", ["a,x\n", "a,x\nb,\n", "a,x\nb\n"])
def test_a_case_without_subject_is_refused_by_its_name(table, rows):
    with pytest.raises(DatasetError, match="1 cases have no subject: b"):
        with_subjects(cases("a", "b"), table("case,subject\n" + rows))


@pytest.mark.parametrize("text", ["", "case\n", "volume,subject\na,x\n"])
def test_a_table_without_its_columns_is_refused(table, text):
    with pytest.raises(DatasetError, match="columns"):
        with_subjects(cases("a"), table(text))


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="not readable"):
        with_subjects(cases("a"), tmp_path / "subjects.csv")


def test_a_case_of_two_subjects_is_refused_and_spaces_do_not_make_another_subject(table):
    found = with_subjects(cases("a", "b"), table("case,subject\na,x \nb, x\na,x\n"))
    assert whose(found) == {"a": "x", "b": "x"}
    with pytest.raises(DatasetError, match="'a' belongs to 'x' and to 'y'"):
        with_subjects(cases("a", "b"), table("case,subject\na,x\na,y\nb,y\n"))


@pytest.mark.parametrize(
    ("pattern", "subjects"),
    [("^(A_Emb\\d+)_", ["A_Emb06", "A_Emb06", "A_Emb11"]), ("t(?:2|3)(\\d+)$", ["01", "01", "01"])],
)
def test_the_group_of_a_pattern_is_the_subject(pattern, subjects):
    found = with_subjects(cases("A_Emb06_t201", "A_Emb06_t301", "A_Emb11_t201"), pattern)
    assert [case.subject for case in found] == subjects


@pytest.mark.parametrize("pattern", ["^m(\\d+)", "(x?)"])
def test_a_pattern_that_finds_no_subject_is_refused_with_the_cases(pattern):
    with pytest.raises(DatasetError, match=r"cases have no subject: .*wild_1"):
        with_subjects(cases("m12_a", "wild_1"), pattern)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("m(\\d+", "regular expression"), ("m\\d+", "0 groups"), ("(m)(\\d+)", "2 groups")],
)
def test_a_pattern_without_its_one_group_is_refused(pattern, told):
    with pytest.raises(DatasetError, match=told) as caught:
        with_subjects(cases("m12_a"), pattern)
    assert pattern in str(caught.value)


def test_a_file_of_any_name_is_a_table_and_a_name_ending_in_csv_is_never_a_pattern(tmp_path):
    (tmp_path / "list.txt").write_text("case,subject\na,x\n")
    assert is_table(tmp_path / "list.txt")
    assert is_table("absent(x).CSV")
    assert not is_table("mouse(\\d+)_")
    assert whose(with_subjects(cases("a"), tmp_path / "list.txt")) == {"a": "x"}
