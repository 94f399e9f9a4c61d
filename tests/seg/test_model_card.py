"""The model card tells a person what a run is and how to use it."""

import json

import pytest
from fewvox.seg.model_card import write_card


def card(run):
    write_card(run)
    return (run / "README.md").read_text()


def test_a_card_tells_what_the_model_is_what_it_learned_from_and_how_it_is_used(make_run):
    text = card(make_run(scores={"score": 0.81234}, environment={"torch": "2.9"}, validated_on=("b" * 64,)))
    for told in (
        "# A unet trained by fewvox (supervised)",
        "- Input: 1 channel(s): channel0 (zscore); resampled to (2.0, 1.0, 1.0) mm (z, y, x), orientation",
        "- Output: label values (0, 1, 2).",
        "after 7 steps (seed 0)",
        "- The loss reached: encoder, decoder, output.",
        "1 training and 1 validation volumes, known by hash only",
        "- Began from: random weights.",
        "| score | 0.8123 |",
        "fewvox predict --model THIS_FOLDER",
        "fewvox finetune --pretrained THIS_FOLDER",
        "- torch: 2.9",
    ):
        assert told in text
    assert "a" * 64 not in text


def test_a_pretrained_network_is_not_offered_for_prediction(make_run):
    text = card(make_run(method="mae", trained=("encoder", "decoder")))
    assert "- Output: none." in text
    assert "It predicts no masks: fine-tune it" in text
    assert "fewvox predict" not in text


def test_a_card_tells_how_its_weights_were_chosen(make_run):
    last = card(make_run("last"))
    assert "- Chosen: last weights after 7 steps, no validation: 1 label is fewer than 8.\n" in last
    best = card(make_run("best", validated_on=("b" * 64, "c" * 64)))
    assert "- Chosen: best of validation on 2 cases.\n" in best
    assert "Chosen" not in card(make_run("pretrained", method="mae", trained=("encoder",)))


def test_where_a_run_began_is_told(make_run):
    run = make_run(inherited=("c" * 64,))
    (run / "transfer.json").write_text(json.dumps({"source": "mae, 500 steps", "source_hash": "d" * 64}))
    expected = "Began from: pretrained weights (mae, 500 steps; SHA-256 of their file dddddddddddd...)."
    assert f"{expected} That had seen 1 volumes.\n" in card(run)


def test_a_card_tells_that_the_first_weights_do_not_tell_all(make_run):
    assert "What else it had seen is not known." in card(make_run(inherited_all=False))


@pytest.mark.parametrize("steps", [3, 5])
def test_a_card_can_be_written_of_what_is_just_saved(make_run, make_info, steps):
    run = make_run()
    write_card(run, make_info(steps=steps))
    assert f"after {steps} steps" in (run / "README.md").read_text()
