"""The generator on tiny sizes: the model it writes, what it refuses, how it reports, how it ends. Run: python3 -m unittest."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from support import DEADLINE_S, HERE, PHOTOS, SCRIPT, TINY, Model, Run, check_closed, clean_up, encoded, gradient  # noqa: E402

STAGES = ["image_loading", "image_preprocessing", "shape_generation", "texture_synthesis", "mesh_export"]


def tearDownModule():
    clean_up()


class ModelTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.run_ = Run((PHOTOS / "cat.jpg").read_bytes(), {**TINY, "width": 80, "depth": 6, "base": 2})
        assert cls.run_.status == 0, cls.run_.errors
        cls.model = cls.run_.model()

    def test_only_the_model_and_the_preview_are_left(self):
        self.assertEqual(self.run_.files, ["preview.png", "relief.glb"])

    def test_indices_are_in_range_and_every_vertex_is_used(self):
        self.assertEqual(set(np.unique(self.model.indices)), set(range(len(self.model.positions))))

    def test_the_mesh_is_closed_and_faces_outwards(self):
        check_closed(self.model)

    def test_normals_are_unit_length_and_agree_with_the_winding(self):
        self.assertLess(np.abs(np.linalg.norm(self.model.normals.astype(float), axis=1) - 1).max(), 1e-5)
        a, b, c = (self.model.positions[self.model.indices[:, i]].astype(float) for i in range(3))
        face = np.cross(b - a, c - a)
        for corner in range(3):
            self.assertGreater(np.einsum("ij,ij->i", face, self.model.normals[self.model.indices[:, corner]]).min(), 0)

    def test_texture_decodes_and_coordinates_lie_inside(self):
        self.assertEqual(self.model.texture().mode, "RGB")
        self.assertTrue((self.model.uvs >= 0).all() and (self.model.uvs <= 1).all())

    def test_texture_and_surface_agree(self):
        # The colour at the middle of the mesh is the colour at the middle of the photograph, give or take the even light.
        texture = np.asarray(self.model.texture().resize((256, 256)), dtype=float)
        front = np.flatnonzero(self.model.normals[:, 2] > 0.2)
        middle = front[np.argmin(np.hypot(*self.model.positions[front, :2].T))]
        u, v = self.model.uvs[middle]
        photograph = np.asarray(Image.open(PHOTOS / "cat.jpg").resize((64, 64)), dtype=float)[32, 32]
        self.assertLess(np.abs(texture[int(v * 255), int(u * 255)] - photograph).max(), 90)

    def test_size_is_what_was_asked_for_in_millimetres(self):
        span = (self.model.positions.max(0) - self.model.positions.min(0)) * 1000
        self.assertAlmostEqual(float(span[0]), 80, places=3)
        self.assertAlmostEqual(float(-self.model.positions[:, 2].min() * 1000), 2, places=3)
        self.assertLessEqual(float(self.model.positions[:, 2].max() * 1000), 6.0001)
        self.assertGreater(float(self.model.positions[:, 2].max() * 1000), 4)
        result = next(message["result"] for message in self.run_.messages if "result" in message)
        self.assertEqual(result["triangles"], len(self.model.indices))

    def test_preview_is_a_small_png_after_the_shape(self):
        with Image.open(self.run_.outputs / "preview.png") as preview:
            self.assertEqual(preview.format, "PNG")
            self.assertLessEqual(max(preview.size), 512)
        kinds = [message.get("stage") or next(iter(message)) for message in self.run_.messages]
        self.assertGreater(kinds.index("preview"), kinds.index("shape_generation"))
        self.assertLess(len(kinds) - 1 - kinds[::-1].index("preview"), kinds.index("texture_synthesis"))
        self.assertEqual(kinds.count("preview"), 5, "one after each round")

    def test_stages_come_in_order_and_steps_only_grow(self):
        progress = [message for message in self.run_.messages if "stage" in message]
        order = list(dict.fromkeys(message["stage"] for message in progress))
        self.assertEqual(order, STAGES)
        numbers = [STAGES.index(message["stage"]) for message in progress]
        self.assertEqual(numbers, sorted(numbers))
        for stage in STAGES:
            steps = [(message["step"], message["steps"]) for message in progress if message["stage"] == stage]
            self.assertEqual(steps, sorted(set(steps)))
            self.assertEqual(len({total for _, total in steps}), 1)
            self.assertEqual(steps[-1][0], steps[-1][1])

    def test_a_long_solve_reports_its_falling_residual(self):
        run = Run((PHOTOS / "coffee.jpg").read_bytes(), {"size": 96, "sweeps": 3000, "mesh": 24})
        texts = [message["message"] for message in run.messages if message.get("stage") == "shape_generation"]
        self.assertGreater(len(texts), 3)
        self.assertLess(float(texts[-1].split()[-1]), 1e-6)

    def test_the_same_input_and_seed_give_the_same_bytes(self):
        photograph = (PHOTOS / "rocket.jpg").read_bytes()
        first, second, other = (Run(photograph, {**TINY, "seed": seed}) for seed in (7, 7, 8))
        self.assertEqual((first.outputs / "relief.glb").read_bytes(), (second.outputs / "relief.glb").read_bytes())
        self.assertNotEqual((first.outputs / "relief.glb").read_bytes(), (other.outputs / "relief.glb").read_bytes())

    def test_on_its_own_it_prints_plain_lines(self):
        with tempfile.TemporaryDirectory() as directory:
            target = Path(directory, "deep", "cat.glb")
            done = subprocess.run([sys.executable, str(SCRIPT), "--input", str(PHOTOS / "cat.jpg"), "--output", str(target),
                                   "--size", "32", "--sweeps", "40", "--mesh", "24"], capture_output=True, text=True, timeout=DEADLINE_S)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("cat.glb", done.stdout.splitlines()[-1])
            self.assertNotIn("{", done.stdout)
            check_closed(Model(target.read_bytes()))


class SolverTests(unittest.TestCase):
    def test_relaxation_reaches_the_direct_solution(self):
        import height

        image = Image.open(PHOTOS / "coffee.jpg").convert("RGB")
        fields = height.preprocess(image, 18, 0, lambda *_: None)
        rows, columns = fields.prior.shape
        count, lam = rows * columns, height.SCREENING / max(rows, columns) ** 2
        matrix, right = np.eye(count) * lam, lam * fields.prior.astype(float).ravel()
        number = np.arange(count).reshape(rows, columns)
        pairs = [(number[:, :-1], number[:, 1:], fields.weight_x, fields.slope_x),
                 (number[:-1], number[1:], fields.weight_y, fields.slope_y)]
        for starts, ends, weights, slopes in pairs:
            for i, j, w, g in zip(starts.ravel(), ends.ravel(), weights.ravel().astype(float), slopes.ravel().astype(float)):
                matrix[[i, j], [i, j]] += w
                matrix[[i, j], [j, i]] -= w
                right[i] -= w * g
                right[j] += w * g
        relaxation = height.Relaxation(fields)
        self.assertAlmostEqual(relaxation.residual(), 1.0, places=6)
        for _ in range(400):
            relaxation.sweep()
        self.assertLess(relaxation.residual(), 1e-6)
        self.assertLess(np.abs(relaxation.height.ravel() - np.linalg.solve(matrix, right)).max(), 1e-5)


class InputTests(unittest.TestCase):
    """Inside one process: only the reading is of interest."""

    def load(self, data):
        import photo

        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            return photo.load(Path(file.name), lambda *_: None)

    def refused(self, data):
        import photo

        with self.assertRaises(photo.BadImage) as caught:
            self.load(data)
        return str(caught.exception)

    def test_formats_and_modes_become_rgb(self):
        picture = gradient(40, 24)
        alpha = picture.copy()
        alpha.putalpha(gradient(40, 24, "L"))
        cases = [
            encoded(picture, "JPEG"), encoded(picture.convert("CMYK"), "JPEG"), encoded(picture.convert("L"), "JPEG"),
            encoded(picture, "PNG"), encoded(alpha, "PNG"), encoded(picture.convert("P"), "PNG", transparency=0),
            encoded(picture.convert("1"), "PNG"), encoded(picture.convert("LA"), "PNG"), encoded(picture.convert("P"), "GIF"),
            encoded(picture, "BMP"), encoded(picture, "TIFF"), encoded(picture, "WEBP"), encoded(picture.convert("CMYK"), "TIFF"),
            encoded(Image.fromarray((np.arange(960).reshape(24, 40) * 60).astype(np.uint16)), "PNG"),
            encoded(picture, "JPEG", icc_profile=b"not a profile"),
        ]
        for number, data in enumerate(cases):
            with self.subTest(case=number):
                image = self.load(data)
                self.assertEqual((image.mode, image.size), ("RGB", (40, 24)))

    def test_transparent_becomes_white(self):
        image = self.load(encoded(Image.new("RGBA", (16, 16), (10, 20, 30, 0)), "PNG"))
        self.assertEqual(image.getpixel((8, 8)), (255, 255, 255))

    def test_sixteen_bits_keep_their_range(self):
        levels = np.linspace(1000, 60000, 24 * 40).reshape(24, 40).astype(np.uint16)
        image = np.asarray(self.load(encoded(Image.fromarray(levels), "PNG")))
        self.assertLess(image.min(), 5)
        self.assertGreater(image.max(), 250)

    def test_the_camera_s_orientation_is_followed(self):
        exif = Image.Exif()
        exif[0x0112] = 6
        picture = Image.new("RGB", (64, 32), (0, 0, 0))
        picture.paste((255, 255, 255), (0, 0, 32, 32))
        image = self.load(encoded(picture, "JPEG", exif=exif))
        self.assertEqual(image.size, (32, 64))
        self.assertGreater(image.getpixel((16, 8))[0], 200)

    def test_what_is_no_image_is_refused_with_a_reason(self):
        whole = encoded(gradient(200, 150), "JPEG")
        self.assertIn("empty", self.refused(b""))
        self.assertIn("cannot be read", self.refused(b"%PDF-1.7 not an image"))
        self.assertIn("cannot be read", self.refused(whole[:len(whole) // 2]))
        self.assertIn("cannot be read", self.refused(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n"))
        self.assertIn("at least 8", self.refused(encoded(gradient(1, 1), "PNG")))
        self.assertIn("16 times", self.refused(encoded(gradient(800, 8), "PNG")))

    def test_a_decompression_bomb_is_refused_before_it_is_unpacked(self):
        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
        started = time.monotonic()
        self.assertIn("megapixels", self.refused(bomb))
        self.assertLess(time.monotonic() - started, 2)

    def test_damaged_files_never_do_worse_than_be_refused(self):
        import photo

        generator = np.random.default_rng(1)
        for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
            whole = encoded(gradient(32, 24), format)
            for _ in range(60):
                damaged = bytearray(whole)
                for _ in range(int(generator.integers(1, 12))):
                    damaged[int(generator.integers(len(damaged)))] = int(generator.integers(256))
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        image = self.load(bytes(damaged[:int(generator.integers(1, len(damaged) + 1))]))
                    self.assertEqual(image.mode, "RGB")
                except photo.BadImage:
                    pass


class ProtocolTests(unittest.TestCase):
    def refused(self, code, run):
        self.assertEqual(run.status, 1, run.errors)
        self.assertEqual(run.error()["code"], code)
        self.assertEqual(run.files, [])
        self.assertIn(code, run.errors)
        self.assertNotIn("Traceback", run.errors)
        return run.error()

    def test_a_file_that_is_no_image_ends_with_a_typed_error(self):
        error = self.refused("bad_image", Run(b"hello"))
        self.assertFalse(error["recoverable"])

    def test_wrong_parameters_are_named(self):
        cases = {"size": [1, 10**9, "64", None, True, 64.5, float("nan")], "depth": [0, -1, "x", []], "sweeps": [0], "delight": [1.5]}
        import relief

        for name, values in cases.items():
            for value in values:
                with self.subTest(name=name, value=value), self.assertRaises(relief.Refused) as caught:
                    relief.Params.checked({name: value})
                self.assertIn(f"params.{name}", str(caught.exception))
        error = self.refused("bad_params", Run(encoded(gradient(32, 32)), {"sise": 64}))
        self.assertIn("params.sise", error["message"])
        self.assertEqual(relief.Params.checked({"size": 64.0, "depth": 5, "inputs": []}).depth, 5.0)

    def test_a_job_that_is_no_job_is_refused(self):
        for job in (b"", b"garbage", b"[1]", b"[" * 100_000, b"\xff\xfe"):
            with self.subTest(job=job[:10]):
                self.refused("bad_job", Run(None, job=job))
        self.refused("bad_params", Run(None, job=b'{"params": 7}'))

    def test_inputs_outside_the_directory_are_refused(self):
        for name in ("../in/photo.jpg", "/etc/passwd", "..", ""):
            with self.subTest(name=name):
                job = json.dumps({"params": {"inputs": [{"upload": "u", "name": name}]}}).encode()
                self.refused("bad_params", Run(encoded(gradient(32, 32)), job=job))
        job = json.dumps({"params": {"inputs": [{"upload": "u", "name": "absent.jpg"}]}}).encode()
        self.refused("bad_image", Run(encoded(gradient(32, 32)), job=job))
        job = json.dumps({"params": {"inputs": [{"name": "a"}, {"name": "b"}]}}).encode()
        self.refused("bad_params", Run(encoded(gradient(32, 32)), job=job))

    def test_flat_narrow_and_tiny_photographs_give_closed_models(self):
        pictures = [Image.new("RGB", (64, 48), (90, 90, 90)), gradient(8, 8), gradient(128, 8), gradient(8, 100, "L")]
        for picture in pictures:
            with self.subTest(size=picture.size):
                run = Run(encoded(picture, "PNG"), {"size": 32, "sweeps": 20, "mesh": 16})
                self.assertEqual(run.status, 0, run.errors)
                check_closed(run.model())

    def test_sigterm_ends_it_at_once_and_leaves_no_half_file(self):
        run = Run((PHOTOS / "cat.jpg").read_bytes(), {"size": 768, "sweeps": 20_000}, wait=False)
        for line in run.lines:
            message = json.loads(line)
            if message.get("stage") == "shape_generation" and message["step"] >= 20:
                break  # within the first of five rounds
        started = time.monotonic()
        run.process.send_signal(signal.SIGTERM)
        run.finish()
        self.assertEqual(run.status, 143)
        self.assertLess(time.monotonic() - started, 5)
        self.assertLessEqual(set(run.files), {"preview.png"})
        self.assertNotIn("Traceback", run.errors)

    def test_it_goes_on_when_nobody_reads_its_progress(self):
        run = Run((PHOTOS / "cat.jpg").read_bytes(), {**TINY, "sweeps": 2000}, wait=False)
        run.lines.close()
        run.lines = io.StringIO()
        run.finish()
        self.assertEqual((run.status, run.files), (0, ["preview.png", "relief.glb"]), run.errors)

    def test_an_output_that_cannot_be_written_is_a_recoverable_error(self):
        run = Run((PHOTOS / "cat.jpg").read_bytes(), {**TINY, "sweeps": 8000, "size": 256}, wait=False)
        run.outputs.rmdir()
        run.outputs.write_text("a file where the directory should be")
        run.outputs, outputs = run.inputs, run.outputs
        run.finish()
        self.assertEqual(run.status, 1, run.errors)
        self.assertEqual((run.error()["code"], run.error()["recoverable"]), ("output_not_written", True))
        self.assertTrue(outputs.is_file())


class ProgressModuleTests(unittest.TestCase):
    def lines(self, code, limit=None):
        reader, writer = os.pipe()
        environment = dict(os.environ, HEADWAY_PROGRESS_FD=str(writer))
        subprocess.run([sys.executable, "-c", code], cwd=HERE.parent, env=environment, pass_fds=[writer], check=True, timeout=DEADLINE_S)
        os.close(writer)
        with os.fdopen(reader) as lines:
            return [json.loads(line) for line in lines]

    def test_every_kind_of_line(self):
        lines = self.lines("import headway_progress as h; h.progress('a', 1, 2, message='é'); h.progress('b', percent=100, item=1, items=2);"
                           "h.log('x'); h.preview('p.png'); h.result(n=1); h.error('c', 'm', True)")
        self.assertEqual(lines, [
            {"stage": "a", "step": 1, "steps": 2, "message": "é"}, {"stage": "b", "percent": 100, "item": 1, "items": 2},
            {"log": "x"}, {"preview": "p.png"}, {"result": {"n": 1}}, {"error": {"code": "c", "message": "m", "recoverable": True}},
        ])

    def test_a_tight_loop_is_thinned_but_keeps_first_and_last(self):
        lines = self.lines("import headway_progress as h\nfor i in range(1, 20001): h.progress('loop', i, 20000)")
        self.assertLess(len(lines), 200)
        self.assertEqual((lines[0]["step"], lines[-1]["step"]), (1, 20000))

    def test_without_a_worker_it_does_nothing(self):
        environment = {name: value for name, value in os.environ.items() if name != "HEADWAY_PROGRESS_FD"}
        done = subprocess.run([sys.executable, "-c", "import headway_progress as h; h.progress('a', 1, 2); h.result()"], cwd=HERE.parent,
                              env=environment, capture_output=True, timeout=DEADLINE_S)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))


if __name__ == "__main__":
    unittest.main()
