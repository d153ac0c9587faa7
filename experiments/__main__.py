"""python -m experiments: what can be run."""

import ast
import pkgutil
from pathlib import Path

import experiments

_SHARED = ("__main__", "common", "console", "folder", "launch", "measures")


def main() -> None:
    print("Run one with `python -m experiments.NAME`; `--help` explains its flags.\n")
    for module in pkgutil.iter_modules(experiments.__path__):
        if module.name not in _SHARED and not module.ispkg:
            source = (Path(experiments.__path__[0]) / f"{module.name}.py").read_text()
            docstring = ast.get_docstring(ast.parse(source)) or ""
            print(f"  {module.name:<12} {docstring.splitlines()[0]}")
    print("\nSpeed and memory: `python -m experiments.benchmarks.NAME`.")


if __name__ == "__main__":
    main()
