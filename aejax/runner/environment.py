"""What it takes to run the same again: versions, devices, commit and command.

What decides the numbers is in the configuration, not here.
"""

import contextlib
import datetime
import importlib.metadata
import platform
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import aejax


def environment() -> dict[str, Any]:
    """Versions, devices, commit and command: what it takes to run the same again."""
    import jax

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "commit": commit_of(Path(aejax.__file__).parents[1]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": [device.device_kind for device in jax.devices()],
        "versions": _versions(),
    }


def provenance() -> dict[str, Any]:
    """What a summary that is to be published says of its origin: the date, and the environment without the machine."""
    kept = ("commit", "python", "devices", "versions")
    return {
        "date": datetime.date.today().isoformat(),
        "environment": {name: value for name, value in environment().items() if name in kept},
    }


def _versions() -> dict[str, str]:
    """Of aejax, and of what it needs as far as that is installed."""
    packages = ("jax", "jaxlib", "flax", "optax", "chex", "orbax-checkpoint", "numpy", "tensorflow-datasets")
    found = {"aejax": aejax.__version__}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def commit_of(checkout: Path) -> str | None:
    """The commit of aejax's own checkout; None where the folder that holds the package is none, or part of another.

    A package that is installed inside a user's repository is not of that repository.
    """
    own = ["aejax/__init__.py", "pyproject.toml"]

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=checkout, capture_output=True, text=True, check=True).stdout

    try:
        if git("ls-files", "--full-name", *own).split() != own:  # from the top of the repository
            return None
        project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["name"]
        return git("describe", "--always", "--dirty").strip() if project == "aejax" else None
    except (OSError, subprocess.CalledProcessError, tomllib.TOMLDecodeError, KeyError):  # no git, or no repository
        return None
