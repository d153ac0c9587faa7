"""The registry of methods, and the names that it gives to the package."""

import inspect

import pytest

import aejax
from aejax import methods


def test_the_names_of_every_method_stand_at_the_package():
    star: dict = {}
    exec("from aejax import *", star)
    for name, method in methods.METHODS.items():
        assert getattr(aejax, name) is star[name] is method.build
        assert name in dir(aejax)
    files = [inspect.getmodule(method.build) for method in methods.METHODS.values()]
    assert sorted(name for file in files for name in file.__all__) == sorted(methods.PUBLIC)  # none twice
    assert not set(methods.PUBLIC) & set(vars(aejax))  # and none hidden by another
    with pytest.raises(AttributeError, match="Did you mean 'vae"):
        aejax.vea_loss  # noqa: B018
