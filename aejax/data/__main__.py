"""Downloads and prepares a TFDS image set, once: python -m aejax.data prepare NAME."""

import argparse
import sys

from aejax import extras
from aejax.checks import InputError
from aejax.data import prepared


def prepare(name: str) -> str:
    """Prepares a set in array_record form; needs a network and the extra `prepare`.

    Returns:
      One line that says where it is.

    Raises:
      InputError: an unknown name, no TensorFlow, or a set without images.
      OSError: whatever stopped the download.
    """
    if name == "digits":
        return "digits comes with scikit-learn; there is nothing to prepare."
    if name in ("cells", "sprites"):
        return f"{name} are drawn when they are asked for; there is nothing to prepare."
    folder = prepared.find(name)
    if folder is not None:
        prepared.identify(name, folder)
        return f"{name} is prepared already, in {folder}"
    extras.need("Preparing a set", "tensorflow_datasets", extra="prepare")
    prepared.check_known(name)
    extras.need("Preparing a set", "tensorflow", extra="prepare")
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=str(prepared.data_dir()), file_format="array_record")
        prepared.check_images(name, dict(builder.info.features))
        builder.download_and_prepare()
    except InputError:
        raise
    except Exception as e:  # the code of any of hundreds of sets, and the servers behind them
        raise OSError(f"{name} could not be prepared. {type(e).__name__}: {e}") from e
    return f"{name} is prepared, in {builder.data_path}"


def main(args: list[str] | None = None) -> int:
    """The command line; returns the exit code: 2 for bad input, 1 where preparing failed."""
    parser = argparse.ArgumentParser(prog="python -m aejax.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare", help="download and prepare a TFDS image set")
    command.add_argument("name", help="such as mnist, fashion_mnist or emnist/letters")
    options = parser.parse_args(args)
    try:
        print(prepare(options.name))
    except (InputError, OSError) as e:
        print(e, file=sys.stderr)
        return 2 if isinstance(e, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
