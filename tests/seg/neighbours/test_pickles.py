"""Torch files: read for their tensors and numbers, and never run."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from fewvox.seg.neighbours.errors import SourceError
from fewvox.seg.neighbours.pickles import read_torch


def test_tensors_and_the_numbers_of_nnunet_are_read(saved):
    numbers = [np.float64(0.1), np.float32(-2.5), np.int64(2**40), np.bool_(True), np.float64("nan")]
    read = read_torch(saved({"w": torch.arange(3.0), "numbers": numbers, "axes": (0, 1)}))
    assert torch.equal(read["w"], torch.arange(3.0))
    assert read["axes"] == (0, 1)
    assert [type(n) for n in read["numbers"]] == [float, float, int, bool, float]
    assert np.array_equal(read["numbers"], numbers, equal_nan=True)


def test_numbers_written_with_numpy_1_and_big_endian_ones_are_read(saved):
    path = saved([np.float64(0.1), np.dtype(">f4").type(2.5)])
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in entries if name.endswith("data.pkl"))
    assert b"numpy._core.multiarray" in entries[name]
    entries[name] = entries[name].replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
    assert read_torch(path) == [0.1, 2.5]


def test_a_big_endian_type_keeps_its_order(saved):
    class Scalar:
        def __reduce__(self):
            return np.float64(0).__reduce__()[0], (np.dtype(">f8"), np.array([0.1], ">f8").tobytes())

    assert read_torch(saved([Scalar()])) == [0.1]


@pytest.mark.parametrize("value", [np.array([1.0]), np.dtype("O"), np.dtype([("a", "O")]), np.str_("a")])
def test_other_objects_of_numpy_are_refused(saved, value):
    with pytest.raises(SourceError, match=r"numpy"):
        read_torch(saved([value]))


def test_what_would_run_is_named_and_not_run(saved, canary):
    with pytest.raises(SourceError, match=r"a pickle that calls (posix|nt)\.mkdir; it was not run"):
        read_torch(saved({"network_weights": {}, "x": canary}))
    assert not canary.path.exists()


def test_the_canary_sings_when_it_is_unpickled(saved, canary):
    """Without this the tests of what is refused would pass with a dead canary."""
    torch.load(saved([canary]), weights_only=False)
    assert canary.path.exists()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_no_protocol_runs_anything(tmp_path, canary, protocol):
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps([canary], protocol))
        archive.writestr("model/version", "3\n")
    with pytest.raises(SourceError):
        read_torch(path)
    assert not canary.path.exists()


def test_nothing_is_allowed_to_others_after_a_file_was_read(saved):
    before = set(torch.serialization.get_safe_globals())
    read_torch(saved([np.float64(1)]))
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("version", ["2.9.1", "2.6.0+cu124", "2.10.0a0+git1"])
def test_a_torch_that_files_can_abuse_is_not_used(saved, monkeypatch, version):
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(SourceError, match=r"torch 2\..*torch 2\.10 or later.*CVE-2026-24747"):
        read_torch(saved({}))


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "3.0"])
def test_later_ones_are(saved, monkeypatch, version):
    monkeypatch.setattr(torch, "__version__", version)
    assert read_torch(saved({})) == {}


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(saved, share):
    path = saved({"w": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(SourceError, match="cut short or damaged"):
        read_torch(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(saved):
    path = saved({"w": torch.zeros(10**6)})
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert path.stat().st_size < 10**5
    with pytest.raises(SourceError, match=r"unpacks to 4,.*zip bomb"):
        read_torch(path)


def test_a_program_and_another_archive_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:  # torch.jit is deprecated
        for name in ("data.pkl", "constants.pkl", "code/__torch__/network.py"):
            archive.writestr(f"model/{name}", b"\x80\x02}.")
    with pytest.raises(SourceError, match="TorchScript program"):
        read_torch(tmp_path / "model.pt")
    np.savez(tmp_path / "a.npz", a=np.zeros(2))
    with pytest.raises(SourceError, match=r"no torch file \(a\.npy\)"):
        read_torch(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "opcodes",
    [
        b"",
        b"\x80\x02.",
        b"\x80\x02]K\x01K\x02s.",  # SETITEM on a list
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x10\x85R.",  # terabytes
        b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R(K\x03X\x02\x00\x00\x00XXtb.",
        b"\x80\x02cnumpy._core.multiarray\nscalar\nK\x01K\x02\x86R.",
        b"\x80\x02h\x05.",
        b"not a pickle",
    ],
)
def test_a_nonsensical_pickle_is_an_error_with_its_reason(tmp_path, opcodes):
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("model/data.pkl", opcodes)
        archive.writestr("model/version", "3\n")
        archive.writestr("model/byteorder", "little")
    with pytest.raises(SourceError, match=r"model\.pth"):
        read_torch(tmp_path / "model.pth")
