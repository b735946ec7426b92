"""The texture: light baked into the photograph is evened out, the hollows of the relief are shaded instead, and the sides and the back of
the tile get their own room in the atlas."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from height import diffuse

DELIGHT_STEPS = 160
ILLUMINATION_SIDE = 1024
TEXTURE_SIDE_MIN = 1024
# Ambient occlusion: directions looked into, and how far (part of the longest side).
DIRECTIONS = 32
REACH = 0.07
STRIP = 24
GUTTER = 8
SIDES = ("north", "south", "west", "east")


@dataclass
class Atlas:
    """An encoded image and where things lie in it; rectangles are (left, top, right, bottom) in texture coordinates 0…1."""

    data: bytes
    mime_type: str
    size: tuple
    top: tuple
    sides: dict
    back: tuple


def synthesise(image, relief, look, report):
    """The atlas for the photograph `image` on the heights `relief` (H × W, in parts of the longest side).

    `look` has `delight` 0…1: how much of the uneven light is taken out; `shade` 0…1: how dark hollows become; `quality`: JPEG 1…95.
    """
    steps = DELIGHT_STEPS + DIRECTIONS + 4
    # A small photograph is enlarged, so that the shading of the relief is finer than its pixels.
    scale = max(1, TEXTURE_SIDE_MIN / max(image.size))
    image = image.resize(tuple(round(side * scale) for side in image.size), Image.Resampling.LANCZOS)
    illumination = _illumination(image, report, steps)
    occlusion = _occlusion(relief, lambda turn: report(DELIGHT_STEPS + turn, steps, "shading the hollows"))
    pixels = _relight(image, illumination, look.delight, 1 - look.shade * occlusion)
    report(steps - 3, steps, "light evened out")
    flat = Image.fromarray(pixels).filter(ImageFilter.UnsharpMask(radius=1.5, percent=60, threshold=2))
    atlas, rectangles, sides = _lay_out(np.asarray(flat))
    report(steps - 2, steps, f"atlas {atlas.shape[1]} × {atlas.shape[0]}")
    data = io.BytesIO()
    Image.fromarray(atlas).save(data, "JPEG", quality=look.quality, optimize=True, subsampling=0)
    report(steps - 1, steps, f"JPEG {len(data.getvalue()) // 1024} KiB")
    # What cannot be decoded again must not end up in a model.
    with Image.open(io.BytesIO(data.getvalue()), formats=("JPEG",)) as check:
        check.load()
    report(steps, steps)
    return Atlas(data.getvalue(), "image/jpeg", (atlas.shape[1], atlas.shape[0]), rectangles["top"], sides, rectangles["back"])


def _occlusion(relief, report):
    """How much of the sky each sample does not see, 0…1: the mean over directions of the horizon's sine (Bavoil et al. 2008)."""
    rows, columns = relief.shape
    longest = max(rows, columns)
    relief = relief.astype(np.float32) * longest  # heights in samples, like the distances
    reach = max(2, round(REACH * longest))
    distances = np.unique(np.round(np.geomspace(1, reach, 20)).astype(int))
    padded = np.pad(relief, reach, mode="edge")
    hidden = np.zeros_like(relief)
    for turn in range(DIRECTIONS):
        angle = 2 * np.pi * turn / DIRECTIONS
        tangent = np.zeros_like(relief)
        for distance in distances:
            dx, dy = round(distance * np.cos(angle)), round(distance * np.sin(angle))
            there = padded[reach + dy:reach + dy + rows, reach + dx:reach + dx + columns]
            np.maximum(tangent, (there - relief) * np.float32(1 / max(np.hypot(dx, dy), 1)), out=tangent)
        hidden += tangent / np.sqrt(1 + tangent * tangent)
        report(turn + 1)
    return hidden / DIRECTIONS


def _illumination(image, report, steps):
    """Log brightness without detail: the diffusion keeps the borders between things and forgets what lies within them."""
    scale = min(1, ILLUMINATION_SIDE / max(image.size))
    size = tuple(max(1, round(side * scale)) for side in image.size)
    grey = np.asarray(image.convert("L").resize(size, Image.Resampling.BOX), dtype=np.float32)
    values = np.log((grey + 8) / 263)
    for step in range(1, DELIGHT_STEPS + 1):
        values = diffuse(values, 0.25, rate=0.24)
        report(step, steps, "finding the light")
    return values


def _relight(image, illumination, delight, light):
    """The photograph's pixels with the low-frequency light taken out by `delight` and the relief's own `light` put in."""
    gain = np.exp(-0.5 * delight * (illumination - np.median(illumination)))
    pixels = np.asarray(image, dtype=np.float32)
    for factor in (np.clip(gain, 0.6, 1.8), light):
        # As a float image it can be enlarged without steps.
        enlarged = Image.fromarray(factor.astype(np.float32)).resize(image.size, Image.Resampling.BICUBIC)
        pixels = pixels * np.asarray(enlarged)[..., None]
    # A soft shoulder instead of a hard clip at white.
    pixels = np.where(pixels > 220, 220 + 35 * (1 - np.exp(-np.maximum(pixels - 220, 0) / 35)), pixels)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _lay_out(pixels):
    """The photograph on top; below it one strip a side, which starts with the rim's own pixels so that no seam shows; then the back."""
    height, width = pixels.shape[:2]
    across = max(height, width)
    total = height + 5 * (STRIP + 2 * GUTTER)
    atlas = np.zeros((total, across, 3), np.uint8)
    _place(atlas, pixels, 0, height + GUTTER)
    rims = {"north": pixels[0], "south": pixels[-1], "west": pixels[:, 0], "east": pixels[:, -1]}
    sides, row = {}, height + GUTTER
    stone = pixels.reshape(-1, 3).mean(0) * 0.55
    for name in SIDES:
        length = len(rims[name])
        fade = np.linspace(0, 1, STRIP)[:, None, None] ** 0.7
        strip = rims[name][None].astype(np.float32) * (1 - 0.8 * fade) + stone * 0.8 * fade
        _place(atlas, strip.astype(np.uint8), row + GUTTER, row + STRIP + 2 * GUTTER, above=GUTTER)
        sides[name] = _rectangle(0, row + GUTTER, length, STRIP, across, total)
        row += STRIP + 2 * GUTTER
    patch = np.broadcast_to((stone * 0.9).astype(np.uint8), (STRIP, across, 3))
    _place(atlas, patch, row, total)
    rectangles = {"top": _rectangle(0, 0, width, height, across, total), "back": _rectangle(0, row, across, total - row, across, total)}
    return atlas, rectangles, sides


def _place(atlas, block, top, until, above=0):
    """Copies `block` to row `top` and repeats its edges `above` rows up, to the right border and down to row `until`."""
    height, width = block.shape[:2]
    pad = ((above, until - top - height), (0, atlas.shape[1] - width), (0, 0))
    atlas[top - above:until] = np.pad(block, pad, mode="edge")


def _rectangle(left, top, width, height, across, total):
    # Half a texel in, so that filtering never reads a neighbour.
    return ((left + 0.5) / across, (top + 0.5) / total, (left + width - 0.5) / across, (top + height - 0.5) / total)
