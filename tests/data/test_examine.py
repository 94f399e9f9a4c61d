"""A case is read to its last voxel, and all that is wrong with it is told."""

import nibabel as nib
import numpy as np
import pytest
from fewvox.data import slabs
from fewvox.data.cases import Case
from fewvox.data.examine import examine
from fewvox.data.formats import lazy
from fewvox.data.formats.files import open_volume
from fewvox.data.formats.lazy import LazyArray
from fewvox.data.reading import ScanOptions

SHAPE = (6, 5, 4)
IMAGE = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
MASK = (IMAGE > 0.5).astype(np.uint8)


@pytest.fixture
def case(tmp_path, save_nifti):
    """Makes a case of an image, a label and a region, each an array or a file that is there."""

    def make(image=IMAGE, label=None, region=None) -> Case:
        def at(name, given):
            return save_nifti(tmp_path / name, given) if isinstance(given, np.ndarray) else given

        return Case(
            id="a",
            subject="a",
            images=(at("image.nii", image),),
            label=at("label.nii", label),
            region=at("region.nii", region),
        )

    return make


def told(case, **options) -> list[tuple[str, str]]:
    return [(p.severity, p.found) for p in examine(case, ScanOptions(**options))[1]]


def facts_of(case, **options):
    found = examine(case, ScanOptions(**options))[0]
    assert found is not None
    return found


def test_a_good_case_has_facts_and_no_problems(case):
    good = case(label=MASK)
    found = facts_of(good)
    assert told(good) == []
    assert (found.shape, found.spacing, found.unit, found.dtype) == (SHAPE, (2.0, 1.0, 1.0), "mm", "float32")
    assert found.label_voxels == {0: int((MASK == 0).sum()), 1: int(MASK.sum())}
    assert (found.annotated_share, found.label_dtype, found.label_channels) == (1.0, "uint8", 1)
    assert found.intensities[0].mean == pytest.approx(IMAGE.mean())


def test_a_case_without_label_is_annotated_nowhere(case):
    found = facts_of(case())
    assert (found.label_voxels, found.label_hash, found.annotated_share) == (None, None, 0)


@pytest.mark.parametrize("fix", [True, False])
def test_what_is_mended_in_a_label_is_told_or_refused(case, fix):
    severity = "corrected" if fix else "error"
    nearly = MASK.astype(np.float32)
    nearly[0, 0, :3] += np.float32(1e-4)
    found = "3 voxels of the label are nearly whole numbers"
    assert told(case(label=nearly), fix=fix) == [(severity, found)]
    assert facts_of(case(label=nearly), fix=fix).corrections == ((found,) if fix else ())


@pytest.mark.parametrize("fix", [True, False])
def test_one_hot_labels_are_read_as_numbers(case, tmp_path, save_tiff, fix):
    label = save_tiff(tmp_path / "label.tif", np.stack([1 - MASK, MASK]))
    one_hot = case(label=label)
    ((severity, found),) = told(one_hot, fix=fix)
    assert severity == ("corrected" if fix else "error")
    assert found == "a label of 2 channels, one of them set in each voxel (one-hot)"
    assert facts_of(one_hot).label_voxels == {0: int((MASK == 0).sum()), 1: int(MASK.sum())}


def test_voxels_in_two_classes_are_annotated_once(case, tmp_path, save_tiff):
    label = save_tiff(tmp_path / "label.tif", np.stack([MASK, np.ones_like(MASK)]))
    region = np.zeros(SHAPE, np.uint8)
    region[:3] = 1
    found = facts_of(case(label=label, region=region), label_kind="overlapping")
    assert found.label_voxels == {0: 0, 1: int(MASK[:3].sum()), 2: 60}
    assert (found.annotated_share, found.label_channels) == (0.5, 2)


@pytest.mark.parametrize("accept", [True, False])
def test_a_label_of_another_geometry_is_an_error_or_accepted(case, tmp_path, accept):
    affine = np.diag((1, 1, 3, 1.0))
    affine[0, 3] = 5
    nib.save(nib.Nifti1Image(MASK.T, affine), tmp_path / "label.nii")
    moved = case(label=tmp_path / "label.nii")
    found = told(moved, accept_geometry=accept)
    assert [(severity, what.split(" ")[0]) for severity, what in found] == [
        ("accepted" if accept else "error", "spacing"),
        ("accepted" if accept else "error", "origin"),
    ]
    assert facts_of(moved, accept_geometry=accept).corrections == ()


def test_a_shape_is_never_accepted(case):
    assert [s for s, _ in told(case(label=MASK[:, :, :3]), accept_geometry=True)] == ["error"]


@pytest.fixture
def turned(tmp_path):
    """The image as another program stores it: two axes run backwards."""
    nib.save(nib.Nifti1Image(IMAGE.T, np.diag((-1, -1, 2, 1.0))), tmp_path / "turned.nii")
    return tmp_path / "turned.nii"


@pytest.mark.parametrize("kind", ["label", "region"])
def test_a_mask_that_knows_no_orientation_does_not_fit_an_image_that_was_turned(
    case, turned, tmp_path, save_tiff, kind
):
    """Its voxels once met those of another place, without a word."""
    mask = save_tiff(tmp_path / "mask.tif", MASK)
    files = {"label": mask} if kind == "label" else {"label": turned_mask(tmp_path), "region": mask}
    for accept, severity in ((False, "error"), (True, "accepted")):
        found = told(case(turned, **files), accept_geometry=accept)
        assert found == [(severity, f"orientation unknown, but turned to RAS in {turned}")]
    straight = case(label=mask)
    assert told(straight) == []


def turned_mask(folder):
    nib.save(nib.Nifti1Image(MASK.T, np.diag((-1, -1, 2, 1.0))), folder / "turned_mask.nii")
    return folder / "turned_mask.nii"


def test_a_turned_label_does_not_fit_an_image_that_knows_no_orientation(case, tmp_path, save_tiff):
    image = save_tiff(tmp_path / "image.tif", IMAGE)
    ((severity, found),) = told(case(image, label=turned_mask(tmp_path)))
    assert (severity, found.split(",")[0]) == ("error", "orientation turned to RAS")


@pytest.mark.parametrize(
    "region", [np.ones((6, 5, 3), np.uint8), np.ones((2, *SHAPE), np.uint8)], ids=["shape", "channels"]
)
def test_a_region_of_another_shape_is_refused(case, tmp_path, save_tiff, region):
    found, problems = examine(case(label=MASK, region=save_tiff(tmp_path / "r.tif", region)), ScanOptions())
    assert [(p.severity, p.where) for p in problems] == [("error", str(tmp_path / "r.tif"))]
    assert found is not None
    assert found.label_voxels is None


def test_a_region_of_another_place_is_an_error(case, tmp_path):
    affine = np.diag((1, 1, 2, 1.0))
    affine[:3, 3] = 9
    nib.save(nib.Nifti1Image(MASK.T, affine), tmp_path / "region.nii")
    ((severity, found),) = told(case(label=MASK, region=tmp_path / "region.nii"))
    assert (severity, found.split(" ")[0]) == ("error", "origin")


def test_voxels_that_are_not_finite_are_replaced_and_counted(case):
    holed = IMAGE.copy()
    holed[0, 0, :2] = np.nan, -np.inf
    filled = np.where(np.isfinite(holed), holed, np.float32(50))
    found = facts_of(case(holed), replace_nonfinite=50.0)
    assert told(case(holed), replace_nonfinite=50.0) == [
        ("corrected", "2 voxels are NaN, infinite or beyond float32")
    ]
    assert (found.replaced_voxels, found.intensities[0].highest) == (2, 50)
    assert found.content_hash == facts_of(case(filled)).content_hash
    assert examine(case(holed), ScanOptions())[0] is None


def test_a_constant_channel_is_a_warning(case, tmp_path, save_tiff):
    image = save_tiff(tmp_path / "image.tif", np.stack([IMAGE, np.full(SHAPE, 7, np.float32)]))
    assert told(case(image)) == [("warning", "every voxel of a channel is 7")]


@pytest.mark.parametrize("format", ["nii", "tif", "npy"])
def test_volumes_left_on_disk_have_the_facts_of_those_in_memory(
    monkeypatch, tmp_path, save_nifti, save_tiff, format
):
    image = np.random.default_rng(1).integers(0, 60000, SHAPE).astype(np.uint16)
    files = {"image": image, "label": MASK * np.uint8(3), "region": (IMAGE < 1).astype(np.uint8)}
    for name, array in files.items():
        path = tmp_path / f"{name}.{format}"
        if format == "npy":
            np.save(path, array)
        else:
            (save_nifti if format == "nii" else save_tiff)(path, array)
    paths = {name: tmp_path / f"{name}.{format}" for name in files}
    case = Case(id="a", subject="a", images=(paths["image"],), label=paths["label"], region=paths["region"])
    whole = examine(case, ScanOptions())
    monkeypatch.setattr(lazy, "WHOLE_BYTES", 0)
    assert isinstance(open_volume(paths["image"]).array, LazyArray)
    monkeypatch.setattr(slabs, "SLAB_BYTES", 100)
    monkeypatch.setattr(slabs, "_PART_VOXELS", 20)
    (pieces, problems), (expected, _) = examine(case, ScanOptions()), whole
    assert problems == whole[1] == []
    assert pieces is not None
    assert expected is not None
    for name in (
        "label_voxels",
        "annotated_voxels",
        "content_hash",
        "dtype",
        "shape",
        "spacing",
        "image_hash",
    ):
        assert getattr(pieces, name) == getattr(expected, name)
    assert vars(pieces.intensities[0]) == pytest.approx(vars(expected.intensities[0]))
