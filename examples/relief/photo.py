"""Reading the photograph: everything that can be wrong with a file somebody uploaded ends in one BadImage."""

import io
import warnings

import numpy as np
from PIL import Image, ImageCms, ImageOps

# Formats whose decoders run inside Pillow itself; EPS and the like would start other programs. MPO, which telephones make, is opened as
# JPEG; some versions of Pillow do not know it by its name.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
PIXELS_MAX = 50_000_000
BYTES_MAX = 64 * 1024 * 1024
SIDE_MIN = 8
ASPECT_MAX = 16
TEXTURE_SIDE_MAX = 2048

Image.MAX_IMAGE_PIXELS = PIXELS_MAX


class BadImage(Exception):
    """The input is not a photograph that can be used; the text says why, for the person who sent it."""


def load(path, report):
    """The photograph as an upright RGB image of at most TEXTURE_SIDE_MAX on its longest side."""
    steps = 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with path.open("rb") as file:
                image = _open(file, path.stat().st_size)
                report(1, steps, f"{image.format} {image.width} × {image.height}")
                # JPEG can be decoded at 1/2, 1/4, 1/8 for a fraction of the time and memory.
                image.draft("RGB", (TEXTURE_SIDE_MAX, TEXTURE_SIDE_MAX))
                profile = image.info.get("icc_profile")
                image.load()
                report(2, steps, "decoded")
                image = _to_rgb(ImageOps.exif_transpose(image), profile)
                report(3, steps, "upright, RGB")
        except BadImage:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise BadImage(f"the image has more than {PIXELS_MAX // 1_000_000} megapixels: send a smaller one") from None
        except FileNotFoundError:
            raise BadImage("the input file is not there") from None
        except MemoryError:
            raise
        # Decoders meet hostile bytes: what they raise is not a closed set (OSError, SyntaxError, ValueError, struct.error, …).
        except Exception as problem:
            raise BadImage(f"the file cannot be read as an image ({_short(problem)}): send a JPEG, PNG or WebP") from problem
    image.thumbnail((TEXTURE_SIDE_MAX, TEXTURE_SIDE_MAX), Image.Resampling.LANCZOS, reducing_gap=3.0)
    report(4, steps, f"{image.width} × {image.height} for the texture")
    return image


def _open(file, size):
    if size == 0:
        raise BadImage("the file is empty: send a JPEG, PNG or WebP")
    if size > BYTES_MAX:
        raise BadImage(f"the file has {size} bytes, more than {BYTES_MAX}: send a smaller one")
    image = Image.open(file, formats=FORMATS)
    width, height = image.size
    # The header is read, the pixels are not: refuse before any memory is taken for them.
    if width * height > PIXELS_MAX:
        raise BadImage(f"the image has {width} × {height} pixels, more than {PIXELS_MAX // 1_000_000} megapixels: send a smaller one")
    if min(width, height) < SIDE_MIN:
        raise BadImage(f"the image has {width} × {height} pixels: at least {SIDE_MIN} × {SIDE_MIN} are needed")
    if max(width, height) > ASPECT_MAX * min(width, height):
        raise BadImage(f"the image has {width} × {height} pixels: one side may be at most {ASPECT_MAX} times the other")
    return image


def _to_rgb(image, profile):
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        scaled = (values - low) / (high - low) * 255 if high > low else np.full(values.shape, 128.0)
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if profile and image.mode in ("RGB", "CMYK"):
        image = _to_srgb(image, profile)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        paper = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, rgba).convert("RGB")
    return image.convert("RGB")


def _to_srgb(image, profile):
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # an unusable profile costs some colour accuracy, not the job


def _short(problem):
    return " ".join(str(problem).split())[:120] or type(problem).__name__
