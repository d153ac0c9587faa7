"""Pictures to small files and back, with the model of a run folder.

  python -m aejax.runner.compress encode --model RUN_FOLDER in.png out.axc
  python -m aejax.runner.compress decode --model RUN_FOLDER out.axc again.png

The run is one of `python -m experiments compressive_ae --net images`, or of an experiment of one's own whose model is a
`CompressiveAE.images`. What is read and written: `aejax.compress`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from aejax.checks import InputError
from aejax.methods.compressive_ae import CompressiveAE
from aejax.runner.loading import load


def main(argv: Sequence[str]) -> None:
    """The command line; 0 done, 1 an I/O error, 2 something in the input."""
    from aejax import compress

    options = _parser().parse_args(argv)
    try:
        _, model, state = load(options.model)
        if not isinstance(model, CompressiveAE):
            raise InputError(f"{options.model} holds a {type(model).__name__}; a run of compressive_ae is needed.")
        if options.command == "encode":
            size = compress.encode_file(model, state.params, options.source, options.target)
            print(f"{options.target}: {size} bytes")
        else:
            compress.decode_file(model, state.params, options.source, options.target)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename}", file=sys.stderr)
        raise SystemExit(1) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m aejax.runner.compress", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("encode", "a picture to a small file"), ("decode", "such a file to PNG")):
        command = commands.add_parser(name, help=what, allow_abbrev=False)
        command.add_argument("source", type=Path)
        command.add_argument("target", type=Path)
        command.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="of a run")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
