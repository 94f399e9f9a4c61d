"""The wheel holds the four floors, all of them and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = ("data", "seg", "ssl", "experiments")
SHIPPED = ("*.py", "py.typed", "*.yaml", "*.csv", "*.j2", "*.css", "*.js")
# what a forgotten subpackage and a stray file would look like
PLANTED = ("ssl/planted/deep/module.py", "experiments/planted/page.j2", "data/planted.yaml")
STRAY = ("data/notes.txt", "seg/networks/weights.bin", "data/__pycache__/old.cpython-311.pyc")


def source_files(root: Path) -> list[Path]:
    """The files of a clean checkout, relative to `root`."""
    if (root / ".git").exists() and shutil.which("git"):
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(
            command, cwd=root, capture_output=True, text=True, encoding="utf-8", check=True
        ).stdout
        found = [Path(name) for name in listed.split("\0") if name]
    else:
        needed = [root / n for n in ("pyproject.toml", "setup.py", "README.md", "LICENSE")]
        below = [p for floor in FLOORS for p in (root / floor).rglob("*") if "__pycache__" not in p.parts]
        found = [p.relative_to(root) for p in needed + below]
    return [name for name in found if (root / name).is_file()]


def test_wheel_holds_exactly_the_modules_and_data_of_the_four_floors(tmp_path):
    copy = tmp_path / "copy"
    names = source_files(ROOT)
    unknown = [n for n in names if n.parts[0] in FLOORS and not any(fnmatch(n.name, p) for p in SHIPPED)]
    assert not unknown, "no wheel would hold these: name their kind in package-data and here"
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    for name in PLANTED + STRAY:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).touch()
    expected = {
        f"fewvox/{name.as_posix()}"
        for name in [*names, *map(Path, PLANTED)]
        if name.parts[0] in FLOORS and any(fnmatch(name.name, pattern) for pattern in SHIPPED)
    }
    assert {f"fewvox/{floor}/py.typed" for floor in FLOORS} <= expected

    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    options = ["--disable-pip-version-check", "--no-cache-dir", "-w", str(tmp_path), str(copy)]
    built = subprocess.run(
        [*command, *options], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert built.returncode == 0, built.stderr

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if not name.endswith("/")}
    assert {name for name in inside if not name.split("/")[0].endswith(".dist-info")} == expected
