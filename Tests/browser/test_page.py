"""The page in a real Chromium, against a running gateway with a worker for `relief`.

    HEADWAY_TEST_URL=http://127.0.0.1:8080 python3 -m unittest Tests/browser/test_page.py

Needs playwright (requirements.txt) and a Chromium of the system. Optional: HEADWAY_TEST_PHOTO, another photograph; HEADWAY_TEST_CHROMIUM,
another browser than the first on the PATH; HEADWAY_TEST_SCREENSHOTS, a directory for pictures of the page at the end of each test.
"""

import json
import os
import shutil
import struct
import time
import unittest
from pathlib import Path

from playwright.sync_api import sync_playwright

URL = os.environ.get("HEADWAY_TEST_URL", "").rstrip("/")
PHOTO = os.environ.get("HEADWAY_TEST_PHOTO") or str(Path(__file__).resolve().parents[2] / "examples/relief/photos/coffee.jpg")
CHROMIUM = os.environ.get("HEADWAY_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = os.environ.get("HEADWAY_TEST_SCREENSHOTS")
DEADLINE_S = 90

# What the page shows of its first card, read in one go.
LOOK = """() => {
  const card = document.querySelector('.card');
  const text = (selector) => card?.querySelector(selector)?.textContent ?? '';
  return {
    state: card?.dataset.state ?? '', job: card?.dataset.job ?? '', percent: Number(card?.querySelector('.track').ariaValueNow ?? 0),
    attempt: text('.attempt'), eta: text('.eta'), detail: text('.detail'), problem: text('.problem'),
    stage: card?.querySelector('[aria-current=step]')?.dataset.stage ?? '', link: document.getElementById('link').dataset.transport,
    linkState: document.getElementById('link').dataset.state,
  };
}"""


def read_glb(data):
    """(JSON document, length of the binary part) of a GLB, checked against its own lengths."""
    magic, version, total = struct.unpack_from("<4sII", data)
    assert (magic, version, total) == (b"glTF", 2, len(data)), (magic, version, total, len(data))
    length, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON"
    document = json.loads(data[20:20 + length])
    body, kind = struct.unpack_from("<I4s", data, 20 + length)
    assert kind == b"BIN\0" and 28 + length + body == total
    assert document["buffers"][0]["byteLength"] == body
    return document, body


class PageTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not (URL and CHROMIUM):
            raise RuntimeError("HEADWAY_TEST_URL must name a running gateway, and a Chromium must be installed: see scripts/test-browser.sh")
        cls.playwright = sync_playwright().start()
        cls.addClassCleanup(cls.playwright.stop)
        cls.browser = cls.playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        self.context = self.browser.new_context(accept_downloads=True, viewport={"width": 1100, "height": 800})
        self.addCleanup(self.context.close)
        self.page = self.context.new_page()
        self.complaints, self.sockets, self.requests = [], [], []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(message.text) if "Content Security" in message.text else None)
        self.page.on("websocket", lambda socket: self.sockets.append(socket.url))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.addCleanup(self.picture)

    def picture(self):
        if SCREENSHOTS:
            self.page.screenshot(path=Path(SCREENSHOTS, f"{self._testMethodName}.png"), full_page=True)

    def look(self):
        return self.page.evaluate(LOOK)

    def wait(self, condition, what, seconds=DEADLINE_S):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seen = self.look()
            if condition(seen):
                return seen
            self.page.wait_for_timeout(50)
        self.fail(f"{what} did not happen within {seconds} s; the page shows {seen}")

    def choose(self, path=PHOTO, detail="standard", query=""):
        self.page.goto(f"{URL}/{query}")
        self.page.evaluate("detail => { document.getElementById('detail').value = detail; }", detail)
        with self.page.expect_file_chooser() as chooser:
            self.page.click("#file")
        chooser.value.set_files(path)

    def watch_to_the_end(self, transport):
        """Submits the photograph and sees its bar move, never back within an attempt, over `transport`, to a model that can be read."""
        self.choose()
        percents, stages, etas, transports = [(1, 0)], [], set(), set()

        def note(seen):
            place = (int(seen["attempt"].removeprefix("attempt ") or 1), seen["percent"])
            self.assertGreaterEqual(place, percents[-1], "the bar went back")
            if place != percents[-1]:
                percents.append(place)
            if seen["stage"] and seen["stage"] not in stages:
                stages.append(seen["stage"])
            etas.add(seen["eta"])
            if seen["linkState"] == "up":
                transports.add(seen["link"])
            return seen["state"] in ("done", "failed", "cancelled")

        end = self.wait(note, "the end of the job")
        self.assertEqual((end["state"], end["percent"]), ("done", 100), end)
        self.assertEqual(transports, {transport})
        self.assertGreater(len(percents), 8, percents)
        self.assertIn("shape_generation", stages)
        self.assertTrue(any("left" in eta for eta in etas), etas)
        self.assertEqual(self.complaints, [])
        with self.page.expect_download() as download:
            self.page.click(".download")
        self.assertTrue(download.value.suggested_filename.endswith(".glb"))
        document, _ = read_glb(Path(download.value.path()).read_bytes())
        self.assertEqual(document["accessors"][0]["type"], "VEC3")

    def test_over_a_web_socket(self):
        self.watch_to_the_end("ws")
        self.assertEqual(len(self.sockets), 1)
        self.assertFalse([url for url in self.requests if "/events" in url or "wait_ms" in url])

    def test_over_server_sent_events_where_web_sockets_are_blocked(self):
        self.page.route_web_socket("**/v1/ws", lambda socket: socket.close(code=4000))
        self.watch_to_the_end("sse")
        self.assertFalse([url for url in self.requests if "wait_ms" in url])

    def test_by_polling_where_streams_are_blocked_too(self):
        self.page.route_web_socket("**/v1/ws", lambda socket: socket.close(code=4000))
        self.page.route("**/events*", lambda route: route.fulfill(status=403, content_type="text/plain", body="no"))
        self.watch_to_the_end("poll")

    def test_a_reload_goes_on_with_the_same_job(self):
        self.choose()
        before = self.wait(lambda seen: seen["state"] == "running" and seen["percent"] >= 15, "15 %")
        self.page.reload()
        after = self.wait(lambda seen: seen["state"] in ("running", "done"), "the same job after the reload")
        self.assertEqual(after["job"], before["job"])
        # Drawn ahead of what was reported by no more than the rule allows.
        self.assertGreaterEqual(after["percent"], before["percent"] - 10)
        self.wait(lambda seen: seen["state"] == "done", "the end")
        self.page.reload()
        again = self.wait(lambda seen: seen["state"] == "done", "the finished job after another reload")
        self.assertEqual((again["job"], again["percent"]), (before["job"], 100))
        self.assertEqual(self.complaints, [])

    def test_the_cancel_button(self):
        self.choose(detail="fine")
        self.wait(lambda seen: seen["state"] == "running", "the start")
        self.page.click(".cancel")
        end = self.wait(lambda seen: seen["state"] in ("cancelled", "done", "failed"), "the end")
        self.assertEqual(end["state"], "cancelled")
        self.assertLess(end["percent"], 100)

    def test_a_file_that_is_no_photograph_fails_with_its_code(self):
        fake = {"name": "not-a-photo.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8\xff\xe0 this is not a photograph" * 40}
        self.choose(path=fake)
        end = self.wait(lambda seen: seen["state"] in ("failed", "done"), "the failure")
        self.assertEqual(end["state"], "failed")
        self.assertIn("bad_image", end["problem"])
        self.assertTrue(self.page.is_visible(".again"))

    def test_trying_again_is_a_new_job_that_knows_the_old_one(self):
        fake = {"name": "not-a-photo.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8\xff\xe0 this is not a photograph" * 40}
        self.choose(path=fake)
        old = self.wait(lambda seen: seen["state"] == "failed", "the failure")["job"]
        self.page.reload()  # the page has the id now, and no photograph
        self.wait(lambda seen: seen["state"] == "failed" and self.page.is_visible(".again"), "the failed job after the reload")
        self.page.click(".again")
        new = self.wait(lambda seen: seen["state"] == "failed" and seen["job"] not in ("", old), "the failure of the new job")["job"]
        answer = self.context.request.get(f"{URL}/v1/jobs/{new}").json()
        self.assertEqual(answer["retry_of"], old)
        self.page.goto(f"{URL}/#jobs={old}")
        self.page.reload()
        self.wait(lambda _: new in (self.page.text_content(".successor") or ""), "the hint where the job goes on")
        self.assertFalse(self.page.is_visible(".again"))

    def test_a_group_shows_how_far_its_children_are(self):
        def submit(**body):
            answer = self.context.request.post(f"{URL}/v1/jobs", data=body)
            self.assertEqual(answer.status, 202, answer.text())
            return answer.json()["job"]

        group = submit(children=2)
        self.page.goto(f"{URL}/#jobs={group}")
        self.wait(lambda seen: "0 of 2 done" in seen["detail"], "the empty group")
        submit(queue="relief", pipeline="relief", parent=group, params={"inputs": []})
        self.wait(lambda seen: "failed" in seen["detail"], "the failure of the first child")  # it has no photograph
        answer = self.context.request.post(f"{URL}/v1/jobs/{group}/cancel", data={})
        self.assertEqual(answer.json()["outcome"], "cancelled")
        end = self.wait(lambda seen: seen["state"] in ("cancelled", "failed"), "the end of the group")
        self.assertIn("of 1 done", end["detail"])
        self.assertFalse(self.page.is_visible(".again"))
        self.assertEqual(self.complaints, [])

    def test_several_photographs_at_once_on_each_transport(self):
        for transport in ("ws", "sse", "poll"):
            with self.subTest(transport=transport):
                self.choose(path=[PHOTO, PHOTO, PHOTO], detail="quick", query=f"?transport={transport}")
                done = self.page.locator(".card[data-state=done]")
                self.wait(lambda _: done.count() == 3, "the end of all three")
                self.assertEqual(len({card.get_attribute("data-job") for card in self.page.query_selector_all(".card")}), 3)
                self.assertEqual(self.complaints, [])

    def test_the_bar_is_accessible_and_works_by_keyboard(self):
        self.choose(detail="quick")
        self.wait(lambda seen: seen["state"] == "done", "the end")
        bar = self.page.get_by_role("progressbar")
        self.assertEqual(bar.get_attribute("aria-valuenow"), "100")
        self.assertIn("Done", bar.get_attribute("aria-valuetext"))
        self.assertIn("done", self.page.text_content("#announce"))
        self.page.focus(".log-toggle")
        self.page.keyboard.press("Enter")
        self.assertTrue(self.page.is_visible(".log"))

    def test_without_motion_the_bar_shows_what_was_reported(self):
        self.page.emulate_media(reduced_motion="reduce")
        self.choose(detail="quick")
        self.assertEqual(self.wait(lambda seen: seen["state"] == "done", "the end")["percent"], 100)


if __name__ == "__main__":
    unittest.main()
