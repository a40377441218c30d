"""The Ray dashboard, opened in a headless Chromium during a search, shows the search and its trials by their names.

``ICHTUNE_SCREENSHOTS=docs/images`` keeps the picture of the page of actors, for the documentation.
"""

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

pytestmark = pytest.mark.slow

SPACE = """
version: 1
search: {algorithm: random, trials: 400, seed: 7, early_stop: {type: none}}
resources: {cpu: 1}
parameters:
  architecture: tiny_convnet
  windows: [brain, subdural, brain_subdural_bone]
  lr: {low: 1e-3, high: 1e-2, log: true}
  image_px: 32
  batch_size: 2
  epochs: 40
"""
#: How long a page may take on a machine that trains beside it.
PATIENCE_S = 180.0
TRIAL = re.compile(r"trial_(\d{4})\|tiny_convnet\|\w+\|32px\|lr=")
#: What the picture for the documentation is called.
PICTURE = "ray-dashboard.png"
SCREEN = {"width": 1500, "height": 540, "deviceScaleFactor": 1, "mobile": False}


class Page:
    """One page of a browser, driven through its DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            answer = await self._socket.receive_json(timeout=PATIENCE_S)
            if answer.get("id") == self._number:
                return dict(answer.get("result", {}))  # none where the page was left in the meantime

    async def run(self, script: str) -> Any:
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return answer.get("result", {}).get("value")

    async def text_with(self, is_there: Callable[[str], object]) -> str:
        """Wait for the page's text to hold what is looked for, and return it."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            text = str(await self.run("document.body.innerText") or "")
            if is_there(text):
                return text
            assert time.monotonic() < deadline, f"not on the page:\n{text}"
            await asyncio.sleep(0.3)

    async def picture(self) -> bytes:
        await asyncio.sleep(1)  # fonts and fading colours
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Page]:
    """Start a headless browser with a profile of its own, and give its page."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    browser = subprocess.Popen(
        [program, *options, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port_file, deadline = folder / "DevToolsActivePort", time.monotonic() + PATIENCE_S
        while not (port_file.is_file() and port_file.read_text()):
            assert time.monotonic() < deadline, "Chromium did not start"
            await asyncio.sleep(0.1)
        port = port_file.read_text().splitlines()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                (target,) = [one for one in await answer.json() if one["type"] == "page"]
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()


async def log_in(page: Page, token: str) -> None:
    """Do what a person does: paste the token into the field that asks for it, and press the button."""
    await page.text_with(lambda text: "Authentication Token Required" in text)
    await page.run("document.querySelector('[role=dialog] input[type=password]').focus()")
    await page.call("Input.insertText", text=token)
    await page.run("[...document.querySelectorAll('[role=dialog] button')].pop().click()")


async def look(url: str, token: str, job: str, folder: Path) -> dict[str, tuple[str, bytes]]:
    """Return text and picture of the pages of jobs, of actors, and of nodes with their processes."""
    seen = {}
    async with chromium(folder) as page:
        await page.call("Emulation.setDeviceMetricsOverride", **SCREEN)
        await page.call("Page.navigate", url=f"{url}/#/jobs")
        await log_in(page, token)
        text = await page.text_with(lambda text: job in text and "RUNNING" in text)
        seen["jobs"] = text, await page.picture()
        await page.call("Page.navigate", url=f"{url}/#/actors")
        text = await page.text_with(lambda text: len(TRIAL.findall(text)) >= 2)
        seen["actors"] = text, await page.picture()
        await page.call("Page.navigate", url=f"{url}/#/cluster")
        text = await page.text_with(lambda text: any(int(trial) >= 2 for trial in TRIAL.findall(text)))
        seen["nodes"] = text, await page.picture()
    return seen


@contextmanager
def running_search(work: Path, space: Path, lines: Path) -> Iterator[dict[str, Any]]:
    """Start a search, give what it says of itself once Ray is ready, and end it as Ctrl-C does.

    Its JSON lines go to a file: a pipe that nobody reads would hold it up.
    """
    options = ["--space", str(space), "--name", "tiny", "--work", str(work), "--concurrent", "2", "--json"]
    with lines.open("w") as stdout:
        search = subprocess.Popen(
            [sys.executable, "-m", "ichtune", "search", *options], stdout=stdout, stderr=subprocess.PIPE, text=True
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while lines.read_text().count('"event": "epoch"') < 2:
            assert search.poll() is None, search.stderr.read() if search.stderr else ""
            assert time.monotonic() < deadline, "no trial has trained"
            time.sleep(0.2)
        yield json.loads(lines.read_text().splitlines()[0])
        search.send_signal(signal.SIGINT)
        _, errors = search.communicate(timeout=PATIENCE_S)
        assert search.returncode == 130, errors
        assert "Traceback" not in errors
    finally:
        search.kill()
        search.wait()


def test_the_dashboard_shows_the_search_and_its_trials_by_name(fake_workspace, tmp_path):
    space = tmp_path / "long.yaml"
    space.write_text(SPACE)
    with running_search(fake_workspace().layout.root, space, tmp_path / "lines.jsonl") as started:
        token = Path(started["token_path"]).read_text()
        seen = asyncio.run(look(started["dashboard_url"], token, started["search"], tmp_path / "profile"))

    assert re.search(r"\btiny\b", seen["jobs"][0])
    assert len(set(TRIAL.findall(seen["actors"][0]))) >= 2
    assert "ray::trial_" in seen["nodes"][0], "an actor that is used again is called by its first trial"
    assert all(token not in text for text, _ in seen.values())
    assert all(picture.startswith(b"\x89PNG") for _, picture in seen.values())
    if folder := os.environ.get("ICHTUNE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / PICTURE).write_bytes(seen["actors"][1])
