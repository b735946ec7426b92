#!/usr/bin/env python3
"""Turns a photograph into a closed relief mesh with the photograph as its texture: relief.glb, binary glTF 2.0.

On its own:             python3 relief.py --input photo.jpg --output out/relief.glb
As a Headway worker:    headway worker --queue relief --pipeline relief -- python3 relief.py

As a worker's command it reads the job from standard input, its photograph from HEADWAY_INPUT_DIR, and leaves relief.glb and preview.png
in HEADWAY_OUTPUT_DIR. Exit status: 0 done, 1 failed (the reason has been reported), 2 wrong command line, 143 ended by SIGTERM.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

import headway_progress as headway

# One job keeps one core busy: the linear algebra library must not spin on the others. It reads this when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

STAGES = ("image_loading", "image_preprocessing", "shape_generation", "texture_synthesis", "mesh_export")
JOB_BYTES_MAX = 1024 * 1024
PREVIEW_SIDE = 512
PREVIEW_BYTES_MAX = 400 * 1024


class Refused(Exception):
    """The job cannot be done as asked; code and text are for whoever sent it."""

    def __init__(self, code, message, recoverable=False):
        super().__init__(message)
        self.code, self.recoverable = code, recoverable


@dataclass
class Params:
    """What may be asked for: name, default and (smallest, largest)."""

    size: int = 768  # samples of the height field, longest side
    sweeps: int = 3600
    mesh: int = 320  # vertices of the mesh's top, longest side
    width: float = 100.0  # mm, longest side
    depth: float = 7.0  # mm
    base: float = 3.0  # mm
    delight: float = 0.6  # share of the uneven light that is taken out of the texture
    shade: float = 0.7  # how dark the hollows become in the texture
    quality: int = 88  # of the JPEG inside
    seed: int = 0

    LIMITS = {
        "size": (16, 1536), "sweeps": (1, 20_000), "mesh": (8, 1024), "width": (5, 2000), "depth": (0.1, 500), "base": (0.1, 500),
        "delight": (0, 1), "shade": (0, 1), "quality": (30, 95), "seed": (0, 2**32 - 1),
    }

    @classmethod
    def checked(cls, given):
        """From JSON; whatever is wrong is said with the parameter's name."""
        if not isinstance(given, dict):
            raise Refused("bad_params", "params must be an object")
        known = {field.name: field.type for field in fields(cls)}
        values = {}
        for name, value in given.items():
            if name == "inputs":
                continue
            if name not in known:
                raise Refused("bad_params", f"params.{name[:64]} is unknown; known are {', '.join(known)}")
            low, high = cls.LIMITS[name]
            whole = known[name] is int
            fits = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
            if not fits or (whole and value != int(value)):
                kind = "a whole number" if whole else "a number"
                raise Refused("bad_params", f"params.{name} must be {kind} from {low} to {high}, not {json.dumps(value)[:40]}")
            values[name] = known[name](value)
        return cls(**values)


def make_relief(source, target, params, report):
    """The whole way from the file `source` to the file `target`. Returns what is worth telling about the model."""
    # Imported late: a wrong command line or job is answered without them.
    import gltf
    import height
    import mesh
    import photo
    import texture

    def stage(name):
        return lambda step, steps, message=None: report(name, step, steps, message)

    try:
        image = photo.load(source, stage("image_loading"))
    except photo.BadImage as problem:
        raise Refused("bad_image", str(problem)) from problem
    headway.log(f"{source.name}: {image.width} × {image.height} pixels to work with")
    field = height.preprocess(image, params.size, params.seed, stage("image_preprocessing"))

    def round_done(relief, text):
        headway.log(f"shape: {text}")
        write_preview(relief, image, params, target.parent)

    relief, residual = height.solve(field, params.sweeps, stage("shape_generation"), round_done)
    atlas = texture.synthesise(image, relief * (params.depth / params.width), params, stage("texture_synthesis"))
    export = stage("mesh_export")
    relief = height.resample(relief, height.grid_size(image, params.mesh))
    model = mesh.build(relief, params.width, params.depth, params.base, atlas, export)
    data = gltf.encode(model, atlas, "relief")
    write_whole(target, data)
    headway.log(f"{target.name}: {len(model.indices)} triangles, closed; {len(data)} bytes, {len(atlas.data)} of them texture")
    export(mesh.STEPS, mesh.STEPS, f"{target.name}: {len(data) / 1e6:.1f} MB")
    spans = model.positions.max(0) - model.positions.min(0)
    return {
        "model": target.name, "bytes": len(data), "vertices": len(model.positions), "triangles": len(model.indices),
        "size_mm": [round(float(span) * 1000, 2) for span in spans], "residual": float(f"{residual:.2e}"), "texture": list(atlas.size),
    }


def write_preview(relief, image, params, directory):
    """preview.png: the relief lit from the side, small enough for PREVIEW_BYTES_MAX."""
    import io

    import height
    import numpy as np
    from PIL import Image

    side, data = min(PREVIEW_SIDE, params.size), io.BytesIO()
    while True:
        size = height.grid_size(image, side)
        colour = np.asarray(image.resize(size, Image.Resampling.BOX), dtype=np.float32)
        picture = height.shade(height.resample(relief, size), params.depth / params.width * max(size), colour)
        Image.fromarray(picture).save(data, "PNG")
        if len(data.getvalue()) <= PREVIEW_BYTES_MAX:
            break
        side, data = side * 3 // 4, io.BytesIO()
    write_whole(directory / "preview.png", data.getvalue())
    headway.preview("preview.png")


def write_whole(path, data):
    """The file appears complete or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as problem:
        raise Refused("output_not_written", f"{path.name} cannot be written: {problem.strerror}", recoverable=True) from problem
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def read_job():
    """(photograph, model to write, parameters) of the job on standard input."""
    text = sys.stdin.buffer.read(JOB_BYTES_MAX + 1)
    try:
        job = json.loads(text[:JOB_BYTES_MAX])
        params = job.get("params") or {}
    except (ValueError, AttributeError, RecursionError):
        raise Refused("bad_job", "standard input does not hold a job as a JSON object") from None
    checked = Params.checked(params)
    try:
        inputs, outputs = (Path(os.environ[name]) for name in ("HEADWAY_INPUT_DIR", "HEADWAY_OUTPUT_DIR"))
    except KeyError as missing:
        raise Refused("bad_job", f"{missing.args[0]} is not set: this runs under `headway worker -- …`, or with --input") from None
    named = params.get("inputs") or []
    if not (isinstance(named, list) and all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in named)):
        raise Refused("bad_params", 'params.inputs must be a list like [{"upload": "…", "name": "photo.jpg"}]')
    names = [entry["name"] for entry in named] or sorted(entry.name for entry in inputs.iterdir() if entry.is_file())
    if len(names) != 1:
        raise Refused("bad_params", f"params.inputs must name one photograph, not {len(names)}")
    if names[0] in ("", ".", "..") or "/" in names[0] or "\0" in names[0]:
        raise Refused("bad_params", "params.inputs[0].name must be a plain file name")
    return inputs / names[0], outputs / "relief.glb", checked


def read_command_line():
    parser = argparse.ArgumentParser(description="Turns a photograph into a relief mesh (binary glTF 2.0).")
    parser.add_argument("--input", type=Path, required=True, help="photograph: JPEG, PNG, WebP, TIFF, BMP or GIF")
    parser.add_argument("--output", type=Path, required=True, help="model to write, e.g. out/relief.glb")
    for field in fields(Params):
        low, high = Params.LIMITS[field.name]
        parser.add_argument(f"--{field.name}", type=field.type, default=field.default, help=f"{low} to {high} (default {field.default})")
    given = vars(parser.parse_args())
    source, target = given.pop("input"), given.pop("output")
    return source, target, Params.checked(given)


def report_to_worker(stage, step, steps, message=None):
    headway.progress(stage, step, steps, message=message)


class PlainReport:
    """Progress as plain lines, at most two a second and the last of each stage."""

    def __init__(self):
        self._next = 0.0

    def __call__(self, stage, step, steps, message=None):
        now = time.monotonic()
        if now >= self._next or step == steps:
            self._next = now + 0.5
            print(f"{stage:<20} {step:>5} of {steps:<5} {message or ''}".rstrip(), flush=True)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    is_job = len(sys.argv) == 1 and "HEADWAY_JOB_ID" in os.environ
    try:
        source, target, params = read_job() if is_job else read_command_line()
        facts = make_relief(source, target, params, report_to_worker if is_job else PlainReport())
    except Refused as problem:
        return fail(problem.code, str(problem), problem.recoverable)
    except MemoryError:
        return fail("out_of_memory", "not enough memory: send a smaller image, or lower params.size", True)
    headway.result(**facts)
    if not is_job:
        print(f"{target}  {facts['triangles']} triangles, {facts['bytes'] / 1e6:.1f} MB")
    return 0


def fail(code, message, recoverable):
    headway.error(code, message, recoverable)
    print(f"relief: {message} [{code}]", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
