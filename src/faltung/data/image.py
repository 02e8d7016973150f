"""One image file as bytes: (height, width, channels), 8 bits a channel, grey (1) or colour (3)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from faltung.errors import DataError, SettingError

_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"}


def read_image(
    path: str | os.PathLike[str], channels: int, *, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """The pixels of an image file of any kind that Pillow reads, turned upright as its EXIF note says.

    Colour becomes grey by ITU-R 601-2 (0.299 R + 0.587 G + 0.114 B), grey becomes colour by repetition, 16-bit grey
    becomes 8-bit by v / 257, transparent parts are laid over white; of an animation the first picture counts.

    Shapes: (height, width, channels) in uint8. ``size`` (height, width) resizes by averaging over all pixels that fall
    into a new one (a triangle filter), without keeping the aspect ratio.
    Raises: ``DataError`` where the file is missing, damaged or no image; ``SettingError`` for channels other than 1 or
    3, or a size that is not positive.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "red_and_white.png")
    ...     Image.fromarray(np.array([[[255, 0, 0], [255, 255, 255]]], np.uint8)).save(path)
    ...     read_image(path, 3).tolist(), read_image(path, 1).tolist()
    ([[[255, 0, 0], [255, 255, 255]]], [[[76], [255]]])
    """
    if channels not in (1, 3):
        raise SettingError(f"got channels={channels}, expected 1 (grey) or 3 (colour)", way_out="choose one of them")
    with _opened(path) as image:
        upright = _over_white(_eight_bits(ImageOps.exif_transpose(image)))
        pixels = np.array(upright.convert("L" if channels == 1 else "RGB"))
    return resized(pixels.reshape(*pixels.shape[:2], channels), size)


def resized(pixels: NDArray[np.uint8], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """The pixels (height, width, channels) brought to another size; None leaves them as they are.

    >>> resized(np.array([[[0], [100]], [[100], [200]]], np.uint8), (1, 1)).tolist()
    [[[100]]]
    """
    if size is None or pixels.shape[:2] == size:
        return pixels
    height, width = size
    if height < 1 or width < 1:
        raise SettingError(f"the size of images is {height} x {width}, expected at least 1 x 1", way_out="enlarge it")
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    smooth = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
    return smooth.reshape(height, width, pixels.shape[2])


def all_resized(images: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """All images (n, height, width, channels), each as by ``resized``.

    >>> all_resized(np.full((2, 4, 4, 1), 9, np.uint8), (1, 2)).tolist()
    [[[[9], [9]]], [[[9], [9]]]]
    """
    pixels = np.empty((len(images), *size, images.shape[-1]), np.uint8)  # too large a size fails here, at once
    for i, image in enumerate(images):
        pixels[i] = resized(image, size)
    return pixels


def is_grey(path: str | os.PathLike[str]) -> bool:
    """True where the file holds shades of grey by its kind or its palette; pixels are not compared."""
    with _opened(path) as image:
        if image.mode in ("P", "PA"):
            palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
            return bool((palette == palette[:, :1]).all())
        return image.mode in _GREY


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except UnidentifiedImageError as error:
        raise DataError(f"cannot read {path}: no known kind of image", way_out="convert it to PNG or JPEG") from error
    except Exception as error:  # a decoder that meets damaged bytes raises almost anything
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise DataError(f"cannot read {path}: {reason}", way_out="replace or remove the file") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey, scaled; Pillow itself would cut it off at 255."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, expected 8 or 16 bits a channel")
    if not image.mode.startswith("I"):
        return image
    deep = np.asarray(image).astype(np.int64)
    if deep.min() < 0 or deep.max() > 65535:
        raise ValueError(f"its pixels go from {deep.min()} to {deep.max()}, expected 0 to 65535")
    return Image.fromarray(((deep + 128) // 257).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    """Without transparency; what lies under transparent pixels is arbitrary and must not show."""
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))
