"""`python -m aejax.data prepare NAME`: downloads and prepares a TFDS image set, once."""

import argparse
import importlib.util
import sys

from aejax.checks import InputError
from aejax.data import prepared


def prepare(name: str) -> str:
    """Prepares a set in array_record form and says where; needs a network and the extra `prepare`.

    Raises:
      InputError: an unknown name, no TensorFlow, or a set without images.
    """
    if name == "digits":
        return "digits comes with scikit-learn; there is nothing to prepare."
    folder = prepared.find(name)
    if folder is not None:
        return f"{name} is prepared already: {folder}"
    prepared.check_known(name)
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError("Preparing a set needs TensorFlow: pip install 'aejax[prepare]'")
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=prepared.data_dir(), file_format="array_record")
    if "image" not in builder.info.features:
        raise InputError(f"{name} has no image feature; it has {', '.join(builder.info.features)}.")
    builder.download_and_prepare()
    return f"{name} is prepared: {builder.data_path}"


def main(args: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m aejax.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare", help="download and prepare a TFDS image set")
    command.add_argument("name", help="such as mnist, fashion_mnist or emnist/letters")
    options = parser.parse_args(args)
    try:
        print(prepare(options.name))
    except InputError as e:
        print(e, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
