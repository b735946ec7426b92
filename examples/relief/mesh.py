"""The tile as triangles: relief on top, four sides, a flat back. Closed: every edge is shared by exactly two triangles."""

from dataclasses import dataclass

import numpy as np

# Steps of the export: five here, the sixth is the file.
STEPS = 6


@dataclass
class Mesh:
    """Positions in metres (x right, y up, z towards the viewer), unit normals, texture coordinates, and triangles."""

    positions: np.ndarray
    normals: np.ndarray
    uvs: np.ndarray
    indices: np.ndarray


def build(height, width_mm, depth_mm, base_mm, atlas, report):
    """The mesh of `height` (0…1, H × W): `width_mm` on its longest side, `depth_mm` of relief on `base_mm` of tile."""
    steps = STEPS
    rows, columns = height.shape
    # Divided once in double precision: rim vertices of top, sides and back must have bit-equal positions.
    cell = width_mm / 1000 / (max(rows, columns) - 1)
    x = ((np.arange(columns) - (columns - 1) / 2) * cell).astype(np.float32)
    y = (((rows - 1) / 2 - np.arange(rows)) * cell).astype(np.float32)
    z = (height.astype(np.float64) * depth_mm / 1000).astype(np.float32)
    back = np.float32(-base_mm / 1000)
    parts = [_top(x, y, z, cell, atlas.top)]
    report(1, steps, "top")
    for name in ("north", "south", "west", "east"):
        parts.append(_side(name, x, y, z, back, atlas.sides[name]))
    report(2, steps, "sides")
    parts.append(_back(x, y, back, atlas.back))
    report(3, steps, "back")
    mesh = _join(parts)
    report(4, steps, f"{len(mesh.positions)} vertices, {len(mesh.indices)} triangles")
    problem = find_problem(mesh)
    if problem:
        raise AssertionError(f"the mesh is not closed: {problem}")
    report(5, steps, "checked: closed")
    return mesh


def _top(x, y, z, cell, rectangle):
    rows, columns = z.shape
    grid_x, grid_y = np.meshgrid(x, y)
    positions = np.stack([grid_x, grid_y, z], axis=-1).reshape(-1, 3)
    slope_y, slope_x = np.gradient(z.astype(np.float64), cell)
    normals = _unit(np.stack([-slope_x, slope_y, np.ones_like(slope_x)], axis=-1).reshape(-1, 3))
    left, top, right, bottom = rectangle
    u, v = np.meshgrid(np.linspace(left, right, columns), np.linspace(top, bottom, rows))
    corner = np.arange(rows * columns, dtype=np.uint32).reshape(rows, columns)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    # Each cell is cut along the diagonal that bends less; the two triangles face the viewer either way.
    falling = (np.abs(z[:-1, :-1] - z[1:, 1:]) <= np.abs(z[:-1, 1:] - z[1:, :-1]))[..., None]
    first = np.where(falling, np.stack([a, c, d], -1), np.stack([a, c, b], -1))
    second = np.where(falling, np.stack([a, d, b], -1), np.stack([b, c, d], -1))
    return positions, normals, np.stack([u, v], -1).reshape(-1, 2), np.concatenate([first.reshape(-1, 3), second.reshape(-1, 3)])


def _side(name, x, y, z, back, rectangle):
    """A strip of quadrilaterals under one rim, with vertices of its own because its normals and texture are other than the top's."""
    rim_x, rim_y, rim_z, normal, is_reversed = {
        "north": (x, np.full_like(x, y[0]), z[0], (0, 1, 0), False),
        "south": (x, np.full_like(x, y[-1]), z[-1], (0, -1, 0), True),
        "west": (np.full_like(y, x[0]), y, z[:, 0], (-1, 0, 0), True),
        "east": (np.full_like(y, x[-1]), y, z[:, -1], (1, 0, 0), False),
    }[name]
    count = len(rim_x)
    upper = np.stack([rim_x, rim_y, rim_z], -1)
    lower = np.stack([rim_x, rim_y, np.full_like(rim_x, back)], -1)
    left, top, right, bottom = rectangle
    u = np.linspace(left, right, count)
    uvs = np.concatenate([np.stack([u, np.full(count, top)], -1), np.stack([u, np.full(count, bottom)], -1)])
    a = np.arange(count - 1, dtype=np.uint32)
    b, c, d = a + 1, a + count, a + count + 1
    triangles = np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)])
    if is_reversed:
        triangles = triangles[:, ::-1]
    return np.concatenate([upper, lower]), np.tile(np.array(normal, np.float32), (2 * count, 1)), uvs, triangles


def _back(x, y, back, rectangle):
    """A fan from the middle to all rim vertices: long thin triangles, but no vertex of the sides lies inside an edge."""
    rim = np.concatenate([
        np.stack([x[:-1], np.full(len(x) - 1, y[0])], -1),
        np.stack([np.full(len(y) - 1, x[-1]), y[:-1]], -1),
        np.stack([x[:0:-1], np.full(len(x) - 1, y[-1])], -1),
        np.stack([np.full(len(y) - 1, x[0]), y[:0:-1]], -1),
    ]).astype(np.float32)
    flat = np.concatenate([np.zeros((1, 2), np.float32), rim])
    positions = np.concatenate([flat, np.full((len(flat), 1), back, np.float32)], axis=1)
    left, top, right, bottom = rectangle
    u = left + (right - left) * (flat[:, 0] - x[0]) / (x[-1] - x[0])
    v = top + (bottom - top) * (y[0] - flat[:, 1]) / (y[0] - y[-1])
    here = np.arange(1, len(flat), dtype=np.uint32)
    triangles = np.stack([np.zeros_like(here), here, np.roll(here, -1)], -1)
    normals = np.tile(np.array((0, 0, -1), np.float32), (len(flat), 1))
    return positions, normals, np.stack([u, v], -1), triangles


def _join(parts):
    positions, normals, uvs, triangles, offset = [], [], [], [], 0
    for part in parts:
        positions.append(part[0].astype(np.float32))
        normals.append(part[1].astype(np.float32))
        uvs.append(np.clip(part[2], 0, 1).astype(np.float32))
        triangles.append(part[3].astype(np.uint32) + np.uint32(offset))
        offset += len(part[0])
    return Mesh(*(np.concatenate(values) for values in (positions, normals, uvs, triangles)))


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def find_problem(mesh):
    """None if the triangles close a volume and face outwards, else what is wrong. Vertices at one place count as one."""
    positions = np.ascontiguousarray(mesh.positions + np.float32(0))  # -0.0 and 0.0 are one place
    _, weld = np.unique(positions.view(np.dtype((np.void, 12))).ravel(), return_inverse=True)
    corners = weld[mesh.indices.astype(np.int64)].astype(np.int64)
    first, second, third = corners.T
    if np.any((first == second) | (second == third) | (third == first)):
        return "a triangle has no area"
    starts = np.concatenate([first, second, third])
    ends = np.concatenate([second, third, first])
    count = len(positions)
    forward, backward = np.sort(starts * count + ends), np.sort(ends * count + starts)
    if np.any(forward[1:] == forward[:-1]):
        return "an edge is used twice in one direction"
    if not np.array_equal(forward, backward):
        return "an edge has no opposite"
    a, b, c = (mesh.positions[mesh.indices[:, i]].astype(np.float64) for i in range(3))
    if float(np.einsum("ij,ij->", a, np.cross(b, c))) <= 0:
        return "the triangles face inwards"
    return None
