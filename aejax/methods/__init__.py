"""One paper, one file. The registry is what the contract tests and the experiments go through.

A file ends with `METHOD = Method(...)`, under the name of the file; `__all__` says what of it stands at `aejax`. Its
knobs are its `HParams`: `aejax.methods.vae.HParams`, or `METHODS["vae"].hparams`. No loop, no data set and no picture
is here; what several papers share lies below, in `divergences`, `likelihoods`, `priors` and the like.
"""

import pkgutil
from importlib import import_module
from typing import Any

from aejax.factory import Method

__all__ = ["METHODS", "PUBLIC", "Method"]

_FILES = {info.name: import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)}

METHODS: dict[str, Method] = {
    name: file.METHOD for name, file in sorted(_FILES.items(), key=lambda item: (item[1].METHOD.year, item[0]))
}

PUBLIC: dict[str, Any] = {name: getattr(file, name) for file in _FILES.values() for name in file.__all__}
