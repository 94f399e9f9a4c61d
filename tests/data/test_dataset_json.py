"""What dataset.json tells is taken as it is written, and nothing outside its folder is ever read."""

import json

import pytest
from fewvox.data.dataset_json import read_description
from fewvox.data.errors import UserError

DECATHLON = {
    "name": "Prostate",
    "description": "zones",
    "modality": {"0": "T2", "1": "ADC"},
    "labels": {"0": "background", "1": "PZ", "2": "TZ"},
    "numTraining": 1,
    "training": [{"image": "./imagesTr/p_01.nii.gz", "label": "./labelsTr/p_01.nii.gz"}],
    "test": ["./imagesTs/p_02.nii.gz"],
}
NNUNET = {
    "channel_names": {"1": "GFP", "0": "DAPI"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
    "numTraining": 2,
    "file_ending": ".tif",
    "regions_class_order": [1, 2],
}


@pytest.fixture
def describe(tmp_path):
    def write(told):
        (tmp_path / "dataset.json").write_text(told if isinstance(told, str) else json.dumps(told))
        return read_description(tmp_path)

    return write


def test_the_decathlons_description(describe, tmp_path):
    told = describe(DECATHLON)
    assert (told.channels, told.count, told.text) == (("T2", "ADC"), 1, "Prostate: zones")
    assert told.label_names == {"background": 0, "PZ": 1, "TZ": 2}
    (case,) = told.listed
    assert case.id == "p_01"
    assert case.images == (tmp_path / "imagesTr" / "p_01.nii.gz",)
    assert case.label == tmp_path / "labelsTr" / "p_01.nii.gz"


def test_nnunets_description(describe):
    told = describe(NNUNET)
    assert (told.channels, told.count, told.ending, told.listed) == (("DAPI", "GFP"), 2, ".tif", None)
    assert told.label_names == {"background": 0, "core": 2}
    assert told.class_regions == {"whole": (1, 2)}
    assert told.ignore == 3


def test_what_the_decathlon_listed_before_a_conversion_to_nnunet_is_no_list(describe):
    assert describe(NNUNET | {"training": DECATHLON["training"]}).listed is None


def test_nnunets_list_of_cases(describe, tmp_path):
    files = {"images": ["raw/a.tif", "raw/b.tif"], "label": "masks/a.tif"}
    (case,) = describe(NNUNET | {"dataset": {"a": files}}).listed
    assert (case.id, case.images) == ("a", (tmp_path / "raw" / "a.tif", tmp_path / "raw" / "b.tif"))


@pytest.mark.parametrize("told", ["{}", '{"name": "some images", "licence": "CC0"}'])
def test_a_file_of_another_program_tells_nothing(describe, told):
    assert describe(told) is None


def test_without_the_file_nothing_is_told(tmp_path):
    assert read_description(tmp_path) is None


@pytest.mark.parametrize("key", ["image", "label"])
@pytest.mark.parametrize(
    "path",
    [
        "../a.nii.gz",
        "imagesTr/../../a.nii.gz",
        "/data/a.nii.gz",
        "C:\\a.nii.gz",
        "..\\a.nii.gz",
        "\\\\pc\\a",
        "",
    ],
)
def test_a_path_out_of_the_folder_is_refused(describe, tmp_path, key, path):
    pair = DECATHLON["training"][0] | {key: path}
    with pytest.raises(UserError, match="not below") as caught:
        describe(DECATHLON | {"training": [pair]})
    assert caught.value.where == str(tmp_path / "dataset.json")
    assert f"'{path}'" in caught.value.found


def test_a_path_out_of_the_folder_in_nnunets_list_is_refused(describe):
    files = {"images": ["../a.tif", "b.tif"], "label": "a.tif"}
    with pytest.raises(UserError, match="not below"):
        describe(NNUNET | {"dataset": {"a": files}})


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ('{"training": [', "not readable as JSON"),
        ("[]", "holds list"),
        (DECATHLON | {"training": [{"image": "a.nii.gz"}]}, "training.0.label"),
        (DECATHLON | {"numTraining": "some"}, "numTraining"),
        (DECATHLON | {"modality": {"0": "T2", "2": "ADC"}}, "channels 0, 2 instead of"),
        (DECATHLON | {"modality": {}}, r"channels \(none\)"),
        (DECATHLON | {"labels": {"PZ": "1"}}, "the label 'PZ'"),
        (DECATHLON | {"labels": {"1": "PZ", "2": "PZ"}}, "one name or one value"),
        (NNUNET | {"labels": {"background": 0, "a": 1, "b": 1}}, "one name or one value"),
        (NNUNET | {"file_ending": ".png"}, "file_ending"),
        (NNUNET | {"file_ending": None}, "file_ending"),
    ],
)
def test_what_cannot_be_used_is_refused(describe, told, why):
    with pytest.raises(UserError, match=why):
        describe(told)
