"""python -m experiments: what can be run."""

import ast
import pkgutil
import textwrap
from pathlib import Path

import experiments


def main() -> None:
    print("Run one with `python -m experiments.NAME`; `--help` explains its flags.\n")
    for module in pkgutil.iter_modules(experiments.__path__):
        source = "" if module.ispkg else (Path(experiments.__path__[0]) / f"{module.name}.py").read_text()
        if module.name != "__main__" and "\ndef main() -> None:\n" in source:
            first = (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
            print(textwrap.fill(first, 79, initial_indent=f"  {module.name:<18} ", subsequent_indent=" " * 21))
    print("\nSpeed and memory: `python -m experiments.benchmarks.NAME`.")


if __name__ == "__main__":
    main()
