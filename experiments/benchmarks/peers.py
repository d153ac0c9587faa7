"""The same networks trained as other libraries train them: PyTorch by a hand-written loop, artifex by its own epoch.

Ours are in `training`; nothing here may use aejax.
"""

from typing import Any

import numpy as np

from experiments.benchmarks.timing import Candidate, timed


def torch_device() -> str:
    """The GPU where there is one. Products are in TF32 there, as they are in JAX by default."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    torch.set_float32_matmul_precision("high")
    return "cuda"


def torch_steps(widths: tuple[int, ...], x: np.ndarray, batch_size: int, seconds: float, way: str) -> Candidate:
    """A hand-written PyTorch loop over a tensor, eager or compiled: the same network, loss and optimiser."""
    import torch
    from torch import nn

    device = torch_device()
    bce = nn.functional.binary_cross_entropy_with_logits
    if widths:
        first, second, latent = widths
        encoder = nn.Sequential(
            nn.Linear(784, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 2 * latent),
        )  # fmt: skip
        decoder = nn.Sequential(
            nn.Linear(latent, second), nn.ReLU(), nn.Linear(second, first), nn.ReLU(), nn.Linear(first, 784),
        )  # fmt: skip

        def loss_of(x: Any) -> Any:
            mean, logvar = encoder(x).chunk(2, dim=1)
            logits = decoder(mean + torch.exp(0.5 * logvar) * torch.randn_like(mean))
            kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum()
            return (bce(logits, x, reduction="sum") + kl) / len(x)
    else:
        x = x.transpose(0, 3, 1, 2)
        encoder = nn.Sequential(
            nn.Conv2d(1, 32, 3, 1, 1), nn.LeakyReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.LeakyReLU(),
            nn.Conv2d(64, 64, 3, 2, 1), nn.LeakyReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.LeakyReLU(),
            nn.Flatten(), nn.Linear(64 * 49, 2),
        )  # fmt: skip
        decoder = nn.Sequential(
            nn.Linear(2, 64 * 49), nn.Unflatten(1, (64, 7, 7)), nn.LeakyReLU(),
            nn.ConvTranspose2d(64, 64, 3, 1, 1), nn.LeakyReLU(), nn.ConvTranspose2d(64, 64, 3, 2, 1, 1), nn.LeakyReLU(),
            nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.LeakyReLU(), nn.ConvTranspose2d(32, 1, 3, 1, 1),
        )  # fmt: skip

        def loss_of(x: Any) -> Any:
            return bce(decoder(encoder(x)), x, reduction="sum") / len(x)

    encoder, decoder = encoder.to(device), decoder.to(device)
    data = torch.tensor(np.ascontiguousarray(x), device=device)
    if way == "eager, channels last":
        both: Any = nn.ModuleList([encoder, decoder])
        both.to(memory_format=torch.channels_last)
        data = data.contiguous(memory_format=torch.channels_last)
    if way == "compiled":
        loss_of = torch.compile(loss_of)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)

    def train(rows: np.ndarray) -> None:
        for row in torch.tensor(rows, device=device):
            loss = loss_of(data[row])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        loss.item()

    return timed(train, len(x), batch_size, seconds)


def artifex_epochs(widths: tuple[int, ...], x: np.ndarray, batch_size: int, seconds: float) -> Candidate:
    """The way of artifex's own quick start: an epoch is one program. Its batches are slices; it does not shuffle.

    Batch normalisation, which is on by default there, is off, and the weight of the KL is 1, as in ours.
    """
    import jax
    import optax
    from artifex.generative_models.core.configuration import DecoderConfig, EncoderConfig, VAEConfig
    from artifex.generative_models.models.vae import VAE
    from artifex.generative_models.training import train_epoch_staged
    from artifex.generative_models.training.trainers import VAETrainer, VAETrainingConfig
    from flax import nnx

    *hidden_dims, latent_dim = widths
    shared: dict[str, Any] = {"hidden_dims": tuple(hidden_dims), "latent_dim": latent_dim, "activation": "relu"}
    config = VAEConfig(
        name="vae",
        encoder=EncoderConfig(name="encoder", input_shape=x.shape[1:], use_batch_norm=False, **shared),
        decoder=DecoderConfig(name="decoder", output_shape=x.shape[1:], batch_norm=False, **shared),
    )
    model = VAE(config, rngs=nnx.Rngs(0))
    optimiser = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    loss_of = VAETrainer(VAETrainingConfig(kl_annealing="none")).create_loss_fn(loss_type="bce")
    data, key = jax.device_put(x), jax.random.key(0)

    def train(rows: np.ndarray) -> None:
        whole = len(data) // batch_size
        for _ in range(len(rows) // whole):
            train_epoch_staged(model, optimiser, data, batch_size, key, loss_of)
        jax.block_until_ready(nnx.state(model))

    return timed(train, len(x), batch_size, seconds, whole=len(x) // batch_size)
