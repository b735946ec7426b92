"""A mesh with one texture as binary glTF 2.0 (Khronos Group, glTF 2.0 specification, section 4.4: GLB)."""

import json
import struct

import numpy as np

FLOAT, UINT32, UINT16 = 5126, 5125, 5123
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP_TO_EDGE = 9729, 9987, 33071


def encode(mesh, atlas, name):
    """The bytes of the .glb file."""
    narrow = len(mesh.positions) <= 65535  # 65535 itself is the primitive restart value
    indices = mesh.indices.reshape(-1).astype("<u2" if narrow else "<u4")
    views, body = [], bytearray()

    def view(data, target=None):
        body.extend(b"\0" * (-len(body) % 4))
        views.append({"buffer": 0, "byteOffset": len(body), "byteLength": len(data), **({"target": target} if target else {})})
        body.extend(data)
        return len(views) - 1

    def vectors(values, kind):
        values = np.ascontiguousarray(values, dtype="<f4")
        bounds = {"min": values.min(0).astype(float).tolist(), "max": values.max(0).astype(float).tolist()}
        return {"bufferView": view(values.tobytes(), ARRAY_BUFFER), "componentType": FLOAT, "count": len(values), "type": kind, **bounds}

    accessors = [vectors(mesh.positions, "VEC3"), vectors(mesh.normals, "VEC3"), vectors(mesh.uvs, "VEC2")]
    accessors.append({
        "bufferView": view(indices.tobytes(), ELEMENT_ARRAY_BUFFER), "componentType": UINT16 if narrow else UINT32,
        "count": len(indices), "type": "SCALAR", "min": [int(indices.min())], "max": [int(indices.max())],
    })
    image = view(atlas.data)
    body.extend(b"\0" * (-len(body) % 4))
    document = {
        "asset": {"version": "2.0", "generator": "Headway relief example"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"name": name, "primitives": [{
            "attributes": {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2}, "indices": 3, "material": 0}]}],
        "materials": [{"name": "photograph", "pbrMetallicRoughness": {
            "baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 0.85}}],
        "textures": [{"sampler": 0, "source": 0}],
        "images": [{"bufferView": image, "mimeType": atlas.mime_type, "name": "atlas"}],
        "samplers": [{"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR, "wrapS": CLAMP_TO_EDGE, "wrapT": CLAMP_TO_EDGE}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(body)}],
    }
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(body)
    return b"".join([
        struct.pack("<4sII", b"glTF", 2, total),
        struct.pack("<I4s", len(text), b"JSON"), text,
        struct.pack("<I4s", len(body), b"BIN\0"), body,
    ])
