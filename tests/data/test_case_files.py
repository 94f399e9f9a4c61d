"""The cases of the decathlon's and nnU-Net's data sets, and what is wrong with their files."""

import json

import pytest
from fewvox.data.dataset import find_cases, find_images, find_labels
from fewvox.data.errors import DatasetError

NNUNET = {
    "channel_names": {"0": "DAPI", "1": "GFP"},
    "labels": {"background": 0, "cell": 1, "ignore": 2},
    "numTraining": 2,
    "file_ending": ".tif",
}
TWO = [*(f"imagesTr/{c}_000{n}.tif" for c in "ab" for n in (0, 1)), "labelsTr/a.tif", "labelsTr/b.tif"]


@pytest.fixture
def data_set(lay, tmp_path):
    """Lays a data set with its dataset.json."""

    def make(told, *names):
        (tmp_path / "dataset.json").write_text(json.dumps(told))
        return lay(*names)

    return make


def decathlon(*ids, **changes):
    pairs = [{"image": f"./imagesTr/{i}.nii.gz", "label": f"./labelsTr/{i}.nii.gz"} for i in ids]
    labels = {"0": "background", "1": "edge"}
    told = {"modality": {"0": "T2"}, "labels": labels, "numTraining": len(ids), "training": pairs}
    return told | changes


def files(*ids) -> list[str]:
    return [f"{folder}/{i}.nii.gz" for i in ids for folder in ("imagesTr", "labelsTr")]


def told(dataset) -> list[tuple[str, str, str]]:
    return [(p.severity, p.case, p.found) for p in dataset.problems]


def image_names(dataset) -> dict[str, list[str]]:
    return {case.id: [path.name for path in case.images] for case in dataset.cases}


def test_the_decathlons_cases_are_those_of_its_list(data_set):
    root = data_set(decathlon("b", "a"), *files("a", "b"))
    dataset = find_cases(root)
    assert [(c.id, c.image, c.label) for c in dataset.cases] == [
        (i, root / f"imagesTr/{i}.nii.gz", root / f"labelsTr/{i}.nii.gz") for i in ("a", "b")
    ]
    assert (dataset.problems, dataset.channels) == ((), ("T2",))
    assert dataset.label_names == {"background": 0, "edge": 1}
    assert [(c.channels, c.axes) for c in dataset.cases] == [(("T2",), None)] * 2


def test_several_modalities_of_the_decathlon_are_the_last_axis_of_one_file(data_set):
    root = data_set(decathlon("a", modality={"0": "T2", "1": "ADC"}), *files("a"))
    (case,) = find_cases(root).cases
    assert (case.channels, case.axes) == (("T2", "ADC"), "XYZC")


def test_files_that_the_decathlons_list_misses_or_lists_in_vain_are_told(data_set):
    names = set(files("a", "b", "c")) - {"imagesTr/b.nii.gz", "labelsTr/a.nii.gz"}
    dataset = find_cases(data_set(decathlon("a", "b"), *names))
    assert told(dataset) == [
        ("error", "a", "no such file"),
        ("error", "b", "no such file"),
        ("warning", "", "volumes that are not used: 2 (c.nii.gz, c.nii.gz)"),
    ]
    assert [problem.where[-17:] for problem in dataset.problems[:2]] == [
        "labelsTr/a.nii.gz",
        "imagesTr/b.nii.gz",
    ]


def test_a_case_listed_twice_is_an_error(data_set):
    dataset = find_cases(data_set(decathlon("a", "A", "b"), *files("a", "A", "b")))
    assert [(severity, case) for severity, case, _ in told(dataset)] == [("error", "a"), ("error", "A")]


def test_version_1_of_nnunet_lists_one_name_and_has_a_file_a_channel(data_set):
    names = [f"imagesTr/{i}_000{n}.nii.gz" for i in "ab" for n in (0, 1) if (i, n) != ("b", 1)]
    modality = {"0": "T1", "1": "T2"}
    root = data_set(decathlon("a", "b", modality=modality), *names, "labelsTr/a.nii.gz", "labelsTr/b.nii.gz")
    dataset = find_cases(root)
    assert image_names(dataset) == {"a": ["a_0000.nii.gz", "a_0001.nii.gz"]}
    assert told(dataset) == [("error", "b", "'b' has no channel 0001 (T2)")]
    assert dataset.cases[0].axes is None


def test_nnunets_cases_have_a_file_a_channel_in_their_order(data_set):
    dataset = find_cases(data_set(NNUNET, *reversed(TWO)))
    assert image_names(dataset) == {i: [f"{i}_0000.tif", f"{i}_0001.tif"] for i in ("a", "b")}
    assert [case.label.name for case in dataset.cases] == ["a.tif", "b.tif"]
    assert (dataset.problems, dataset.ignore) == ((), 2)
    assert dataset.label_names == {"background": 0, "cell": 1}
    assert [(case.channels, case.axes) for case in dataset.cases] == [(("DAPI", "GFP"), None)] * 2


def test_i06_a_missing_channel_is_an_error_naming_case_and_channel(data_set):
    dataset = find_cases(data_set(NNUNET, *(name for name in TWO if name != "imagesTr/b_0001.tif")))
    assert told(dataset) == [("error", "b", "'b' has no channel 0001 (GFP)")]
    assert [case.id for case in dataset.cases] == ["a"]


def test_i06_a_channel_too_many_is_an_error_naming_case_and_channel(data_set):
    dataset = find_cases(data_set(NNUNET, *TWO, "imagesTr/a_0002.tif"))
    assert told(dataset) == [("error", "a", "'a' has a channel 0002 too many")]


def test_files_that_nnunets_names_do_not_fit_are_told(data_set):
    dataset = find_cases(data_set(NNUNET, *TWO, "imagesTr/c.tif", "imagesTr/a_0000.nii.gz"))
    assert told(dataset) == [("warning", "", "volumes that are not used: 2 (a_0000.nii.gz, c.tif)")]


def test_images_of_nnunet_without_label_are_unannotated(data_set):
    dataset = find_cases(data_set(NNUNET, *TWO, "imagesTr/c_0000.tif", "imagesTr/c_0001.tif"))
    assert [(case.id, case.label is None) for case in dataset.cases] == [
        ("a", False),
        ("b", False),
        ("c", True),
    ]
    assert dataset.problems == ()


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("kind", ["decathlon", "nnunet"])
def test_another_number_of_training_cases_is_an_error(data_set, kind, number):
    if kind == "nnunet":
        root = data_set(NNUNET | {"numTraining": number}, *TWO)
    else:
        root = data_set(decathlon("a", "b", numTraining=number), *files("a", "b"))
    found = f'"numTraining" is {number}, and there are 2 cases with a label'
    assert told(find_cases(root)) == [("error", "", found)]


def test_labels_of_another_folder_replace_those_of_the_list(data_set):
    root = data_set(decathlon("a", "b"), *files("a", "b"), "second_rater/b.nii.gz")
    cases = find_cases(root, root / "second_rater").cases
    assert [case.label for case in cases] == [None, root / "second_rater" / "b.nii.gz"]


def test_the_decathlons_test_images_given_by_their_folder_are_its_files(data_set):
    root = data_set(decathlon("a"), *files("a"), "imagesTs/c.nii.gz")
    (case,) = find_cases(root / "imagesTs").cases
    assert (case.id, case.channels, case.label) == ("c", ("T2",), None)


def test_nnunets_sidecars_are_named_as_the_case(data_set, tmp_path):
    root = data_set(NNUNET, *TWO)
    (tmp_path / "imagesTr" / "a.json").write_text('{"spacing": [2, 1, 1]}')
    assert [case.sidecar for case in find_cases(root).cases] == [root / "imagesTr" / "a.json", None]


def test_labels_of_another_folder_need_not_be_as_many(data_set):
    root = data_set(NNUNET, *TWO, "second_rater/a.tif")
    dataset = find_cases(root, root / "second_rater")
    assert [case.label for case in dataset.cases] == [root / "second_rater" / "a.tif", None]
    assert dataset.problems == ()


def test_t15_test_images_are_left_out_and_told(data_set):
    dataset = find_cases(data_set(NNUNET, *TWO, "imagesTs/c_0000.tif", "imagesTs/c_0001.tif"))
    assert [case.id for case in dataset.cases] == ["a", "b"]
    assert told(dataset) == [("warning", "", "test images that are left out: 2")]


def test_test_images_given_by_their_folder_are_read_as_the_data_set_tells(data_set):
    root = data_set(NNUNET, *TWO, "imagesTs/c_0000.tif", "imagesTs/c_0001.tif", "imagesTs/d_0000.tif")
    dataset = find_cases(root / "imagesTs")
    assert image_names(dataset) == {"c": ["c_0000.tif", "c_0001.tif"]}
    assert told(dataset) == [("error", "d", "'d' has no channel 0001 (GFP)")]


def test_nnunets_folders_are_read_without_their_dataset_json(lay):
    dataset = find_cases(lay(*TWO, "imagesTs/c_0000.tif"))
    assert image_names(dataset) == {i: [f"{i}_0000.tif", f"{i}_0001.tif"] for i in ("a", "b")}
    assert [case.label.name for case in dataset.cases] == ["a.tif", "b.tif"]
    assert told(dataset) == [("warning", "", "test images that are left out: 1")]
    assert dataset.channels == ()


def test_i06_a_missing_channel_is_told_without_dataset_json_too(lay):
    dataset = find_cases(lay(*(name for name in TWO if name != "imagesTr/b_0001.tif")))
    assert told(dataset) == [("error", "b", "'b' has no channel 0001 (channel1)")]


@pytest.mark.parametrize(
    "names",
    [
        ("imagesTr/m_0001.tif", "imagesTr/m_0002.tif"),
        ("imagesTr/m_0000.tif", "imagesTr/m_0001.tif"),
        ("imagesTr/a_0001.tif", "imagesTr/b_0001.tif"),
        ("imagesTr/a_0000.tif", "imagesTr/b_0000.tif", "labelsTr/a_0000.tif"),
        ("images/a_0000.tif", "images/b_0000.tif"),
        ("imagesTr/a.tif", "imagesTr/b_0000.tif"),
    ],
)
def test_numbers_that_may_be_of_a_series_are_no_channels(lay, names):
    cases = find_cases(lay(*names)).cases
    assert [len(case.images) for case in cases] == [1, 1]
    assert [case.id for case in cases] == [name.split("/")[1][:-4] for name in names[:2]]


def test_labels_are_found_in_the_folder_that_nnunet_gives_them(data_set):
    assert set(find_labels(data_set(NNUNET, *TWO))) == {"a", "b"}


def test_a_model_of_two_channels_finds_them_in_any_folder(lay):
    root = lay("new/s/a_0000.tif", "new/s/a_0001.tif")
    (case,) = find_images(root / "new", ["channel0", "channel1"])
    assert (case.id, [path.name for path in case.images]) == ("s/a", ["a_0000.tif", "a_0001.tif"])
    assert [case.id for case in find_images(root / "new", ["channel0"])] == ["s/a_0000", "s/a_0001"]


def test_files_of_two_channels_each_may_end_in_a_number(lay):
    cases = find_images(lay("a_0000.tif", "b_0000.tif"), ["channel0", "channel1"])
    assert [case.id for case in cases] == ["a_0000", "b_0000"]


def test_a_model_of_one_channel_knows_its_number(lay):
    (case,) = find_images(lay("imagesTs/a_0000.tif") / "imagesTs", ["channel0"])
    assert case.id == "a"


def test_i06_a_missing_channel_stops_a_prediction(lay):
    root = lay("a_0000.tif", "a_0001.tif", "b_0000.tif")
    with pytest.raises(DatasetError, match=r"'b' has no channel 0001 \(GFP\)"):
        find_images(root, ["DAPI", "GFP"])


@pytest.mark.parametrize("expected", [["GFP", "DAPI"], ["DAPI"], ["DAPI", "GFP", "RFP"], ["channel0"]])
def test_i06_channels_of_other_names_order_or_number_stop_a_prediction(data_set, expected):
    with pytest.raises(DatasetError, match=f"DAPI, GFP.*expects {', '.join(expected)}"):
        find_images(data_set(NNUNET, *TWO), expected)


@pytest.mark.parametrize("expected", [["DAPI", "GFP"], ["dapi", "gfp"], ["channel0", "channel1"], []])
def test_channels_that_are_the_models_are_read(data_set, expected):
    assert [case.id for case in find_images(data_set(NNUNET, *TWO), expected)] == ["a", "b"]
