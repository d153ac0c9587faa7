"""What is compressed, digits or photographs: the data, the networks, their training, and their files."""

import base64
import io
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from aejax import compress, data, schedules, training
from aejax.checks import InputError
from aejax.compress.files import as_bytes
from aejax.data import Batch, photographs
from aejax.evaluation import reconstruct
from aejax.methods.compressive_ae import CompressiveAE, HParams, compressive_ae
from aejax.nets import Conv, init_params
from aejax.nets.transforms import GDN, Analysis
from aejax.runner.measures import principal
from experiments.studies import compression_codecs as codecs

Say = Callable[[str], None]
Points = dict[str, dict[str, list[float]]]  # by setting: numbers of each file
CROP_OF, CROP, CROP_SIDE = "kodim23", (150, 350), 192  # the photograph that is shown, and which part


class Options(NamedTuple):
    """Network and training on one task."""

    distortions: tuple[float, ...]
    """Weights of the squared error, one for each point of the curve."""
    latent_dim: int
    """Size of the code of digits, channels of that of photographs."""
    first_epochs: int
    """Passes at the weight in the middle, with which all others begin."""
    num_epochs: int
    """Passes at each weight after that."""
    batch_size: int
    """Examples per step."""
    lr: float
    """Learning rate of Adam, its peak; it falls along a cosine in either part."""


class Files(NamedTuple):
    """What is tested: arrays, one for each file of ours, and how they look as 8-bit pictures."""

    x: list[np.ndarray]  # [N, ...] float32 each
    pictures: list[np.ndarray]  # [H, W] or [H, W, 3] uint8, one for each file of the codecs


def digits() -> tuple[np.ndarray, Files]:
    """Training vectors `[N, 64]`, and the test digits: one file, and one sheet."""
    found = data.flatten(data.load("digits", validation=0.0))
    return found.train.x, Files([found.test.x], [codecs.sheet(as_bytes(found.test.x).reshape(-1, 8, 8))])


def photos(num_crops: int, side: int, seed: int) -> tuple[np.ndarray, Files]:
    """Training crops `[N, side, side, 3]` of the packages' photographs, and Kodak's, a file for each."""
    test = list(photographs.kodak().values())
    return crops(list(photographs.of_packages().values()), num_crops, side, seed), Files(
        [(pixels[None] / 255).astype(np.float32) for pixels in test], test
    )


def crops(pictures: list[np.ndarray], count: int, side: int, seed: int) -> np.ndarray:
    """Squares from anywhere, `[count, side, side, 3]` float32: of the pictures, halved ones too, flipped by chance.

    A picture is drawn as often as it has pixels for, halved ones, which have lost what their own JPEG did, included.
    """
    rng = np.random.default_rng(seed)
    sources = [each for full in pictures for each in (full, halved(full)) if min(each.shape[:2]) >= side]
    if not sources:
        raise InputError(f"Crops of {side} pixels are larger than every photograph that is there; use a smaller side.")
    weights = np.array([source[..., 0].size for source in sources], float)
    found = np.empty((count, side, side, 3), np.float32)
    for i, which in enumerate(rng.choice(len(sources), count, p=weights / weights.sum())):
        source = sources[which]
        top, left = (rng.integers(size - side + 1) for size in source.shape[:2])
        part = source[top : top + side, left : left + side]
        found[i] = (part[:, ::-1] if rng.random() < 0.5 else part) / 255
    return found


def halved(picture: np.ndarray) -> np.ndarray:
    """Means of two by two pixels, uint8; an odd last row or column is left out."""
    height, width = (size // 2 for size in picture.shape[:2])
    whole = picture[: 2 * height, : 2 * width].astype(np.float64)
    return np.round(whole.reshape(height, 2, width, 2, -1).mean(axis=(1, 3))).astype(np.uint8)


@partial(jax.jit, static_argnames=("model", "batch_size", "num_epochs"))
def _fitted(
    params: Any, x: jax.Array, key: jax.Array, hparams: HParams, *, model: CompressiveAE, batch_size: int,
    num_epochs: int,
) -> tuple[Any, jax.Array]:  # fmt: skip
    num_steps = num_epochs * (len(x) // batch_size)
    algo = compressive_ae(model, hparams, lambda lr: optax.adam(schedules.cosine(lr, num_steps)))
    run = partial(training.fit, batch_size=batch_size, num_epochs=num_epochs)
    state, metrics = run(algo, algo.init(params), Batch(x), key)
    return state.params, metrics["rd/loss"]


def started(model: CompressiveAE, params: Any, x: np.ndarray, distortion: float) -> Any:
    """Parameters of `CompressiveAE.images` whose convolutions begin at principal directions, layer by layer.

    Each kernel has those of the blocks that its stride cuts, each transposed one the same turned back, so that there is
    a picture from the first step on; with random kernels that takes thousands of steps. Ours, not the paper's. The code
    begins at the step that is best where all components are coded finely, `sqrt(6 / distortion)`.
    """
    encoder, decoder = dict(params["encoder"]), dict(params["decoder"])
    h, strides = x[:200] - 0.5, model.encoder.strides
    for i, stride in enumerate(strides):
        kernel, turned = np.array(encoder[f"conv_{i}"]["kernel"]), f"conv_{len(strides) - 1 - i}"
        size, channels, width = kernel.shape[1:]
        n, height, length = len(h), h.shape[1] // stride, h.shape[2] // stride
        blocks = h.reshape(n, height, stride, length, stride, channels).swapaxes(2, 3).reshape(-1, stride**2 * channels)
        directions = principal(blocks, min(width, blocks.shape[1]))[0]
        gain = np.sqrt(distortion / 6) if i == len(strides) - 1 else 1.0
        low, count = (size - stride) // 2, directions.shape[1]
        inner = slice(low, low + stride)
        kernel[..., :count], back = 0, np.zeros_like(kernel)
        kernel[inner, inner, :, :count] = gain * directions.reshape(stride, stride, channels, count)
        back[inner, inner, :, :count] = kernel[inner, inner, :, :count] / gain**2
        encoder[f"conv_{i}"] = encoder[f"conv_{i}"] | {"kernel": jax.numpy.asarray(kernel)}
        back = np.ascontiguousarray(back[::-1, ::-1].swapaxes(2, 3))
        decoder[turned] = decoder[turned] | {"kernel": jax.numpy.asarray(back)}
        if i < len(strides) - 1:
            h = np.asarray(jax.jit(Conv(width, stride, (size, size)).apply)({"params": encoder[f"conv_{i}"]}, h))
            h = np.asarray(GDN().apply({"params": encoder[f"gdn_{i}"]}, h))
    return params | {"encoder": encoder, "decoder": decoder}


def trained(model: CompressiveAE, x: np.ndarray, options: Options, seed: int, say: Say) -> dict[float, Any]:
    """Parameters at each weight: trained together at the one in the middle, and then each at its own."""
    init_key, first_key, key = jax.random.split(jax.random.key(seed), 3)
    fit = partial(_fitted, model=model, batch_size=options.batch_size)
    middle = sorted(options.distortions)[len(options.distortions) // 2]
    say(f"at the weight {middle:g}")
    on_device = jax.numpy.asarray(x)
    start = init_params(model, init_key, x[:1])
    if isinstance(model.encoder, Analysis):
        start = started(model, start, x, middle)
    hparams = HParams(options.lr, 10 * options.lr, middle)
    start, _ = fit(start, on_device, first_key, hparams, num_epochs=options.first_epochs)
    found = {}
    for weight in options.distortions:
        say(f"on at the weight {weight:g}")
        params, losses = fit(
            start, on_device, jax.random.clone(key), hparams._replace(distortion=weight), num_epochs=options.num_epochs
        )
        if not np.isfinite(losses).all():
            raise FloatingPointError(f"The loss at the weight {weight:g} is not finite; take a smaller --lr.")
        found[weight] = params
    return found


def of_model(model: CompressiveAE, params: Any, files: Files) -> dict[str, list[float]]:
    """Of each file: bits per pixel, those without the header, those of the estimate, PSNR.

    Raises:
      RuntimeError: a code did not come back, or the picture is another than the decoder's.
    """
    found: dict[str, list[float]] = {
        name: [] for name in ("bits_per_pixel", "net_bits_per_pixel", "estimated_bits_per_pixel", "psnr_db")
    }
    for x in files.x:
        written = compress.compress(model, params, x)
        x_hat = compress.decompress(model, params, written)
        code, _ = compress.codes_of(model, params, written)
        if not np.array_equal(code, compress.integers(model, params, x)):
            raise RuntimeError("Another code was read than was written.")
        if not np.array_equal(x_hat, reconstruct(model, params, x)):
            raise RuntimeError("The picture of the file is not that of the decoder.")
        pixels = x.size // (3 if x.shape[-1] == 3 else 1)
        found["bits_per_pixel"].append(8 * len(written) / pixels)
        found["net_bits_per_pixel"].append(8 * (len(written) - compress.header_bytes(x.ndim)) / pixels)
        found["estimated_bits_per_pixel"].append(compress.estimated_bits(model, params, x) / pixels)
        found["psnr_db"].append(codecs.psnr(as_bytes(x), as_bytes(x_hat)))
    return found


def of_codecs(files: Files, say: Say) -> dict[str, Points]:
    """By codec and quality, the same but for the estimate; PSNR of what is without loss is left out."""
    found: dict[str, Points] = {}
    for codec, quality in codecs.settings():
        say(f"{codec} {'' if quality is None else quality}")
        own: dict[str, list[float]] = {"bits_per_pixel": [], "psnr_db": []}
        for picture in files.pictures:
            num_bytes, read = codecs.saved(picture, codec, quality)
            own["bits_per_pixel"].append(8 * num_bytes / (picture.shape[0] * picture.shape[1]))
            if quality is not None:
                own["psnr_db"].append(codecs.psnr(picture, read))
        found.setdefault(codec, {})[str(quality)] = own
    return found


def one_by_one(picture: np.ndarray) -> dict[str, Points]:
    """The digits of a sheet as a file for each, at one quality: how much of a file is its header."""
    images = codecs.unsheet(picture, (picture.size // 64, 8, 8))
    found = {}
    for codec, quality in (("jpeg", 50), ("webp", 50), ("png", None)):
        each = [codecs.saved(image, codec, quality) for image in images]
        bits = 8 * sum(num_bytes for num_bytes, _ in each) / images.size
        loss = [] if quality is None else [codecs.psnr(images, np.stack([pixels for _, pixels in each]))]
        found[f"{codec}_each"] = {str(quality): {"bits_per_pixel": [bits], "psnr_db": loss}}
    return found


def shown(model: CompressiveAE, params: Any, picture: np.ndarray, bits: float) -> dict[str, Any]:
    """A part of a photograph: itself, ours, and JPEG at the quality whose size is nearest to so many bits per pixel."""
    x = (picture[None] / 255).astype(np.float32)
    ours = as_bytes(compress.decompress(model, params, compress.compress(model, params, x))[0])
    sizes = {q: codecs.saved(picture, "jpeg", q) for q in range(1, 60)}
    pixels = picture.shape[0] * picture.shape[1]
    quality = min(sizes, key=lambda q: abs(8 * sizes[q].num_bytes / pixels - bits))
    top, left = CROP
    part = lambda whole: _png(whole[top : top + CROP_SIDE, left : left + CROP_SIDE])
    return {
        "original": part(picture), "ours": part(ours), "jpeg": part(sizes[quality].pixels), "quality": quality,
        "bits_per_pixel": bits, "jpeg_bits_per_pixel": 8 * sizes[quality].num_bytes / pixels,
    }  # fmt: skip


def _png(pixels: np.ndarray) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def opened(text: str) -> np.ndarray:
    """The pixels that `shown` keeps."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
