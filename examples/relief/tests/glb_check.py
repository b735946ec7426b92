#!/usr/bin/env python3
"""Checks a .glb that the generator made, wherever it came from: structure, closed mesh, unit normals, texture.

python3 glb_check.py relief.glb
"""
import sys
from pathlib import Path

import numpy as np
from support import Model, check_closed

model = Model(Path(sys.argv[1]).read_bytes())
assert model.indices.max() < len(model.positions), "an index is out of range"
check_closed(model)
assert np.abs(np.linalg.norm(model.normals.astype(float), axis=1) - 1).max() < 1e-5, "a normal is not of unit length"
model.texture()
print(f"closed mesh of {len(model.indices)} triangles, textured")
