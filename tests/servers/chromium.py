"""The browser that the console is looked at with: Debian's Chromium, without a window, driven by playwright."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright
from servers.kafka_jars import ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

_OPTIONS = ("--disable-background-networking", "--no-first-run")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a folder of its own; 1.6 s. Raises ServerUnavailable."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise ServerUnavailable("no chromium on the PATH (Debian: chromium)")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []  # its sandbox refuses root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*_OPTIONS, *as_root])
        try:
            yield browser
        finally:
            browser.close()
