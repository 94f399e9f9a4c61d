"""Tables of users, whatever program wrote them."""

import pytest
from fewvox.data.csv_table import read_rows
from fewvox.data.errors import DatasetError


def test_rows_have_the_columns_asked_for_and_no_spaces_around(tmp_path):
    (tmp_path / "t.csv").write_text("b,extra,a\n x , 1,2\ny\n", encoding="utf-8-sig")
    assert read_rows(tmp_path / "t.csv", ("a", "b")) == [{"a": "2", "b": "x"}, {"a": "", "b": "y"}]


def test_a_table_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes("a,b\nmüller,1\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="UTF-8"):
        read_rows(tmp_path / "t.csv", ("a", "b"))


def test_names_are_written_as_those_of_cases(tmp_path):
    (tmp_path / "a.csv").write_text("case\ngro\u0308\u00dfe\n", encoding="utf-8")
    assert read_rows(tmp_path / "a.csv", ["case"]) == [{"case": "gr\u00f6\u00dfe"}]
