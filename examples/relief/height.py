"""From brightness to height: the fields of the equation (preprocessing) and its solution (shape generation).

Bright, sharp and central parts of a photograph stand forward. That is cast as a weighted, screened Poisson problem on the grid of
height samples h: minimise

    sum over neighbours i, j   w_ij (h_j - h_i - g_ij)^2      the slopes follow the compressed gradients g of the brightness
  + lambda sum over samples i  (h_i - p_i)^2                  the large forms follow the prior p (focus, brightness, centre)

with small w across strong edges, which are borders between things rather than slopes. No height field has exactly these slopes, so the
weights are estimated anew from the misfit in several rounds (iteratively reweighted least squares with Cauchy weights): where slopes
contradict each other one sharp step is better than a wide ramp. The weights differ from sample to sample, so no Fourier transform
solves a round; red-black successive over-relaxation does (Young 1954; Press et al., Numerical Recipes, section 20.5).
Gradient-domain compression of reliefs follows Weyrich et al., Digital Bas-Relief from 3D Scenes (2007).
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

SMOOTHING_STEPS = 40
# Lengths are in parts of the longest side, so that the relief looks the same whatever the number of samples:
# slopes above this (brightness per longest side) are compressed; the screening acts over 1 / sqrt(SCREENING) of the longest side.
GRADIENT_KNEE = 6.0
SCREENING = 90.0
EDGE_SCALE = 0.09
PRIOR_SCALE = 0.8
RIM_SHARE = 0.03
ROUNDS = 5


@dataclass
class Fields:
    """The equation's right-hand side: brightness and prior (H × W), slopes and weights between neighbours."""

    brightness: np.ndarray
    prior: np.ndarray
    slope_x: np.ndarray
    slope_y: np.ndarray
    weight_x: np.ndarray
    weight_y: np.ndarray


def grid_size(image, size):
    """Samples of the height field (width, height): `size` on the longest side, at least 8 on the other."""
    scale = size / max(image.size)
    return tuple(max(8, round(side * scale)) for side in image.size)


def preprocess(image, size, seed, report):
    """The fields of the equation for `image` at `size` samples."""
    steps = SMOOTHING_STEPS + 4
    small = image.resize(grid_size(image, size), Image.Resampling.LANCZOS)
    rgb = np.asarray(small, dtype=np.float32)
    # 8-bit levels would come out as terraces; half a level of noise hides them. The seed makes it repeatable.
    rgb = rgb + np.random.default_rng(seed).uniform(-0.5, 0.5, rgb.shape).astype(np.float32)
    luma = np.clip(rgb @ np.array([0.2126, 0.7152, 0.0722], np.float32) / 255, 0, 1)
    low, high = np.percentile(luma, (0.5, 99.5))
    if high > low + 0.02:
        luma = np.clip((luma - low) / (high - low), 0, 1)
    report(1, steps, f"height field {small.width} × {small.height}")
    smooth = luma.astype(np.float32)
    for turn in range(SMOOTHING_STEPS):
        smooth = diffuse(smooth, 0.05)
        report(turn + 2, steps, "smoothing between edges")
    prior = PRIOR_SCALE * _prior(luma, smooth)
    report(steps - 2, steps, "focus and large forms")
    slope_x, slope_y = np.diff(smooth, axis=1), np.diff(smooth, axis=0)
    knee = GRADIENT_KNEE / max(smooth.shape)
    weight_x, weight_y = (1 / (1 + (slope / EDGE_SCALE) ** 2) + 0.02 for slope in (slope_x, slope_y))
    report(steps - 1, steps, "slopes and weights")
    fields = Fields(smooth, prior, _compress(slope_x, knee), _compress(slope_y, knee), weight_x, weight_y)
    report(steps, steps)
    return fields


def diffuse(values, edge, rate=0.2):
    """One step of edge-keeping diffusion (Perona and Malik 1990): flows between neighbours that differ by less than `edge`."""
    flow_x, flow_y = np.diff(values, axis=1), np.diff(values, axis=0)
    flow_x *= rate / (1 + (flow_x / edge) ** 2)
    flow_y *= rate / (1 + (flow_y / edge) ** 2)
    out = values.copy()
    out[:, :-1] += flow_x
    out[:, 1:] -= flow_x
    out[:-1] += flow_y
    out[1:] -= flow_y
    return out


def blur(values, radius):
    """Three box blurs: close to a Gaussian of standard deviation `radius`, in time independent of it."""
    for axis in (0, 1):
        half = min(max(1, round(radius)), values.shape[axis] - 1)
        for _ in range(3):
            pad = [(half + 1, half) if a == axis else (0, 0) for a in (0, 1)]
            sums = np.cumsum(np.pad(values, pad, mode="reflect" if half + 1 < values.shape[axis] else "edge"), axis=axis, dtype=np.float64)
            count = 2 * half + 1
            upper = np.take(sums, range(count, sums.shape[axis]), axis=axis)
            lower = np.take(sums, range(0, sums.shape[axis] - count), axis=axis)
            values = ((upper - lower) / count).astype(np.float32)
    return values


def _prior(luma, smooth):
    """Where things probably stand forward, 0…1: what is in focus, what is bright, what is in the middle."""
    height, width = luma.shape
    reach = max(height, width)
    detail = blur(np.abs(luma - blur(luma, reach / 150)), reach / 14)
    focus = detail / max(float(detail.max()), 1e-6)
    tone = blur(smooth, reach / 30)
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    dome = np.cos(np.clip(np.hypot(x, y), 0, 1.4) / 1.4 * np.pi / 2)
    mixed = 0.45 * np.sqrt(focus) + 0.3 * tone + 0.25 * dome
    return (mixed - mixed.min()).astype(np.float32)


def _compress(slope, knee):
    """Gentle slopes stay, steep ones grow only logarithmically."""
    return np.sign(slope) * knee * np.log1p(np.abs(slope) / knee)


class Relaxation:
    """Red-black successive over-relaxation of the equation, one colour at a time, vectorised over four interleaved sub-grids.

    The unknowns live in a grid with a border of one sample whose couplings are zero (no flow through the rim), so that every update is
    the same handful of array operations.
    """

    def __init__(self, fields, start=None):
        shape = fields.prior.shape
        height, width = shape
        screening = SCREENING / max(shape) ** 2
        self._h = np.zeros((height + 2, width + 2))
        if start is not None:
            self._h[1:-1, 1:-1] = start
        east, west, south, north = (np.zeros(shape) for _ in range(4))
        east[:, :-1] = west[:, 1:] = fields.weight_x
        south[:-1] = north[1:] = fields.weight_y
        right = screening * fields.prior
        flow_x, flow_y = fields.weight_x * fields.slope_x, fields.weight_y * fields.slope_y
        right[:, :-1] -= flow_x
        right[:, 1:] += flow_x
        right[:-1] -= flow_y
        right[1:] += flow_y
        self._diagonal = east + west + south + north + screening
        self._right = right
        self._scale = float(np.linalg.norm(right)) or 1.0
        # Best factor for this grid: the slowest mode is as long as the longest side, or as long as the screening lets it be.
        slowest = np.pi / max(shape)
        stiffness = screening / float(self._diagonal.mean())
        radius = min(np.cos(slowest), 1 - stiffness)
        self._omega = float(2 / (1 + np.sqrt(1 - radius * radius)))
        self._parts = [self._part(r, c, (east, west, south, north)) for r, c in ((0, 0), (1, 1), (0, 1), (1, 0))]

    def _part(self, r, c, couplings):
        """The samples (r + 2i, c + 2j): views into the padded grid, and their couplings divided by the diagonal."""
        height, width = self._diagonal.shape
        rows, columns = len(range(r, height, 2)), len(range(c, width, 2))

        def view(dy, dx):
            top, left = r + 1 + dy, c + 1 + dx
            return self._h[top:top + 2 * rows - 1:2, left:left + 2 * columns - 1:2]

        scale = self._omega / self._diagonal[r::2, c::2]
        neighbours = ((0, 1), (0, -1), (1, 0), (-1, 0))
        pairs = [(view(dy, dx), np.ascontiguousarray(k[r::2, c::2] * scale)) for (dy, dx), k in zip(neighbours, couplings)]
        buffers = np.empty((2, rows, columns))
        return view(0, 0), pairs, np.ascontiguousarray(self._right[r::2, c::2] * scale), buffers

    def sweep(self):
        """One update of every sample: red, then black."""
        keep = 1 - self._omega
        for centre, pairs, right, (total, product) in self._parts:
            np.multiply(centre, keep, out=total)
            total += right
            for neighbour, coupling in pairs:
                np.multiply(neighbour, coupling, out=product)
                total += product
            centre[...] = total

    def residual(self):
        """Length of what is left of the equation, relative to its right-hand side: 1 at the start, 0 when solved."""
        left = self._right - self._diagonal * self._h[1:-1, 1:-1]
        for centre, pairs, _, _ in self._parts:
            rows, columns = self._offset(centre)
            scale = self._diagonal[rows::2, columns::2] / self._omega
            for neighbour, coupling in pairs:
                left[rows::2, columns::2] += neighbour * coupling * scale
        return float(np.linalg.norm(left)) / self._scale

    def _offset(self, centre):
        start = (centre.__array_interface__["data"][0] - self._h.__array_interface__["data"][0]) // self._h.itemsize
        return start // self._h.shape[1] - 1, start % self._h.shape[1] - 1

    @property
    def height(self):
        """The heights so far, arbitrary scale."""
        return self._h[1:-1, 1:-1]


def solve(fields, sweeps, report, round_done=lambda height, text: None, report_every=20):
    """Heights 0…1 after `sweeps` sweeps, with a flat rim, and the relative residual of the last round.

    `round_done` gets the heights so far and a line about them after each round.
    """
    rounds = min(ROUNDS, sweeps)
    relaxation, residual, current = Relaxation(fields), 1.0, 1
    for sweep in range(1, sweeps + 1):
        relaxation.sweep()
        is_round_over = sweep == sweeps * current // rounds
        if sweep % report_every == 0 or is_round_over:
            residual = relaxation.residual()
            text = f"round {current} of {rounds}, residual {residual:.1e}"
            report(sweep, sweeps, text)
        if is_round_over:
            round_done(_finish(relaxation.height), text)
        if is_round_over and current < rounds:
            current += 1
            relaxation = Relaxation(_reweighted(fields, relaxation.height), relaxation.height)
    return _finish(relaxation.height), residual


def _reweighted(fields, height):
    """The same slopes, trusted less where the heights so far contradict them."""
    misfit_x = np.diff(height, axis=1) - fields.slope_x
    misfit_y = np.diff(height, axis=0) - fields.slope_y
    # 1.4826 times the median deviation estimates the standard deviation; 2.385 is Cauchy's usual tuning constant.
    scale = 2.385 * 1.4826 * float(np.median(np.abs(misfit_x)) + np.median(np.abs(misfit_y))) / 2
    scale = max(scale, 1e-9)
    return replace(
        fields,
        weight_x=fields.weight_x / (1 + (misfit_x / scale) ** 2) + 0.002,
        weight_y=fields.weight_y / (1 + (misfit_y / scale) ** 2) + 0.002,
    )


def _finish(raw):
    low, high = np.percentile(raw, (0.2, 99.8))
    span = float(high - low)
    height = np.clip((raw - low) / span, 0, 1) if span > 1e-6 else np.zeros_like(raw)
    # A flat rim: the sides of the tile are then level all around.
    rows, columns = height.shape
    rim = max(1.5, RIM_SHARE * max(rows, columns))
    from_edge_y = np.minimum(np.arange(rows), np.arange(rows)[::-1])
    from_edge_x = np.minimum(np.arange(columns), np.arange(columns)[::-1])
    ramp = np.clip((np.minimum(from_edge_y[:, None], from_edge_x[None, :]) - rim / 2) / rim, 0, 1)
    return (height * (ramp * ramp * (3 - 2 * ramp))).astype(np.float32)


def resample(height, size):
    """The heights on a grid of `size` (width, height) samples."""
    if size == height.shape[::-1]:
        return height
    resized = Image.fromarray(height).resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(resized), 0, 1)


def shade(height, depth_in_samples, colour=None):
    """A picture (uint8 H × W × 3) of the relief lit from the upper left."""
    dy, dx = np.gradient(height * depth_in_samples)
    length = np.sqrt(dx * dx + dy * dy + 1)
    # Image rows grow downwards: light from the upper left comes from (-x, -y).
    light = np.array([-0.5, -0.6, 0.62])
    lambert = np.clip((-dx * light[0] - dy * light[1] + light[2]) / length, 0, 1)[..., None]
    clay = np.array([232, 224, 212], np.float32)
    base = clay if colour is None else 0.55 * clay + 0.45 * colour
    return np.clip(base * (0.25 + 0.95 * lambert), 0, 255).astype(np.uint8)
