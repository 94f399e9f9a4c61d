"""A user's rules for names."""

import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.seg.neighbours.errors import SourceError
from fewvox.seg.neighbours.mapping import read_mapping

TENSORS = {name: torch.zeros(1) for name in ("stem.a.w", "stem.b.w", "stages.1.w", "head.w")}


@pytest.fixture
def mapping(tmp_path):
    def make(text):
        (tmp_path / "names.yaml").write_text(text)
        return read_mapping(tmp_path / "names.yaml")

    return make


def test_prefixes_and_patterns_are_replaced_and_the_rest_is_noted(mapping):
    found, notes = mapping(
        "stem.a.: encoder.0.\n'st(em).b': 'x\\1'\n'stages\\.(\\d)\\.': 'encoder.\\1.'\n"
    ).renamed(TENSORS)
    assert [*found] == ["encoder.0.w", "xem.w", "encoder.1.w"]
    assert notes == ("named by no rule of names.yaml: head.w",)


def test_a_rule_matches_at_the_beginning_alone_and_the_first_applies(mapping):
    found, _ = mapping("stem.a: one\n.*m: two\nw|head: three\nstages: four\n").renamed(TENSORS)
    assert [*found] == ["one.w", "two.b.w", "four.1.w", "three.w"]


def test_strides_are_told_beside_the_rules(mapping):
    assert mapping("strides: [[1, 2, 2], [2, 2, 2]]").strides == ((1, 2, 2), (2, 2, 2))
    assert mapping("strides: [[1, 2, 2]]").renamed(TENSORS) == (TENSORS, ())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stem.: x.\nbackbone.: y.\n", r"match nothing: backbone\.; there are the names stem\.a\.w"),
        ("stem.[ab]: x\n", r"two tensors become x\.w, one of them stem\.b\.w"),
        ("'stem.(': x", r"'stem\.\(': 'x' \("),
        ("stem.: '\\1'", r"invalid group reference"),
        ("stem.: {a: b}", r"'rules\.stem\.'"),
        ("strides: 3", "'strides'"),
        ("- stem", "holds list"),
        ("stem.: !!python/name:os.mkdir", "no tags"),
    ],
)
def test_a_mapping_that_does_not_fit_is_told(mapping, text, told):
    with pytest.raises(UserError, match=told):
        mapping(text).renamed(TENSORS)


def test_a_code_in_a_mapping_is_not_run(mapping, tmp_path):
    with pytest.raises(UserError, match="no tags"):
        mapping(f"a: !!python/object/apply:os.mkdir ['{tmp_path / 'sung'}']")
    assert not (tmp_path / "sung").exists()


def test_errors_are_sources_of_the_mapping_itself(mapping):
    with pytest.raises(SourceError, match=r"names\.yaml"):
        mapping("x: y").renamed(TENSORS)
