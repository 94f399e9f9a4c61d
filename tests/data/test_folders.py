"""Walking sees volumes once: files, and folders that are volumes without what is inside them."""

import os

import pytest
from fewvox.data import folders
from fewvox.data.dataset import find_cases
from fewvox.data.errors import DatasetError
from fewvox.data.folders import look, walk


@pytest.fixture
def volumes_that_are_folders(monkeypatch):
    """Folders named *.zarr, and those that hold .dcm files, as volumes."""
    files_alone = folders.is_volume

    def is_volume(path):
        series = path.is_dir() and any(inner.suffix == ".dcm" for inner in path.iterdir())
        return files_alone(path) or series or (path.suffix == ".zarr" and not path.name.startswith("."))

    monkeypatch.setattr(folders, "is_volume", is_volume)


def names(found, root) -> list[str]:
    return [path.relative_to(root).as_posix() for path in found.volumes]


@pytest.mark.usefixtures("volumes_that_are_folders")
def test_what_is_inside_a_volume_that_is_a_folder_is_not_seen(lay):
    root = lay("a.zarr/0/inner.tif", "a.zarr/0.0.0", "p1/ct/1.dcm", "p1/ct/2.dcm", "p1/more/b.tif", "c.czi")
    found = look(root)
    assert names(found, root) == ["a.zarr", "p1/ct", "p1/more/b.tif"]
    assert [path.name for path in found.others] == ["c.czi"]
    assert sorted(found.by_id()[0]) == ["a", "p1/ct", "p1/more/b"]


@pytest.mark.usefixtures("volumes_that_are_folders")
def test_a_glob_does_not_look_into_a_volume_that_is_a_folder(lay):
    root = lay("a.zarr/0/inner.tif", "s/b.tif")
    assert names(look(f"{root}/**/*"), root) == ["a.zarr", "s/b.tif"]


@pytest.mark.usefixtures("volumes_that_are_folders")
@pytest.mark.parametrize("name", ["a.zarr", "ct"])
def test_a_volume_that_is_a_folder_can_be_given_itself(lay, name):
    root = lay("a.zarr/0/inner.tif", "ct/1.dcm", "b.tif")
    found = look(root / name)
    assert (found.root, found.volumes) == (root, (root / name,))


def test_links_to_folders_are_told_and_not_followed(lay):
    root = lay("real/a.tif", "data/b.tif")
    (root / "data" / "link").symlink_to(root / "real", target_is_directory=True)
    found = look(root / "data")
    assert names(found, root / "data") == ["b.tif"]
    assert [path.name for path in found.others] == ["link"]
    assert "not read: 1 x link" in find_cases(root / "data").problems[0].found


def test_images_that_are_a_link_to_a_folder_are_read(lay):
    root = lay("real/a.tif", "data/labels/a.tif")
    (root / "data" / "images").symlink_to(root / "real", target_is_directory=True)
    (case,) = find_cases(root / "data").cases
    assert (case.id, case.label) == ("a", root / "data" / "labels" / "a.tif")


def test_hidden_folders_are_not_entered(lay, monkeypatch):
    root = lay("a.tif", ".hidden/deep/b.tif", "s/.cache/c.czi")
    entered = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: entered.append(str(path)) or scandir(path))
    found = walk(root)
    monkeypatch.undo()
    assert (names(found, root), found.others) == (["a.tif"], ())
    assert entered == [str(root), str(root / "s")]


def test_a_folder_that_cannot_be_read_is_not_passed_over(lay, monkeypatch):
    """Without the right to read it os.walk would leave it out in silence."""
    root, scandir = lay("a.tif", "locked/b.tif"), os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match="locked: the folder cannot be read"):
        walk(root)


def test_files_that_are_no_volume_are_told_where_there_is_nothing_else(lay):
    with pytest.raises(DatasetError, match=r"no volume found \(not read: 2 x \.png\)"):
        find_cases(lay("a.png", "b.png", "notes.txt"))
