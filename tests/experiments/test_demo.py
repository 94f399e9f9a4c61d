"""The demo in its fast form."""

import json

import pytest
from fewvox.data.errors import UserError
from fewvox.experiments.demo import demo
from PIL import Image


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return demo(tmp_path_factory.mktemp("demo") / "out", fast=True)


def test_it_scores_volumes_that_were_not_trained_on(made):
    assert {s.role for s in made.evaluation.scores} == {"unseen"}
    assert len(made.evaluation.scores) == made.test_cases
    trained = json.loads((made.path / "run" / "split.json").read_text())["train"]
    assert not set(trained) & {s.case for s in made.evaluation.scores}


def test_it_learns_something(made):
    assert made.evaluation.mean("dice") > 0.2


def test_its_picture_shows_both_outlines(made):
    colours = {pixel for _, pixel in Image.open(made.picture).convert("RGB").getcolors(2**24)}
    assert (0x00, 0xC8, 0xFF) in colours
    assert (0xFF, 0x9D, 0x00) in colours


def test_it_does_not_write_over_a_folder(made):
    with pytest.raises(UserError, match="exists already"):
        demo(made.path, fast=True)
