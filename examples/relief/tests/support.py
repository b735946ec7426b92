"""What the tests of the generator share: a reader of GLB files, a run under the worker's protocol, small pictures."""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parent / "relief.py"
PHOTOS = HERE.parent / "photos"
TINY = {"size": 48, "sweeps": 60, "mesh": 40}
DEADLINE_S = 60

sys.path.insert(0, str(HERE.parent))
scratch = Path(tempfile.mkdtemp(prefix="relief-"))


def clean_up():
    shutil.rmtree(scratch, ignore_errors=True)


class Model:
    """A GLB read by nothing but the specification."""

    def __init__(self, data):
        magic, version, total = struct.unpack_from("<4sII", data)
        assert (magic, version, total) == (b"glTF", 2, len(data)), (magic, version, total, len(data))
        chunks, at = [], 12
        while at < len(data):
            length, kind = struct.unpack_from("<I4s", data, at)
            assert length % 4 == 0 and at + 8 + length <= len(data), (at, length)
            chunks.append((kind, data[at + 8:at + 8 + length]))
            at += 8 + length
        assert [kind for kind, _ in chunks] == [b"JSON", b"BIN\0"]
        self.document, self.body = json.loads(chunks[0][1]), chunks[1][1]
        assert self.document["asset"]["version"] == "2.0"
        assert self.document["buffers"] == [{"byteLength": len(self.body)}]
        self.primitive = self.document["meshes"][0]["primitives"][0]
        attributes = self.primitive["attributes"]
        self.positions, self.normals, self.uvs = (self.accessor(attributes[name]) for name in ("POSITION", "NORMAL", "TEXCOORD_0"))
        self.indices = self.accessor(self.primitive["indices"]).reshape(-1, 3).astype(np.int64)

    def view(self, number):
        view = self.document["bufferViews"][number]
        start, length = view["byteOffset"], view["byteLength"]
        assert start % 4 == 0 and start + length <= len(self.body), view
        return self.body[start:start + length]

    def accessor(self, number):
        accessor = self.document["accessors"][number]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[accessor["type"]]
        kind = {5126: "<f4", 5125: "<u4", 5123: "<u2"}[accessor["componentType"]]
        values = np.frombuffer(self.view(accessor["bufferView"]), kind)
        assert values.size == accessor["count"] * width, accessor
        values = values.reshape(-1, width)
        assert np.array_equal(values.min(0), np.array(accessor["min"], values.dtype)), accessor
        assert np.array_equal(values.max(0), np.array(accessor["max"], values.dtype)), accessor
        return values

    def texture(self):
        source = self.document["images"][self.document["textures"][0]["source"]]
        assert source["mimeType"] == "image/jpeg"
        image = Image.open(io.BytesIO(self.view(source["bufferView"])))
        image.load()
        return image


def check_closed(model):
    """Raises AssertionError unless the mesh is one closed surface that faces outwards."""
    place = {}
    corners = [place.setdefault(tuple(position), len(place)) for position in model.positions.tolist()]
    edges = set()
    for a, b, c in model.indices.tolist():
        a, b, c = corners[a], corners[b], corners[c]
        for edge in ((a, b), (b, c), (c, a)):
            assert edge[0] != edge[1], "a triangle is degenerate"
            assert edge not in edges, "an edge is used twice in one direction"
            edges.add(edge)
    for a, b in edges:
        assert (b, a) in edges, "an edge has no opposite"
    # Euler: one closed surface without holes.
    assert len(place) - len(edges) // 2 + len(model.indices) == 2, "the surface has holes or parts"
    a, b, c = (model.positions[model.indices[:, i]].astype(float) for i in range(3))
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).min() > 0, "a triangle has no area"
    span = model.positions.max(0) - model.positions.min(0)
    volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
    assert 0 < volume < np.prod(span.astype(float)), "the surface does not face outwards"


class Run:
    """One run under the protocol of a worker."""

    def __init__(self, photograph=None, params=TINY, name="photo.jpg", job=None, wait=True):
        directory = Path(tempfile.mkdtemp(dir=scratch))
        self.inputs, self.outputs = directory / "in", directory / "out"
        self.inputs.mkdir()
        self.outputs.mkdir()
        if photograph is not None:
            (self.inputs / name).write_bytes(photograph)
        if job is None:
            job = json.dumps({"job": "test", "attempt": 1, "pipeline": "relief",
                              "params": {**params, "inputs": [{"upload": "u", "name": name}]}}).encode()
        self.reader, writer = os.pipe()
        environment = dict(os.environ, HEADWAY_JOB_ID="test", HEADWAY_ATTEMPT="1", HEADWAY_PROGRESS_FD=str(writer),
                           HEADWAY_INPUT_DIR=str(self.inputs), HEADWAY_OUTPUT_DIR=str(self.outputs))
        self.process = subprocess.Popen([sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, pass_fds=[writer], env=environment)
        os.close(writer)
        self.process.stdin.write(job)
        self.process.stdin.close()
        self.process.stdin = None
        self.lines = os.fdopen(self.reader, "r")
        if wait:
            self.finish()

    def finish(self):
        self.messages = [json.loads(line) for line in self.lines]
        self.lines.close()
        self.output, self.errors = (text.decode() for text in self.process.communicate(timeout=DEADLINE_S))
        self.status = self.process.returncode
        self.files = sorted(path.name for path in self.outputs.iterdir())
        return self

    def model(self):
        return Model((self.outputs / "relief.glb").read_bytes())

    def error(self):
        return next(message["error"] for message in self.messages if "error" in message)


def encoded(image, format="JPEG", **options):
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def gradient(width, height, mode="RGB"):
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) % 256], -1).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)
