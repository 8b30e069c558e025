"""What happens to a picture between its maker and its judge: JPEG, H.264, resizing, blur, noise.

Every function takes images (N, C, H, W) in [0, 1] and gives back the same shape and range, on the
same device; the same input and seed give the same output. A detector is only compared on real and
generated images that went through the same of these, in the same order.

Chapter: book/detect/first_detector.md
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from course_lib.detection.processing import check_images


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Save each image as a JPEG file in memory and open it again.

    ``x``: (N, C, H, W) in [0, 1], saved as greyscale (C = 1) or with colours at half resolution
    (C = 3, the usual 4:2:0); ``quality``: Pillow's and libjpeg's scale from 1 (worst) to 100, which
    still rounds. Raises ``ValueError`` for another shape, range or quality.
    """
    check_images(x)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1 to 100, got {quality}")
    return _through_jpeg(x, [quality] * len(x))


def _through_jpeg(x: Tensor, qualities: list[int]) -> Tensor:
    array = (x.detach().cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    opened = []
    for image, quality in zip(array, qualities, strict=True):
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(
            file, format="JPEG", quality=quality, subsampling=2 if image.shape[2] == 3 else -1
        )
        opened.append(np.asarray(Image.open(file)).reshape(image.shape))
    result = torch.from_numpy(np.stack(opened)).permute(0, 3, 1, 2)
    return result.to(device=x.device, dtype=x.dtype) / 255


def h264(frames: Tensor, crf: float, *, fps: float = 25) -> Tensor:
    """Encode the frames of one video with H.264 in memory (x264, yuv420p, one thread), decode them.

    ``frames``: (T, 3, H, W) in [0, 1], H and W even, in the order of time, which is kept; ``crf``: the
    constant rate factor from 0 (nothing lost but the rounding to 8 bits and half of the colours'
    resolution) over 23 (x264's default) to 51 (worst); ``fps``: frames a second. FaceForensics++'s c23
    and c40 are 23 and 40 (Roessler et al. 2019, section 3).

    Raises ``ValueError`` for another shape or range, no frames, an odd height or width, a crf outside 0
    to 51, or an fps outside 1 to 240; ``ImportError``, naming the extra, where PyAV is not installed.
    """
    if frames.ndim == 4 and frames.shape[1] != 3:
        raise ValueError(
            f"frames: expected colour frames (T, 3, H, W), got shape {tuple(frames.shape)}"
        )
    check_images(frames, "frames")
    height, width = frames.shape[2:]
    if height % 2 or width % 2:
        raise ValueError(f"frames: expected an even height and width, got {height} x {width}")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf: expected 0 to 51, got {crf}")
    if not 1 <= fps <= 240:
        raise ValueError(f"fps: expected 1 to 240 frames a second, got {fps}")
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "h264 needs PyAV, which comes with the extra: pip install 'course-lib[video]'"
        ) from error
    array = (frames.detach().cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        # With more threads x264 cuts the search for motion short, and the file depends on the machine.
        options = {"crf": str(crf), "threads": "1"}
        stream = container.add_stream("libx264", Fraction(fps).limit_denominator(1001), options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in array:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as container:
        decoded = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    result = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)
    return result.to(device=frames.device, dtype=frames.dtype) / 255


def resize(x: Tensor, factor: float) -> Tensor:
    """Make each image ``factor`` times as large and bring it back to its size.

    Both ways bilinear with anti-aliasing. ``x``: (N, C, H, W) in [0, 1]; ``factor``: 0.5 halves height
    and width, 1 leaves the images as they are. Raises ``ValueError`` for another shape or range, and
    for a factor that is not positive or leaves less than one pixel.
    """
    check_images(x)
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"factor: expected a positive number, got {factor}")
    size = (x.shape[2], x.shape[3])
    other = (round(size[0] * factor), round(size[1] * factor))
    if min(other) < 1:
        raise ValueError(f"factor: {factor} leaves {other[0]} x {other[1]} pixels of {size}")
    if other == size:
        return x.clone()
    there = F.interpolate(x, other, mode="bilinear", align_corners=False, antialias=True)
    back = F.interpolate(there, size, mode="bilinear", align_corners=False, antialias=True)
    return back.clamp(0, 1)


def blur(x: Tensor, sigma: float) -> Tensor:
    r"""Convolve with a Gaussian, :math:`g(i) \propto \exp(-i^2 / 2\sigma^2)` along both axes.

    The kernel is cut at four standard deviations and sums to 1; the edge pixels are repeated outwards.
    ``x``: (N, C, H, W) in [0, 1]; ``sigma``: in pixels, 0 leaves the images as they are. Raises
    ``ValueError`` for another shape or range, and for a sigma that is negative or not finite.
    """
    check_images(x)
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma: expected a number of pixels >= 0, got {sigma}")
    if sigma == 0:
        return x.clone()
    radius = math.ceil(4 * sigma)
    i = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    g = torch.exp(-(i**2) / (2 * sigma**2))
    g = g / g.sum()
    channels = x.shape[1]
    padded = F.pad(x, (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, g.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    both = F.conv2d(rows, g.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return both.clamp(0, 1)


def noise(x: Tensor, sigma: float, *, seed: int | torch.Generator) -> Tensor:
    """Add independent Gaussian noise to every pixel and clip to [0, 1].

    ``x``: (N, C, H, W) in [0, 1]; ``sigma``: its standard deviation in units of x, 0 leaves the images
    as they are; ``seed``: an integer, or a CPU generator to draw from. Raises ``ValueError`` for
    another shape or range, and for a sigma that is negative or not finite.
    """
    check_images(x)
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma: expected a number >= 0, got {sigma}")
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
    # Drawn on the CPU: a GPU draws other numbers from the same seed.
    drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return (x + sigma * drawn.to(x.device)).clamp(0, 1)


def blur_and_jpeg(x: Tensor, generator: torch.Generator, *, p: float = 0.5) -> Tensor:
    """Augment for training: each batch blurred or halved, each image through JPEG, by chance.

    With probability ``p`` the batch is blurred with sigma drawn from [0, 1.5] pixels or, one time in
    three, resized by a factor from [0.5, 1]; with probability ``p`` its images are saved as JPEG, each
    at a quality drawn from 30 to 95. After Wang et al. (2020), section 3.2, "Blur + JPEG", with
    resizing added and the strengths cut to small images.

    ``x``: (N, C, H, W) in [0, 1]; ``generator``: on the CPU. Raises ``ValueError`` for another shape or
    range, and for a ``p`` outside [0, 1].
    """
    check_images(x)
    if not 0 <= p <= 1:
        raise ValueError(f"p: expected a probability, got {p}")
    first, kind, strength, second = torch.rand(4, generator=generator).tolist()
    if first < p:
        x = resize(x, 0.5 + 0.5 * strength) if kind < 1 / 3 else blur(x, 1.5 * strength)
    if second < p:
        qualities = torch.randint(30, 96, (len(x),), generator=generator).tolist()
        x = _through_jpeg(x, qualities)
    return x


#: What happens to a picture on its way, as detectors of the course are examined: name to change.
CONDITIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "raw": lambda x: x,
        "JPEG 90": lambda x: jpeg(x, 90),
        "JPEG 75": lambda x: jpeg(x, 75),
        "JPEG 50": lambda x: jpeg(x, 50),
        "JPEG 30": lambda x: jpeg(x, 30),
        "half size": lambda x: resize(x, 0.5),
        "blur 1 px": lambda x: blur(x, 1.0),
    }
)
