"""The wheel holds the package and nothing else, the sdist what builds it: python smoke_wheel.py WHEEL SDIST."""

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BESIDE = {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "MANIFEST.in", "PKG-INFO", "setup.cfg"}


def main(wheel: str, sdist: str) -> None:
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "aejax").rglob("*.py")} | {"aejax/py.typed"}
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert inside == package, inside ^ package
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
        files = {name for name, member in zip(names, archive.getmembers(), strict=True) if member.isfile()}
        files = {name for name in files if not name.startswith("aejax.egg-info/")}
    assert files == package | BESIDE, files ^ (package | BESIDE)
    sizes = (f"{Path(path).name} {Path(path).stat().st_size / 1024:.0f} KiB" for path in (wheel, sdist))
    print(f"{', '.join(sizes)}: {len(package)} files.")


if __name__ == "__main__":
    main(*sys.argv[1:])
