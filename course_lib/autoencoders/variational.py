"""The variational autoencoder: a code that is a distribution, and so a decoder that can make images.

Give ``functools.partial(kl_divergence, weight=2 * sigma**2)`` to ``training.fit`` as its ``penalty``:
with the squared error as the loss, the sum is the negative evidence lower bound times 2 sigma^2.

Chapter: book/detect/frequency.md
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from course_lib.autoencoders.networks import Autoencoder, check_size, initialise


class VariationalAutoencoder(Autoencoder):
    """A convolutional VAE of images (N, C, 64, 64) in [0, 1] with ``k`` latent variables.

    ``encode`` returns (N, 2k): the means mu and the log variances of q(z | x). While it is trained,
    ``decode`` draws z = mu + exp(log_variance / 2) * epsilon from it, with ``noise``, a CPU generator;
    in evaluation mode it decodes mu. ``sample`` decodes draws from the prior N(0, 1). ``generator``
    seeds the initial weights.

    Raises ``ValueError`` for a size below 1.
    Source: Kingma and Welling 2014, "Auto-Encoding Variational Bayes", section 2.4 and appendix C.2.
    """

    def __init__(
        self,
        image_channels: int = 3,
        k: int = 64,
        *,
        channels: int = 24,
        noise: torch.Generator | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        check_size("image_channels", image_channels)
        check_size("k", k)
        check_size("channels", channels)
        widths = [channels, 2 * channels, 2 * channels, 2 * channels]  # 64 -> 32 -> 16 -> 8 -> 4
        encoder: list[nn.Module] = []
        for before, width in zip([image_channels, *widths[:-1]], widths, strict=True):
            encoder += [nn.Conv2d(before, width, 4, stride=2, padding=1), nn.ReLU()]
        decoder: list[nn.Module] = [
            nn.Linear(k, widths[-1] * 16),
            nn.ReLU(),
            nn.Unflatten(1, (widths[-1], 4, 4)),
        ]
        for before, width in zip(widths[::-1], [*widths[-2::-1], image_channels], strict=True):
            decoder += [nn.ConvTranspose2d(before, width, 4, stride=2, padding=1), nn.ReLU()]
        super().__init__(
            nn.Sequential(*encoder, nn.Flatten(), nn.Linear(widths[-1] * 16, 2 * k)),
            nn.Sequential(*decoder[:-1]),  # no ReLU under the sigmoid
            (image_channels, 64, 64),
        )
        self.k = k
        self.noise = noise
        initialise(self, generator)

    def decode(self, code: Tensor) -> Tensor:
        """Return images (N, C, 64, 64) in [0, 1] for codes (N, 2k): means and log variances."""
        mu, log_variance = code.chunk(2, dim=1)
        if not self.training:
            return super().decode(mu)
        epsilon = torch.randn(mu.shape, generator=self.noise).to(mu)
        return super().decode(mu + (log_variance / 2).exp() * epsilon)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator, like: Tensor | None = None) -> Tensor:
        """Return ``n`` images (n, C, 64, 64) in [0, 1], decoded from z ~ N(0, 1).

        ``like``: images (N, C, 64, 64) whose codes say where z should fall instead: from the Gaussian
        with the mean and covariance of their means. Where the prior has little weight the codes lie in
        a small part of it, and what is drawn elsewhere is no image.

        Raises ``ValueError`` for n < 1, and fewer than two images.
        Source of ``like``: Ghosh et al. 2020, "From Variational to Deterministic Autoencoders",
        section 4, "ex-post density estimation".
        """
        check_size("n", n)
        z = torch.randn(n, self.k, generator=generator).to(next(self.parameters()))
        if like is not None:
            if len(like) < 2:
                raise ValueError(f"like: expected two images or more, got {len(like)}")
            mu, _ = self.encode(like).double().chunk(2, dim=1)
            # A hair on the diagonal: fewer images than variables leave directions without spread.
            spread = torch.linalg.cholesky(torch.cov(mu.T) + 1e-6 * torch.eye(self.k).to(mu))
            z = (mu.mean(0) + z.double() @ spread.T).to(z)
        return super().decode(z)


def kl_divergence(model: nn.Module, x: Tensor, code: Tensor, *, weight: float = 1.0) -> Tensor:
    r"""Return ``weight`` times :math:`D_{KL}(q(z \mid x) \| N(0, 1))`, averaged over the codes (N, 2k).

    :math:`-\frac{1}{2} \sum_j (1 + \log \sigma_j^2 - \mu_j^2 - \sigma_j^2)` for each code. ``model``
    and ``x`` are what ``training.fit`` hands to any penalty; nothing here depends on them.

    Raises ``ValueError`` for codes of an odd length.
    Source: Kingma and Welling 2014, appendix B.
    """
    if code.ndim != 2 or code.shape[1] % 2:
        raise ValueError(f"code: expected means and log variances (N, 2k), got {tuple(code.shape)}")
    mu, log_variance = code.chunk(2, dim=1)
    return -0.5 * weight * (1 + log_variance - mu.square() - log_variance.exp()).sum(1).mean()
