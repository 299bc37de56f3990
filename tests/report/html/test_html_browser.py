"""The HTML page in a real headless Chromium: it opens, draws, filters, sorts, and is worked without a mouse."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import html_examples as examples
import pytest

from bncheck.facts.findings import Report
from bncheck.report.html import html

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        BROWSER is None or DRIVER is None, reason="no Chromium here (Debian: chromium and chromium-driver)"
    ),
]
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars""".split()
WAIT = 60
KINDS: dict[str, Callable[[], Report]] = {
    "52 layers": examples.mobilenet,
    "healthy": examples.healthy,
    "nothing": examples.nothing,
    "hostile": examples.hostile,
    "not finite": examples.not_finite,
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of pages on disk."""
    folder = tmp_path_factory.mktemp("pages")
    texts = {name: html.page_text([report()], many=False) for name, report in KINDS.items()}
    texts["run"] = html.page_text(examples.run(), many=True)
    frame = examples.one_layer()._repr_html_()
    texts["notebook"] = f"<!doctype html><meta charset=utf-8><title>notebook</title><p>cell</p>{frame}"
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in texts}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One browser for all tests, with a profile of its own."""
    options = Options()
    options.binary_location = BROWSER or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome) -> webdriver.Chrome:
    """The browser, wide, light, with an empty console."""
    chromium.get("about:blank")
    resize(chromium, 1280)
    prefer(chromium, "light")
    chromium.get_log("browser")
    return chromium


def resize(browser: webdriver.Chrome, width: int, height: int = 900) -> None:
    """Sets the size of the viewport."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def prefer(browser: webdriver.Chrome, scheme: str) -> None:
    """Sets what the system prefers."""
    # pages that scroll smoothly move what is to be clicked
    still = {"name": "prefers-reduced-motion", "value": "reduce"}
    features = [{"name": "prefers-color-scheme", "value": scheme}, still]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def wait(browser: webdriver.Chrome, script: str) -> Any:
    """What the script returns, as soon as that is true."""
    return WebDriverWait(browser, WAIT, 0.1).until(lambda b: b.execute_script(script))


def opened(browser: webdriver.Chrome, address: str) -> None:
    """Opens a page and scrolls through it until every visible chart is drawn."""
    browser.get(address)
    scroll_through(browser)


def scroll_through(browser: webdriver.Chrome) -> None:
    """Charts are drawn when they come near."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        left = browser.execute_script(
            "const left = [...document.querySelectorAll('.chart:not([data-drawn]):not(.failed)')]"
            ".filter(e => e.checkVisibility());"
            "if (left.length) left[0].scrollIntoView({behavior: 'instant'});"
            "return left.length"
        )
        if not left and browser.execute_script(
            "return [...document.querySelectorAll('section.channels')].every(e => "
            "!e.checkVisibility() || e.querySelector('output').textContent)"
        ):
            return
        browser.execute_script(
            "document.querySelectorAll('section.channels').forEach(e => e.checkVisibility() && "
            "!e.querySelector('output').textContent && e.scrollIntoView({behavior: 'instant'}))"
        )
        time.sleep(0.05)
    raise AssertionError("some charts are never drawn")


def console(browser: webdriver.Chrome) -> list[str]:
    """Warnings and errors of the console."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}]


@pytest.mark.parametrize("kind", [*KINDS, "run"])
def test_it_opens_and_draws(browser: webdriver.Chrome, pages: dict[str, str], kind: str) -> None:
    """From a file, without a word in the console, without asking the network; every chart has marks."""
    opened(browser, pages[kind])
    assert console(browser) == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    charts = browser.execute_script(
        "return [...document.querySelectorAll('.chart')].filter(e => e.checkVisibility()).map(e => "
        "[e.id, e.querySelectorAll('svg .role-mark path, svg .role-mark line, svg .role-mark text').length])"
    )
    assert [name for name, marks in charts if not marks] == []
    assert len(charts) >= {"52 layers": 14, "healthy": 2, "nothing": 0, "hostile": 10, "not finite": 5, "run": 5}[kind]
    assert browser.execute_script("return window.hacked") is None


def test_a_chart_has_a_mark_for_each_layer(browser: webdriver.Chrome, pages: dict[str, str]) -> None:
    """52 local errors, 52 that arrive, a floor, and a ring around each of the 26 that go wrong."""
    opened(browser, pages["52 layers"])
    marks = browser.execute_script(
        "const chart = document.getElementById('r0-train-eval-error');"
        "return [...chart.querySelectorAll('g.mark-symbol')].map(e => e.querySelectorAll('path').length)"
    )
    assert sorted(marks) == [26, 104]
    lines = "return document.querySelectorAll('#r0-train-eval-error g.mark-line path').length"
    assert browser.execute_script(lines) == 3


def test_the_table_filters(browser: webdriver.Chrome, pages: dict[str, str]) -> None:
    """By name and by state; the number that is left is told."""
    opened(browser, pages["52 layers"])
    form = browser.find_element(By.CSS_SELECTOR, "#r0-layers form")
    shown = "return [...document.querySelectorAll('#r0-layers tbody tr')].filter(r => r.checkVisibility()).length"
    assert browser.execute_script(shown) == 52
    form.find_element(By.CSS_SELECTOR, "input").send_keys("DEPTHWISE")
    assert browser.execute_script(shown) == 17
    assert form.find_element(By.CSS_SELECTOR, "output").text == "17 of 52 shown"
    form.find_element(By.CSS_SELECTOR, "input").clear()
    form.find_element(By.CSS_SELECTOR, "input").send_keys(" ", Keys.BACKSPACE)
    Select(form.find_element(By.CSS_SELECTOR, "select")).select_by_value("diverges")
    assert browser.execute_script(shown) == 26
    Select(form.find_element(By.CSS_SELECTOR, "select")).select_by_value("")
    assert browser.execute_script(shown) == 52


def test_the_table_sorts(browser: webdriver.Chrome, pages: dict[str, str]) -> None:
    """Numbers as numbers, both ways, what is unknown last; the head says which way."""
    opened(browser, pages["not finite"])
    heads = browser.find_elements(By.CSS_SELECTOR, "#r0-layers thead th")
    column = next(n for n, head in enumerate(heads) if head.text == "arrives")
    names = "return [...document.querySelectorAll('#r0-layers tbody th code')].map(e => e.textContent)"
    heads[column].find_element(By.CSS_SELECTOR, "button").click()
    assert heads[column].get_attribute("aria-sort") == "ascending"
    assert browser.execute_script(names) == ["b", "a"]
    heads[column].find_element(By.CSS_SELECTOR, "button").click()
    assert heads[column].get_attribute("aria-sort") == "descending"
    assert browser.execute_script(names) == ["a", "b"]

    opened(browser, pages["52 layers"])
    heads = browser.find_elements(By.CSS_SELECTOR, "#r0-layers thead th")
    column = next(n for n, head in enumerate(heads) if head.text == "channels")
    heads[column].find_element(By.CSS_SELECTOR, "button").click()
    values = f"return [...document.querySelectorAll('#r0-layers tbody tr')].map(r => r.cells[{column}].textContent)"
    found = [int(text.replace(",", "")) for text in browser.execute_script(values)]
    assert found == sorted(found)
    assert {16, 1280} <= set(found)


def test_the_channels_of_a_chosen_layer(browser: webdriver.Chrome, pages: dict[str, str]) -> None:
    """A point for each channel, by selector, buttons or a click on a point above; the same numbers as a table."""
    opened(browser, pages["52 layers"])
    section = browser.find_element(By.ID, "r0-channels")
    pick = Select(section.find_element(By.CSS_SELECTOR, "select.layer"))
    told = section.find_element(By.CSS_SELECTOR, "output")
    pick.select_by_index(51)
    wait(browser, "return document.querySelector('#r0-channels output').textContent === '1,280 channels'")
    points = "return document.querySelectorAll('#r0-ch-shift g.mark-symbol path').length"
    wait(browser, f"{points} === 1280")
    section.find_element(By.CSS_SELECTOR, "button[data-step='1']").click()
    wait(browser, f"{points} === 32")
    assert pick.first_selected_option.text == "MobilenetV2/Conv/BatchNorm"
    assert told.text == "32 channels"
    Select(section.find_element(By.CSS_SELECTOR, "select.order")).select_by_value("value")
    wait(browser, f"{points} === 32")

    point = browser.find_elements(By.CSS_SELECTOR, "#r0-train-eval-error g.mark-symbol")[0]
    target = point.find_elements(By.CSS_SELECTOR, "path")[4]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", target)
    ActionChains(browser).move_to_element(target).click().perform()
    # local and arriving error of each layer follow each other
    wait(browser, "return document.querySelector('#r0-channels select.layer').value === '2'")
    channels = len(examples.mobilenet().comparison.layers[2].mean_shift)

    numbers = section.find_element(By.CSS_SELECTOR, "details.numbers")
    browser.execute_script("arguments[0].open = true", numbers)
    wait(browser, f"return document.querySelectorAll('#r0-channels details.numbers tbody tr').length === {channels}")
    heads = [cell.text for cell in numbers.find_elements(By.CSS_SELECTOR, "th")]
    assert heads[:3] == ["channel", "mean shift, standard deviations", "variance, batch / stored"]


def test_charts_are_drawn_as_large_as_they_are_shown(browser: webdriver.Chrome, pages: dict[str, str]) -> None:
    """None is scaled, the first of the panels that share a row neither: its letters would be of another size."""
    opened(browser, pages["52 layers"])
    scales = browser.execute_script(
        "return [...document.querySelectorAll('.chart svg')].filter(e => e.checkVisibility())"
        ".map(e => e.getBoundingClientRect().width / e.viewBox.baseVal.width)"
    )
    assert len(scales) >= 6
    assert all(abs(scale - 1) < 0.02 for scale in scales)


def test_everything_is_reached_by_keyboard(browser: webdriver.Chrome, pages: dict[str, str]) -> None:
    """Tab goes first to the skip link, then to everything that acts, with a ring that is seen; Enter sorts."""
    opened(browser, pages["52 layers"])
    browser.execute_script("scrollTo(0, 0); document.activeElement.blur()")
    reached = []
    for _ in range(400):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        here = browser.execute_script(
            "const e = document.activeElement, s = getComputedStyle(e);"
            "const ring = e.matches('.theme input') ? getComputedStyle(e.nextElementSibling) : s;"
            "return e === document.body ? null : [e.className || e.tagName, ring.outlineStyle, e.textContent.trim()]"
        )
        if here is None:
            break
        reached.append(here)
    assert reached[0][0] == "skip"
    assert {ring for _, ring, _ in reached} <= {"solid", "auto"}
    kinds = {kind for kind, _, _ in reached}
    assert {"copy", "layer", "order", "step", "SUMMARY", "INPUT", "SELECT", "PRE", "scroll tall"} <= kinds
    assert "local error" in {text for kind, _, text in reached if kind == "BUTTON"}
    head = browser.find_element(By.CSS_SELECTOR, "#r0-layers thead th:nth-child(2)")
    browser.execute_script("arguments[0].querySelector('button').focus()", head)
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert head.get_attribute("aria-sort") == "ascending"


CONTRAST = """
const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
const light = c => { const f = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  return .2126 * f(c[0]) + .7152 * f(c[1]) + .0722 * f(c[2]); };
const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
  if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
const poor = [];
for (const e of document.querySelectorAll('body *')) {
  if (!e.checkVisibility() || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
  if (e.closest('script, noscript, .vh, .skip')) continue;
  const { color, fill } = getComputedStyle(e);
  const [a, b] = [light(rgb(e.closest('svg') ? fill : color)), light(behind(e))];
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5) poor.push([e.outerHTML.slice(0, 80), ratio]);
}
return poor;
"""


def test_light_and_dark(browser: webdriver.Chrome, pages: dict[str, str]) -> None:
    """As the system prefers, or as chosen; charts follow; every text has a contrast of 4.5 to what is behind it."""
    background = "return getComputedStyle(document.body).backgroundColor"
    label = "return getComputedStyle(document.querySelector('.chart svg .role-axis-label text')).fill"
    opened(browser, pages["52 layers"])
    light, on_light = browser.execute_script(background), browser.execute_script(label)
    assert browser.execute_script(CONTRAST) == []
    prefer(browser, "dark")
    dark = browser.execute_script(background)
    assert sum(map(int, dark[4:-1].split(","))) < 150
    assert sum(map(int, light[4:-1].split(","))) > 600
    assert browser.execute_script(label) != on_light
    assert browser.execute_script(CONTRAST) == []
    browser.find_element(By.CSS_SELECTOR, ".theme input[value=light]").send_keys(Keys.SPACE)
    assert browser.execute_script(background) == light
    assert browser.execute_script(label) == on_light
    browser.find_element(By.CSS_SELECTOR, ".theme input[value=dark]").send_keys(Keys.SPACE)
    prefer(browser, "light")
    assert browser.execute_script(background) == dark
    browser.refresh()
    assert browser.execute_script(background) == dark, "the choice is kept"
    browser.find_element(By.CSS_SELECTOR, ".theme input[value='']").send_keys(Keys.SPACE)
    assert browser.execute_script(background) == light


@pytest.mark.parametrize("kind", ["52 layers", "hostile", "run"])
def test_a_narrow_screen(browser: webdriver.Chrome, pages: dict[str, str], kind: str) -> None:
    """At 360 pixels nothing scrolls sideways but what is meant to, and charts are as wide as the page."""
    resize(browser, 360, 740)
    opened(browser, pages[kind])
    browser.execute_script("document.querySelectorAll('details').forEach(e => { e.open = true })")
    scroll_through(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    outside = "return [...document.querySelectorAll('main *')].filter(e => e.checkVisibility() && "
    outside += (
        "!e.closest('.scroll, pre, svg, .vh, .theme') && e.getBoundingClientRect().right > 361).map(e => e.outerHTML)"
    )
    assert browser.execute_script(outside) == []
    assert console(browser) == []
    resize(browser, 1280)
    wait(browser, "return document.querySelector('.chart svg').getBoundingClientRect().width > 600")


def test_hostile_names_do_not_run(browser: webdriver.Chrome, pages: dict[str, str]) -> None:
    """Not in the page, nor in what scripts write: tooltips, the selector, the table of channels."""
    opened(browser, pages["hostile"])
    point = browser.find_elements(By.CSS_SELECTOR, "#r0-train-eval-error g.mark-symbol path")[0]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", point)
    ActionChains(browser).move_to_element(point).perform()
    text = wait(browser, "return document.querySelector('#vg-tooltip-element.visible')?.textContent")
    assert examples.SCRIPT in text
    Select(browser.find_element(By.CSS_SELECTOR, "select.layer")).select_by_index(1)
    browser.execute_script("document.querySelectorAll('details').forEach(e => { e.open = true })")
    assert browser.execute_script("return document.querySelectorAll('img, main script:not([type])').length") == 0
    assert browser.execute_script("return window.hacked") is None
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
        "document.body.append(s); const i = new Image(); i.src = 'x'; i.setAttribute('onerror', 'window.hacked = 1');"
        "document.body.append(i)"
    )
    time.sleep(0.2)
    assert browser.execute_script("return window.hacked") is None, "the policy lets a foreign script run"
    assert any("Content Security Policy" in line for line in console(browser))


def test_code_is_copied(browser: webdriver.Chrome, pages: dict[str, str]) -> None:
    """The button says that it did."""
    opened(browser, pages["52 layers"])
    button = browser.find_element(By.CSS_SELECTOR, "button.copy")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    button.click()
    wait(browser, "return ['Copied', 'Selected'].includes(document.querySelector('button.copy').textContent)")


def test_a_link_opens_its_checkpoint(browser: webdriver.Chrome, pages: dict[str, str]) -> None:
    """In the page of a run, parts that are closed open when they are asked for, and only then draw."""
    opened(browser, pages["run"])
    charts = "return document.querySelectorAll('#r0 .chart svg').length"
    assert browser.execute_script(charts) == 0
    browser.find_element(By.CSS_SELECTOR, "#run a[href='#r0']").click()
    wait(browser, "return document.getElementById('r0').open")
    scroll_through(browser)
    assert browser.execute_script(charts) > 0
    assert console(browser) == []


def test_without_scripts_the_numbers_are_there(browser: webdriver.Chrome, pages: dict[str, str]) -> None:
    """Where scripts are off, the story and the tables are read, and what cannot work is not offered."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(pages["52 layers"])
        body = browser.find_element(By.CSS_SELECTOR, "body").text
        assert "FAIL" in body
        assert "need JavaScript" in body
        assert not [e for e in browser.find_elements(By.CSS_SELECTOR, "form, .copy, .theme") if e.is_displayed()]
        assert len(browser.find_elements(By.CSS_SELECTOR, "#r0-layers tbody tr")) == 52
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_notebook_draws_it_in_its_frame(browser: webdriver.Chrome, pages: dict[str, str]) -> None:
    """The same charts inside the frame, which neither reaches nor is reached by the notebook around it."""
    browser.get(pages["notebook"])
    frame = browser.find_element(By.CSS_SELECTOR, "iframe")
    browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", frame)
    browser.switch_to.frame(frame)
    scroll_through(browser)
    assert browser.execute_script("return document.querySelectorAll('.chart svg .mark-symbol path').length") > 2
    assert browser.execute_script("try { return parent.document.title } catch { return 'refused' }") == "refused"
    browser.find_element(By.CSS_SELECTOR, ".theme input[value=dark]").send_keys(Keys.SPACE)
    assert browser.execute_script("return document.documentElement.dataset.theme") == "dark"
    browser.switch_to.default_content()
    assert console(browser) == []


@pytest.mark.parametrize("page", ["healthy", "hostile"])
def test_accessible(page: str, browser: webdriver.Chrome, pages: dict[str, str]) -> None:
    """Axe finds no serious fault."""
    axe = files(pytest.importorskip("axe_core_python")).joinpath("axe.min.js").read_text("utf-8")
    opened(browser, pages[page])
    browser.set_script_timeout(WAIT)
    browser.execute_script(axe)
    found = browser.execute_async_script("axe.run({resultTypes: ['violations']}).then(arguments[0])")
    faults = [f"{fault['id']}: {fault['nodes'][0]['html']}" for fault in found["violations"]]
    assert faults == []
    assert len(found["passes"]) > 10
