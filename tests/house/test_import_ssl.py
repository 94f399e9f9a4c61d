"""The folder `ssl/` never hides Python's own module of that name."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROBE = (
    "import sys; first, early = sys.path[0], 'ssl' in sys.modules\n"
    "import ssl, json, importlib.util as u\n"
    "print(json.dumps({'file': ssl.__file__, 'context': hasattr(ssl, 'SSLContext'), 'first': first,"
    " 'early': early, 'fewvox': u.find_spec('fewvox') is not None}))"
)
STARTS = {
    "-c": ["-c", PROBE],
    "stdin": ["-"],
    "-m": ["-m", "timeit", "-n1", "-r1", "-s", PROBE],
}


def probe(folder: Path, *options: str, start: str = "-c") -> dict:
    """What `import ssl` gives in a fresh Python that looks into `folder` first."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, *options, *STARTS[start]],
        cwd=folder,
        env=environment,
        input=PROBE,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    told = json.loads(done.stdout.splitlines()[0])
    # else the answer would say nothing of the folder
    assert folder / told["first"] == folder
    assert not told["early"]
    return told


def is_pythons(told: dict) -> bool:
    return Path(told["file"]).parent == Path(sysconfig.get_path("stdlib")) and told["context"]


@pytest.mark.parametrize("start", ["-c", "stdin", "-m"])
def test_pythons_ssl_with_the_installed_package(start):
    told = probe(ROOT, start=start)
    assert told["fewvox"]
    assert is_pythons(told)


@pytest.mark.parametrize("start", ["-c", "stdin", "-m"])
def test_pythons_ssl_without_any_installation(start):
    told = probe(ROOT, "-S", start=start)  # no site-packages, so no editable finder; the folder stays
    assert not told["fewvox"]
    assert is_pythons(told)


def test_an_init_file_would_be_noticed(tmp_path):
    (tmp_path / "ssl").mkdir()
    (tmp_path / "ssl" / "__init__.py").touch()
    with pytest.raises(AssertionError):
        assert is_pythons(probe(tmp_path))


@pytest.mark.parametrize("floor", ["data", "seg", "ssl", "experiments"])
def test_no_floor_has_an_init_file(floor):
    assert (ROOT / floor).is_dir()
    assert not (ROOT / floor / "__init__.py").exists()


def test_no_init_file_stands_under_tests():
    assert not list((ROOT / "tests").rglob("__init__.py"))
