"""Experiments of one's own with the extra `runner`: the scripts of docs/own_experiment.md, and a package `experiments`.

.ci/package runs it with the wheel, from a folder of its own: python smoke_runner.py. It needs no pytest.
"""

import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[1] / "docs" / "own_experiment.md"
STEADY, COMMANDS, OPENING, OF_METHOD = re.findall(r"```(?:python)?\n(.*?)```", PAGE.read_text(), re.DOTALL)


def python(folder: Path, *words: str) -> str:
    """What Python prints there; it has to end well."""
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def digits() -> np.ndarray:
    """300 of scikit-learn's, `[300, 8, 8]` in [0, 1]."""
    from sklearn.datasets import load_digits

    return (load_digits().images[:300] / 16).astype(np.float32)


def check_a_method_of_ones_own(folder: Path) -> None:
    """The page from its first line to where the run is opened; only the epochs are fewer."""
    (folder / "steady.py").write_text(STEADY)
    np.savez(folder / "mine.npz", x=digits(), y=np.arange(300) % 3)
    helped, trained = (shlex.split(line)[1:] for line in COMMANDS.splitlines())
    assert "--hparams.weight" in python(folder, *helped)
    trained[trained.index("--num-epochs") + 1] = "2"
    assert "test_sse" in python(folder, *trained)
    last = json.loads((folder / "first" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"recon/code_shift", "val/recon/loss"} <= last.keys()
    opening = f"import numpy as np\nx = np.zeros((5, 64), np.float32)\n{OPENING}\nprint(z.shape, config.hparams.weight)"
    assert python(folder, "-c", opening) == "(5, 2) 1.0\n"
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    given = f"import sys; sys.path.append({str(folder)!r}); from steady import EXPERIMENT; sys.path.pop()"
    opening = "from aejax import runner; print(runner.load('../first', experiment=EXPERIMENT)[0].hparams.weight)"
    assert python(elsewhere, "-c", f"{given}\n{opening}") == "1.0\n"


def check_a_package_of_experiments(folder: Path) -> None:
    """Theirs is the one that is imported, run with -m, and named by the run folder."""
    (folder / "experiments").mkdir()
    (folder / "experiments" / "__init__.py").write_text("OURS = False\n")
    (folder / "experiments" / "vae.py").write_text(OF_METHOD)
    assert python(folder, "-c", "import aejax, aejax.runner, experiments; print(experiments.OURS)") == "False\n"
    python(folder, "-m", "experiments.vae", "--num-epochs", "1", "--num-train", "200", "--workdir", "run")
    assert json.loads((folder / "run" / "config.json").read_text())["module"] == "experiments.vae"
    assert python(folder, "-c", "from aejax import runner; print(runner.load('run')[0].latent_dim)") == "10\n"


def main() -> None:
    for check in (check_a_method_of_ones_own, check_a_package_of_experiments):
        with tempfile.TemporaryDirectory() as folder:
            check(Path(folder))
    print("Experiments of one's own run, and are opened.")


if __name__ == "__main__":
    main()
