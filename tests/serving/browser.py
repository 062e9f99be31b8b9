"""A headless Chromium driven through its DevTools pipe: no driver, no socket, nothing but the browser itself."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SECONDS = 120  # a browser that has not answered by then hangs, and so does a page that is still busy
_KEYS = {
    "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9, "/": 191,
}  # fmt: skip


def find_browser() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of one browser; use it in a `with`.

    Attributes:
        problems: what the page complained of: exceptions, errors on the console, what its policy forbids.
        requests: addresses it asked for.
    """

    def __init__(self, program: str, profile: Path) -> None:
        read_commands, self._write = os.pipe()
        self._read, write_answers = os.pipe()
        script = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'  # the pipe's ends are 3 and 4 by contract
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
        self._process = subprocess.Popen(
            ["bash", "-c", script, "browser", program, *flags, "--remote-debugging-pipe", f"--user-data-dir={profile}"],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what the page complains of meanwhile is kept in `problems`."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def open(self, url: str) -> None:
        """Go there and wait until the page has answered."""
        self.run("""{
            window.isLeft = true;
            addEventListener("pageshow", (event) => { window.isLeft &&= !event.persisted; });
        }""")
        self.command("Page.navigate", url=url)
        self.settled()

    def settled(self) -> str:
        """Wait until nothing is under way; returns the page's state: idle, done or problem."""
        time.sleep(0.03)
        return self.wait_for("""(() => {
            const state = document.documentElement?.dataset.state;
            const isBusy = window.isLeft || [undefined, "starting", "searching"].includes(state);
            return document.readyState === "complete" && !isBusy && state;
        })()""")

    def wait_for(self, condition: str) -> Any:
        """Ask for a JavaScript expression until it is true; returns its value.

        A promise would not do: that of a page which is being left may never be fulfilled.
        """
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            if (value := self.run(f"({condition}) || null")) is not None:
                return value
            time.sleep(0.02)
        state = self.run("[location.href, document.readyState, document.documentElement?.dataset.state]")
        raise AssertionError(f"not so after {_SECONDS} s: {condition}; {state}")

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression; promises are waited for."""
        result = self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key as a person would."""
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        code = _KEYS.get(key, ord(key[0].upper()))
        about = {"key": key, "windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code}
        self.command("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **about)
        self.command("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.command("Input.insertText", text=text)

    def screen(self, width: int, height: int, *, mobile: bool = False, dark: bool = False) -> None:
        """Look through a screen of this size."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if mobile else 1, mobile=mobile,
        )  # fmt: skip
        features = {"prefers-color-scheme": "dark" if dark else "light", "hover": "none" if mobile else "hover"}
        self.command(
            "Emulation.setEmulatedMedia", features=[{"name": name, "value": value} for name, value in features.items()]
        )

    def screenshot(self, path: Path) -> None:
        """Write what the screen shows as PNG."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + _SECONDS
        while b"\0" not in self._rest:
            readable, _, _ = select.select([self._read], [], [], max(0, deadline - time.monotonic()))
            assert readable, f"the browser has not answered for {_SECONDS} s"
            part = os.read(self._read, 1 << 16)
            assert part, "the browser has gone"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(about["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.problems.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
        elif event.get("method") == "Runtime.consoleAPICalled" and about["type"] == "error":
            self.problems.append(json.dumps(about["args"]))
        elif event.get("method") == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
