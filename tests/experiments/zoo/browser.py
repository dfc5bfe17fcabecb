"""A headless browser, driven through its own protocol on two pipes: no package is needed.

https://chromedevtools.github.io/devtools-protocol/: messages are JSON, each ended by a zero byte,
read by the browser from its third file and written to its fourth.
"""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_START = (
    "import os, sys\n"
    "r, w = (os.dup(int(n)) for n in sys.argv[1:3])\n"
    "r, w = os.dup(r), os.dup(w)\n"
    "os.dup2(r, 3)\nos.dup2(w, 4)\n"
    "os.execvp(sys.argv[3], sys.argv[3:])\n"
)


def find_browser():
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page of a browser."""

    def __init__(self, commands, answers):
        self._commands, self._answers, self._number, self._rest = commands, answers, 0, b""
        self._session, self.requested = None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]

    def _read(self):
        while b"\0" not in self._rest:
            part = os.read(self._answers, 1 << 20)
            assert part, "The browser has ended."
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        found = json.loads(text)
        if found.get("method") == "Network.requestWillBeSent":
            self.requested.append(found["params"]["request"]["url"])
        assert found.get("method") != "Runtime.exceptionThrown", found
        return found

    def open(self, path, *, width=1280, height=900, dark=False, scripts=True):
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def resize(self, width, height=900):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def run(self, expression):
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key, text=""):
        code = {"Tab": 9, "Enter": 13, " ": 32, "ArrowDown": 40}.get(key, 0)
        own = {"key": key, "windowsVirtualKeyCode": code, "text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", **own)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def save_picture(self, path, *, whole=False):
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def open_browser(folder):
    """Yield a tab of a browser that knows nothing and keeps nothing."""
    read_commands, commands = os.pipe()
    answers, write_answers = os.pipe()
    options = ["--headless", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
    options += ["--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--hide-scrollbars"]
    options += ["--no-sandbox"] * (os.geteuid() == 0)
    pipes = (read_commands, write_answers)
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *map(str, pipes), find_browser(), *options],
        pass_fds=pipes,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for pipe in pipes:
        os.close(pipe)
    try:
        yield Tab(commands, answers)
    finally:
        os.close(commands)
        process.terminate()
        process.wait()
        os.close(answers)
