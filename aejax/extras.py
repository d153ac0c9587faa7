"""What the core does not bring: the packages of the extras, asked for where they are used."""

from importlib.util import find_spec

from aejax.checks import InputError


def need(what: str, *modules: str, extra: str) -> None:
    """Refuses in one line where a module is not installed; imports nothing.

    Args:
      what: needs them, for the message.
      modules: top-level names, as they are imported.
      extra: of aejax, which brings them all.

    Raises:
      InputError: one is not installed; names the extra.

    Example:
      >>> need("A walk", "numpy", "jax", extra="runner")
      >>> need("A walk", "no_such_module", extra="runner")
      Traceback (most recent call last):
      aejax.checks.InputError: A walk needs no_such_module, which is not installed: pip install 'aejax[runner]'
    """
    for module in modules:
        if find_spec(module) is None:
            raise InputError(f"{what} needs {module}, which is not installed: pip install 'aejax[{extra}]'")
