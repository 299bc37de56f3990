"""Takes the documentation's two pictures, in Chromium, of the HTML report that is its argument.

The report is that of `compare float-vs-quantized` on fixtures/mobilenet_v2/decay_0.99 with the held-out digits.
"""

from __future__ import annotations

import base64
import shutil
import sys
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

FOLDER = Path(__file__).parents[1] / ".github" / "screenshots"
WIDTH = 1240
PARTS = {
    "story": ("light", 1000, "body", "#r0-findings .story .fix"),
    "layers": ("dark", 6000, "#r0-attribution", "#r0-train-eval figure .chart"),
}
"""Picture -> (theme, height of the window, element at which it begins, element at which it ends)."""


def main(report: Path) -> None:
    """Writes the pictures."""
    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (theme, height, first, last) in PARTS.items():
        metrics = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(report.resolve().as_uri())
        time.sleep(2)
        edges = "return arguments[1].map((s, n) => document.querySelector(s).getBoundingClientRect()[arguments[0][n]])"
        top, bottom = browser.execute_script(edges, ["top", "bottom"], [first, last])
        left = 0 if first == "body" else browser.execute_script(edges, ["left"], [first])[0] - 24
        top, bottom = max(0, top - 24), bottom + 4
        clip = {"x": left, "y": top, "width": WIDTH - left, "height": bottom - top, "scale": 1}
        shot = browser.execute_cdp_cmd(
            "Page.captureScreenshot", {"format": "png", "clip": clip, "captureBeyondViewport": True}
        )
        (FOLDER / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))
    browser.quit()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
