"""Pictures in, files out, and back: the rounded codes of a `CompressiveAE`, written by a range coder.

`compress` and `decompress` map arrays to bytes and bytes to arrays, `encode_file` and `decode_file` pictures to files.
The coder is that of the package constriction: `pip install "aejax[compress]"`. The parameters of the model are not in a
file, which can be read with those alone that wrote it.

**What the bits depend on.** The coder knows frequencies of integers, `aejax.compress.tables`, which are computed on the
host in float64 from the parameters of the entropy model, once, and do not depend on the image. So a file can be read
wherever the tables come out alike, and whether they do is in its header: it is refused otherwise. The encoder's network
is asked once, in writing; another machine or version may round one of its numbers to the other side and write another
file, as good. The decoder's network has no part in the bits: its picture is what it makes of the code there.
"""

from aejax.compress.codec import codes_of, compress, decompress, estimated_bits, header_bytes, integers
from aejax.compress.files import decode_file, encode_file

__all__ = [
    "codes_of",
    "compress",
    "decode_file",
    "decompress",
    "encode_file",
    "estimated_bits",
    "header_bytes",
    "integers",
]
