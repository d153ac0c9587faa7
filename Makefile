# Two commands do everything: `make demo` and `make test`. PYTHON chooses the interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
TESTS = $(RUN) -m pytest -n logical --maxprocesses 4 --dist loadfile
unexport PYTHONDONTWRITEBYTECODE  # packages are compiled as they are imported, once

.PHONY: demo test slow lint figures notebooks clean

demo: $(VENV)/.ready  ## train every method on the digits: one table, one sheet of pictures
	$(RUN) -m experiments compare

test: $(VENV)/.ready  ## the tests: nine minutes on two cores
	$(TESTS)

slow: $(VENV)/.ready  ## these and the long ones; those on MNIST need TFDS_DATA_DIR
	$(TESTS) -m "not optimised"
	AEJAX_TEST_OPTIMISED=1 $(TESTS) -m optimised

lint: $(VENV)/.ready  ## style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

figures: $(VENV)/.ready  ## the MNIST rows of the README's table, with their seeds; needs TFDS_DATA_DIR
	$(RUN) -m experiments figures

notebooks: $(VENV)/.ready  ## run the notebooks again, in place
	$(RUN) -m jupyter nbconvert --to notebook --execute --inplace notebooks/*.ipynb

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --no-compile --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
