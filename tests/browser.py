"""Chromium without a window, driven through its DevTools pipe: nothing to install, no port."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
# WebGL by software: the machines that run this have no graphics card.
SOFTWARE_WEBGL = (
    '--use-angle=swiftshader',
    '--enable-unsafe-swiftshader',
    '--ignore-gpu-blocklist',
)
OPTIONS = (
    '--headless=new', '--no-sandbox', '--no-first-run', '--hide-scrollbars',
    '--disable-extensions', '--disable-background-networking', '--disable-component-update',
    '--disable-sync', '--remote-debugging-pipe', '--force-color-profile=srgb',
    '--host-resolver-rules=MAP * ~NOTFOUND',
)  # fmt: skip


def find_chromium() -> str | None:
    """The browser's program, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a browser; a context manager. Nothing outside the machine can be reached."""

    def __init__(
        self,
        *,
        width: int = 1280,
        height: int = 900,
        webgl: bool = True,
        phone: bool = False,
        scale: float = 1,
    ) -> None:
        program = find_chromium()
        if program is None:
            raise FileNotFoundError('no chromium')
        self._profile = TemporaryDirectory(ignore_cleanup_errors=True)
        graphics = SOFTWARE_WEBGL if webgl else ('--disable-gpu', '--disable-3d-apis')
        words = [program, *OPTIONS, *graphics, f'--user-data-dir={self._profile.name}']
        reading, self._to = os.pipe()
        self._from, writing = os.pipe()
        # The pipe's ends are the descriptors 3 and 4 of the browser.
        line = f'exec {shlex.join(words)} about:blank 3<&{reading} 4>&{writing}'
        self._process = subprocess.Popen(
            ['bash', '-c', line],
            pass_fds=(reading, writing),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(reading)
        os.close(writing)
        self._numbers = itertools.count(1)
        self._rest = b''
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        try:
            self._open_page(width, height, phone, scale)
        except BaseException:
            self.close()
            raise

    def _open_page(self, width: int, height: int, phone: bool, scale: float) -> None:
        target = self.send('Target.createTarget', url='about:blank')['targetId']
        attached = self.send('Target.attachToTarget', targetId=target, flatten=True)
        self._session = attached['sessionId']
        self.send('Page.enable')
        self.send('Runtime.enable')
        self.send('Network.enable')
        self.send(
            'Emulation.setDeviceMetricsOverride',
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=phone,
        )
        self.send('Emulation.setTouchEmulationEnabled', enabled=phone)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol and wait for its answer."""
        number = next(self._numbers)
        message: dict[str, Any] = {'id': number, 'method': method, 'params': parameters}
        if self._session:
            message['sessionId'] = self._session
        data = json.dumps(message).encode() + b'\0'
        while data:
            data = data[os.write(self._to, data) :]
        until = time.monotonic() + 60
        while True:
            answer = self._receive(until)
            if answer.get('id') != number:
                self.events.append(answer)
            elif 'error' in answer:
                raise RuntimeError(f'{method}: {answer["error"]["message"]}')
            else:
                return dict(answer['result'])

    def _receive(self, until: float) -> dict[str, Any]:
        while b'\0' not in self._rest:
            if not select.select([self._from], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError('the browser does not answer')
            block = os.read(self._from, 2**16)
            if not block:
                raise ConnectionError('the browser ended')
            self._rest += block
        message, _, self._rest = self._rest.partition(b'\0')
        return dict(json.loads(message))

    def show(self, page: Path) -> None:
        """Open a page from its folder."""
        self.send('Page.navigate', url=page.resolve().as_uri())
        self.wait_for('document.readyState === "complete"')

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.send(
            'Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True
        )
        if 'exceptionDetails' in answer:
            detail = answer['exceptionDetails']
            raise RuntimeError(detail.get('exception', {}).get('description', detail['text']))
        return answer['result'].get('value')

    def wait_for(self, condition: str, seconds: float = 60) -> None:
        """Wait until a JavaScript expression is true."""
        until = time.monotonic() + seconds
        while not self.run(f'Boolean({condition})'):
            if time.monotonic() > until:
                raise TimeoutError(f'never true: {condition}')
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press a key where the focus is."""
        codes = {'PageUp': 33, 'PageDown': 34, 'Tab': 9, 'Enter': 13}
        codes |= {'ArrowLeft': 37, 'ArrowUp': 38, 'ArrowRight': 39, 'ArrowDown': 40}
        text = {'Enter': '\r'}.get(key, key if len(key) == 1 else '')
        common: dict[str, Any] = {'key': key, 'code': key}
        if key in codes:
            common['windowsVirtualKeyCode'] = codes[key]
        kind = 'keyDown' if text else 'rawKeyDown'
        self.send(
            'Input.dispatchKeyEvent', type=kind, **common, **({'text': text} if text else {})
        )
        self.send('Input.dispatchKeyEvent', type='keyUp', **common)

    def place_of(self, selector: str) -> tuple[float, float]:
        """The middle of an element in the window, once it is in view and nothing scrolls."""
        x, y = self.run(
            f'(async () => {{ const e = document.querySelector({json.dumps(selector)});'
            'const frame = () => new Promise(requestAnimationFrame);'
            'for (;;) {'
            'e.scrollIntoView({block: "center", behavior: "instant"});'
            'const a = e.getBoundingClientRect(); await frame(); await frame();'
            'const b = e.getBoundingClientRect();'
            'if (a.x === b.x && a.y === b.y) return [b.x + b.width / 2, b.y + b.height / 2];'
            '} })()'
        )
        return x, y

    def click(self, selector: str) -> None:
        """Click on the middle of an element, as a mouse does."""
        x, y = self.place_of(selector)
        for kind in ('mouseMoved', 'mousePressed', 'mouseReleased'):
            pressed = {'button': 'left', 'clickCount': 1} if kind != 'mouseMoved' else {}
            self.send('Input.dispatchMouseEvent', type=kind, x=x, y=y, **pressed)

    def tap(self, selector: str) -> None:
        """Touch the middle of an element, as a finger does."""
        x, y = self.place_of(selector)
        self.send('Input.dispatchTouchEvent', type='touchStart', touchPoints=[{'x': x, 'y': y}])
        self.send('Input.dispatchTouchEvent', type='touchEnd', touchPoints=[])

    def screenshot(
        self, *, whole_page: bool = False, clip: dict[str, float] | None = None
    ) -> bytes:
        """A PNG of the window, of the whole page, or of a part (x, y, width, height) of it."""
        options: dict[str, Any] = {'captureBeyondViewport': whole_page or clip is not None}
        if clip:
            options['clip'] = {'scale': 1, **clip}
        return base64.b64decode(
            self.send('Page.captureScreenshot', format='png', **options)['data']
        )
