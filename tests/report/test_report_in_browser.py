"""The report in a real browser: what can be clicked does what it says, with the mouse and with the keyboard."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from fabricated_results import BETTER, RUN, WORSE, fabricate
from fabricated_stages import PROBLEMS, write_meteor, write_search
from perseid.api.base import replace
from perseid.api.layout import Layout
from perseid.report.document import read_report
from perseid.report.render import render

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,  # starts a browser
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="there is no Chromium with its driver here; on Debian: apt-get install chromium chromium-driver",
    ),
]

ALERT = "<script>document.title = 'broken out'</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("report")
    status = fabricate(root, BETTER, WORSE)
    write_search(Layout(root, 0, 0), says=ALERT)
    write_meteor(Layout(root, 0, 0), says=ALERT)
    run = replace(RUN, spec=replace(RUN.spec, methods=["sra-mcts", "meteor"]))
    file = root / "report.html"
    file.write_text(render(read_report(run, status, root, datetime(2026, 1, 2, tzinfo=UTC))))
    return file.as_uri()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("profile")
    # No sandbox: Chromium refuses to start one as root, as in a container; the page is our own and has no network.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome, page: str) -> webdriver.Chrome:
    chromium.set_window_size(1000, 900)
    chromium.get("about:blank")
    chromium.get(page)
    return chromium


def one(browser: webdriver.Chrome, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def visible(browser: webdriver.Chrome, selector: str) -> list[WebElement]:
    return [each for each in browser.find_elements(By.CSS_SELECTOR, selector) if each.is_displayed()]


def test_one_tree_is_shown_and_another_when_its_problem_is_chosen(browser: webdriver.Chrome) -> None:
    trees = visible(browser, "section.tree")
    assert [tree.find_element(By.TAG_NAME, "h4").text for tree in trees] == ["family/problem-0"]
    Select(one(browser, "#g0-problem")).select_by_visible_text("family/problem-3 (0 of 4 passed)")
    (tree,) = visible(browser, "section.tree")
    assert tree.find_element(By.TAG_NAME, "h4").text == "family/problem-3"
    assert "Write a function f3(x)" in tree.text


def test_a_tree_is_folded_and_unfolded_by_its_buttons(browser: webdriver.Chrome) -> None:
    def open_steps() -> int:
        return len(browser.find_elements(By.CSS_SELECTOR, "section.tree:not([hidden]) details.step[open]"))

    def press(value: str) -> None:
        one(browser, f'button[data-fold="g0-shown-trees"][value="{value}"]').click()

    assert open_steps() == 2, "the best path is unfolded from the start"
    press("all")
    assert open_steps() == 8
    press("none")
    assert open_steps() == 0
    press("best")
    assert open_steps() == 2


def test_a_step_is_unfolded_with_the_keyboard(browser: webdriver.Chrome) -> None:
    step = one(browser, "section.tree:not([hidden]) > details.step:not(.best)")
    assert step.get_attribute("open") is None
    step.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert step.get_attribute("open") is not None
    assert "way 0" in step.text


def test_a_dot_of_the_picture_leads_to_its_step(browser: webdriver.Chrome) -> None:
    last = browser.find_elements(By.CSS_SELECTOR, "section.tree:not([hidden]) svg a")[-1]
    target = (last.get_dom_attribute("href") or "").partition("#")[2]
    step = browser.find_element(By.ID, target)
    assert not step.is_displayed()
    last.find_element(By.TAG_NAME, "circle").click()
    WebDriverWait(browser, 60).until(lambda _: step.is_displayed())
    summary = step.find_element(By.TAG_NAME, "summary")
    WebDriverWait(browser, 60).until(lambda _: browser.switch_to.active_element == summary)


def test_the_theme_goes_from_the_systems_to_light_to_dark_and_back(browser: webdriver.Chrome) -> None:
    def background() -> str:
        return one(browser, "body").value_of_css_property("background-color")

    button = one(browser, "#theme")
    seen = [(button.text, background())]
    for _ in range(3):
        button.click()
        seen.append((button.text, background()))
    assert [text for text, _ in seen] == ["Theme: auto", "Theme: light", "Theme: dark", "Theme: auto"]
    assert seen[1][1] != seen[2][1]
    assert seen[0][1] == seen[3][1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_without_a_choice_the_systems_theme_holds(browser: webdriver.Chrome, scheme: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    ink = one(browser, "body").value_of_css_property("color")
    first = int(ink.partition("(")[2].partition(",")[0])
    assert (first > 128) == (scheme == "dark"), ink


@pytest.mark.parametrize("theme", ["", "dark"])
def test_a_page_is_printed_dark_on_light_whatever_the_screen_is(browser: webdriver.Chrome, theme: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    if theme:
        browser.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
    colours = [one(browser, "body").value_of_css_property(name) for name in ("color", "background-color")]
    shown = visible(browser, "nav, button, .controls")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert colours == ["rgba(0, 0, 0, 1)", "rgba(255, 255, 255, 1)"]
    assert shown == []


def test_all_that_is_folded_or_not_chosen_on_the_screen_is_on_paper(browser: webdriver.Chrome) -> None:
    folded = ("Write a function f3(x)", "return x + 0", "way 2", "managedBy", "Score against outcome")
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        text = browser.execute_script("return document.querySelector('main').innerText")
        width = browser.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        plots = [plot.rect["width"] for plot in browser.find_elements(By.CSS_SELECTOR, "svg.plot, svg.tree-plot")]
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert [said for said in folded if said not in text] == []
    assert width == 0
    assert all(0 < each <= 1000 for each in plots)
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
    assert visible(browser, "details:not([open]) > *:not(summary)") == [], "the screen is as it was"


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="apt-get install poppler-utils")
def test_the_printed_file_has_the_text_of_every_tree_and_answer(browser: webdriver.Chrome, tmp_path: Path) -> None:
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    file = tmp_path / "report.pdf"
    file.write_bytes(base64.b64decode(printed["data"]))
    done = subprocess.run(["pdftotext", "-raw", str(file), "-"], capture_output=True, text=True, check=True)
    text = " ".join(done.stdout.split())
    for number in range(PROBLEMS):
        assert f"Write a function f{number}(x)" in text
    assert "return x + 0" in text


def test_answers_are_shown_by_what_became_of_them(browser: webdriver.Chrome) -> None:
    every = len(visible(browser, "#g0-shown-samples > details"))
    choice = Select(one(browser, 'select[data-shows="g0-shown-samples"]'))
    choice.select_by_visible_text("kept (6)")
    kept = visible(browser, "#g0-shown-samples > details")
    assert 0 < len(kept) < every
    kept[0].find_element(By.TAG_NAME, "summary").click()
    assert "return x + 0" in kept[0].text
    choice.select_by_visible_text("all")
    assert len(visible(browser, "#g0-shown-samples > details")) == every


@pytest.mark.parametrize("width", [400, 1000, 1600])
def test_the_page_is_as_wide_as_its_window(browser: webdriver.Chrome, width: int) -> None:
    # By the device's metrics: a headless window is never narrower than 500 pixels.
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    one(browser, 'button[data-fold="g0-shown-trees"][value="all"]').click()
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    inner = browser.execute_script("return innerWidth")
    # Without the scroll bar.
    room, content = browser.execute_script(
        "return [document.documentElement.clientWidth, document.documentElement.scrollWidth]"
    )
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert inner == width
    assert content == room, "nothing stands out at the side"


def test_what_a_model_wrote_is_not_executed_and_no_script_fails(browser: webdriver.Chrome) -> None:
    assert browser.title == "fabricated: Perseid report"
    assert ALERT in one(browser, "section.tree:not([hidden])").text
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []  # type: ignore[no-untyped-call]
