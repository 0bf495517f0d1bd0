"""Headless Chromium, told what to do over its devtools protocol: aiohttp carries what is said."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--no-first-run",
    ),
    "--remote-debugging-port=0",
]


class Tab:
    """One page. ``told`` is what it complained of: console errors, exceptions, requests that failed."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._calls = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loads: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._shown: tuple[str, str] | None = None  # the frame and the loader of the page that is open
        self.told: list[str] = []
        self.requests: list[str] = []

    async def listen(self) -> None:
        """Take what Chromium says, until it hangs up."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif said["method"] == "Page.lifecycleEvent" and said["params"]["name"] == "load":
                self._loads.put_nowait((said["params"]["frameId"], said["params"]["loaderId"]))
            elif said["method"] == "Runtime.exceptionThrown":
                self.told.append(json.dumps(said["params"]["exceptionDetails"])[:500])
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.told.append(said["params"]["entry"]["text"])
            elif said["method"] == "Runtime.consoleAPICalled" and said["params"]["type"] == "error":
                self.told.append(json.dumps(said["params"]["args"])[:500])
            elif said["method"] == "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._calls += 1
        answer = self._answers[self._calls] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._calls, "method": method, "params": parameters})
        said = await asyncio.wait_for(answer, 30)
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']}")
        result: dict[str, Any] = said["result"]
        return result

    async def open(self, url: str, width: int, height: int = 900, scheme: str = "light") -> None:
        """Load a page at a width."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        await self.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        went = await self.call("Page.navigate", url=url)
        self._shown = (went["frameId"], went["loaderId"])
        while await asyncio.wait_for(self._loads.get(), 30) != self._shown:
            pass  # a page before it, or a frame within it

    async def follow(self, link: str) -> None:
        """Click on a link, given as an expression, and wait until the page behind it has loaded.

        A page that is asked something as it leaves answers with an error, so nothing is asked before.
        """
        assert self._shown is not None
        frame = self._shown[0]
        await self.value(f"void setTimeout(() => {link}.click())")
        while (loaded := await asyncio.wait_for(self._loads.get(), 30))[0] != frame or loaded == self._shown:
            pass
        self._shown = loaded

    async def value(self, expression: str) -> Any:
        """Return what a JavaScript expression is worth; a promise is waited for."""
        said = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in said:
            raise RuntimeError(json.dumps(said["exceptionDetails"])[:500])
        return said["result"].get("value")

    async def until(self, expression: str, seconds: float = 20.0) -> Any:
        """Ask for an expression again and again until it is true, and return it."""
        end = asyncio.get_running_loop().time() + seconds
        while not (found := await self.value(expression)):
            if asyncio.get_running_loop().time() > end:
                raise TimeoutError(f"never true: {expression}")
            await asyncio.sleep(0.05)
        return found

    async def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as a PNG."""
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def chromium() -> AsyncIterator[Tab]:
    """A browser with one tab, closed at the end."""
    import aiohttp

    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port_file = Path(profile, "DevToolsActivePort")
            for _ in range(600):
                if port_file.exists() and port_file.read_text().count("\n") == 1:
                    break
                await asyncio.sleep(0.05)
            port = port_file.read_text().splitlines()[0]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    pages = [page for page in await answer.json() if page["type"] == "page"]
                url = pages[0]["webSocketDebuggerUrl"]
                async with session.ws_connect(url, max_msg_size=0) as socket:
                    tab = Tab(socket)
                    listener = asyncio.create_task(tab.listen())
                    for domain in ("Page", "Runtime", "Log", "Network"):
                        await tab.call(f"{domain}.enable")
                    await tab.call("Page.setLifecycleEventsEnabled", enabled=True)
                    yield tab
                    listener.cancel()
        finally:
            process.terminate()
            process.wait(timeout=20)
