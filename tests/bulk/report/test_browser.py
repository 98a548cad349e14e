"""The page of a report in a browser: no network, nothing that takes effect, all controls."""

import json
import os
import re
import select
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from segray.pixels.labels import Labels
from tests.bulk.report.outputs import (
    RECORD,
    Output,
    shares_of,
)

# Names that would take effect if they were not escaped; a folder may end in "<".
HOSTILE = (
    "<script>document.title='owned'<",
    "script> \"quoted\" & 'both' <img src=x onerror=alert(1)>.jpg",
)
UNICODE = "Füße_猫_\u202egpj.jpg"

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A headless Chromium that logs its requests."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    assert all(programs), "install Debian's packages chromium and chromium-driver"
    # Selenium must not look for another browser, nor tell of this one.
    os.environ.update(SE_OFFLINE="true", SE_AVOID_STATS="true")
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    for flag in _FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(programs[1]))
    try:
        driver.set_window_size(1280, 900)
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, labels: Labels) -> Output:
    """Forty images, some of them of names that mean harm, and errors that do."""
    folder = tmp_path_factory.mktemp("gallery")
    output = Output(str(folder / "output"), labels)
    names = [f"image_{n:02}.jpg" for n in range(38)]
    for n, name in enumerate([*names, "/".join(HOSTILE), UNICODE]):
        row = output.add(f"{folder}/images/{name}", n, (60 + n, 80))
        output.add_regions(row, {"pet": [20 << n // 2, 100], "border": [30 + n]})
    output.fail(
        f"s3://bucket/{'/'.join(HOSTILE)}",
        "decode",
        "<b>OSError</b>",
        "</li></script><script>document.title='owned'</script>",
    )
    output.write()
    output.report(
        RECORD | {"configuration": {"images": "s3://bucket/</title><script>alert(2)</script>"}}
    )
    return output


@pytest.fixture
def page(browser: webdriver.Chrome, gallery: Output) -> webdriver.Chrome:
    """The page of the gallery, freshly opened with the network off."""
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
    )
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what a test before has left
    browser.get(f"file://{gallery.uri}/report.html")
    return browser


def requested(browser: webdriver.Chrome) -> set[str]:
    """What the browser asked for since it was asked for this last, but for data within the page."""
    messages = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    urls = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    return {url for url in urls if not url.startswith("data:")}


def shown(browser: webdriver.Chrome) -> list[str]:
    """The names on the tiles that can be seen, in their order."""
    return browser.execute_script(
        "return Array.from(document.querySelectorAll('#gallery > li'))"
        ".filter((tile) => tile.getClientRects().length)"
        ".map((tile) => tile.querySelector('h3').textContent)"
    )


def name_of(row: dict[str, Any]) -> str:
    return row["uri"].partition("/images/")[2]


def element(browser: webdriver.Chrome, id_: str) -> Any:
    return browser.find_element(By.ID, id_)


def move(browser: webdriver.Chrome, id_: str, value: int) -> None:
    """Drag a slider to a value."""
    browser.execute_script(
        "arguments[0].value = arguments[1];"
        "arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
        element(browser, id_),
        value,
    )


def press(browser: webdriver.Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def test_it_opens_without_a_network(page: webdriver.Chrome, gallery: Output) -> None:
    assert requested(page) == {f"file://{gallery.uri}/report.html"}
    assert page.get_log("browser") == []
    widths = page.execute_script(
        "return Array.from(document.images, (image) => image.complete && image.naturalWidth)"
    )
    assert len(widths) == 80
    assert set(widths) == {width for n in range(40) for width in [60 + n]}
    assert element(page, "shown").text == "40 of 40 shown"
    assert len(shown(page)) == 40
    # The image and the mask are one upon the other.
    tile = page.find_element(By.CSS_SELECTOR, ".tile")
    image, mask = (tile.find_element(By.CLASS_NAME, name) for name in ("image", "mask"))
    assert image.rect == mask.rect
    assert mask.value_of_css_property("opacity") == "0.5"


def test_it_lets_nothing_out(browser: webdriver.Chrome, gallery: Output) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        browser.execute_cdp_cmd(
            "Network.emulateNetworkConditions",
            {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
        )
        browser.get(f"file://{gallery.uri}/report.html")
        refused = browser.execute_async_script(
            """
            const [url, done] = arguments, refused = [];
            document.addEventListener("securitypolicyviolation", (event) => {
              refused.push(event.effectiveDirective);
              if (refused.length === 5) done(refused);
            });
            fetch(url).catch(() => {});
            new Image().src = url;
            const add = (name, attribute) => {
              const element = document.createElement(name);
              element[attribute] = url;
              document.body.append(element);
            };
            add("script", "src");
            navigator.sendBeacon(url, "1");
            const inline = document.createElement("script");
            inline.textContent = "document.title = 'owned'";
            document.body.append(inline);
            setTimeout(() => done(refused), 5000);
            """,
            url,
        )
        assert sorted(refused) == [
            "connect-src",
            "connect-src",
            "img-src",
            "script-src-elem",
            "script-src-elem",
        ]
        assert browser.title != "owned"
        assert not select.select([server], [], [], 1)[0], "something connected"


def test_names_and_messages_are_text(page: webdriver.Chrome) -> None:
    assert {"/".join(HOSTILE), UNICODE} <= set(shown(page))
    assert page.title == "Segmentation of s3://bucket/</title><script>alert(2)</script>"
    assert page.find_element(By.TAG_NAME, "h1").text.endswith(page.title.split(" of ")[1])
    errors = page.find_element(By.CSS_SELECTOR, "[aria-labelledby=errors]").text
    assert "<b>OSError</b>" in errors
    assert "</li></script><script>document.title='owned'</script>" in errors
    assert f"s3://bucket/{'/'.join(HOSTILE)}" in errors.replace("\n", "")
    assert len(page.find_elements(By.TAG_NAME, "script")) == 1


@pytest.mark.parametrize("class_id", [0, 1, 2])
def test_the_filters_do_as_they_say(page: webdriver.Chrome, gallery: Output, class_id: int) -> None:
    labels = gallery.labels
    name = labels.names[class_id]
    Select(element(page, "class")).select_by_visible_text(name)
    assert len(shown(page)) == 40

    def expect(low: int, high: int, least: int, most: int) -> set[str]:
        chosen = set()
        for row in gallery.results:
            share, sure = shares_of(row, labels)[class_id], row[f"confidence_{name}"]
            fits = (least, most) == (0, 100) if sure is None else least / 100 <= sure <= most / 100
            if low / 100 <= share <= high / 100 and fits:
                chosen.add(name_of(row))
        return chosen

    ends = ("share-low", "share-high", "confidence-low", "confidence-high")
    for values in ((20, 60, 0, 100), (0, 100, 60, 90), (10, 80, 50, 95), (0, 10, 0, 100)):
        for end, value in zip(ends, (0, 100, 0, 100), strict=True):
            move(page, end, value)
        for end, value in zip(ends, values, strict=True):
            move(page, end, value)
        found = shown(page)
        assert set(found) == expect(*values)
        assert 0 < len(found) < 40
        assert element(page, "shown").text == f"{len(found)} of 40 shown"
    assert element(page, "share").text == "0% to 10%"
    assert element(page, "confidence").text == "0.00 to 1.00"

    move(page, "confidence-high", 0)
    assert shown(page) == []
    assert element(page, "none").is_displayed()
    element(page, "reset").click()
    assert len(shown(page)) == 40
    assert not element(page, "none").is_displayed()
    assert not element(page, "reset").is_displayed()


def test_one_end_of_a_range_cannot_pass_the_other(page: webdriver.Chrome) -> None:
    move(page, "share-high", 40)
    move(page, "share-low", 70)
    assert element(page, "share").text == "40% to 40%"
    move(page, "share-high", 10)
    assert element(page, "share").text == "40% to 40%"


@pytest.mark.parametrize("class_id", [0, 2])
def test_the_orders_do_as_they_say(page: webdriver.Chrome, gallery: Output, class_id: int) -> None:
    labels, rows = gallery.labels, {name_of(row): row for row in gallery.results}
    name = labels.names[class_id]
    Select(element(page, "class")).select_by_visible_text(name)

    def share(tile: str) -> float:
        return shares_of(rows[tile], labels)[class_id]

    def sure(tile: str) -> float:
        value = rows[tile][f"confidence_{name}"]
        return 2 if value is None else value

    choice = Select(element(page, "sort"))
    assert choice.first_selected_option.text == "Lowest expected IoU"
    at_first = [rows[tile]["expected_iou"] for tile in shown(page)]
    assert at_first == sorted(at_first)
    for text, key in (
        ("Most of the class", lambda tile: -share(tile)),
        ("Least of the class", share),
        ("Least confident in the class", sure),
        ("Lowest expected IoU", lambda tile: rows[tile]["expected_iou"]),
    ):
        choice.select_by_visible_text(text)
        tiles = shown(page)
        keys = [key(tile) for tile in tiles]
        assert keys == sorted(keys), text
        assert len(set(tiles)) == 40
    # Those that are filtered out stay out, whatever the order.
    move(page, "share-low", 30)
    choice.select_by_visible_text("Most of the class")
    tiles = shown(page)
    assert [share(t) for t in tiles] == sorted(s for s in map(share, rows) if s >= 0.3)[::-1]


def test_tiles_say_what_they_show(page: webdriver.Chrome, gallery: Output) -> None:
    labels, rows = gallery.labels, {name_of(row): row for row in gallery.results}
    for tile in page.find_elements(By.CSS_SELECTOR, "#gallery > li")[:10]:
        row = rows[tile.find_element(By.TAG_NAME, "h3").get_property("textContent")]
        size = f"{row['width']} × {row['height']} px"  # noqa: RUF001
        assert tile.find_element(By.CLASS_NAME, "size").text == (
            f"{size}, expected IoU {row['expected_iou']:.3f}"
        )
        shares = dict(zip(labels.names, shares_of(row, labels), strict=True))
        there = sorted((n for n in labels.names if shares[n]), key=lambda n: -shares[n])
        said = [line.text.split() for line in tile.find_elements(By.CSS_SELECTOR, ".classes li")]
        assert said == [
            [n, f"{100 * shares[n]:.1f}%".replace("100.0", "100"), f"{row[f'confidence_{n}']:.3f}"]
            for n in there
        ]
        links = tile.find_elements(By.CSS_SELECTOR, "a, [href]")
        assert links == []


def test_a_class_that_is_not_there_is_said_to_be(page: webdriver.Chrome, gallery: Output) -> None:
    Select(element(page, "class")).select_by_visible_text("border")
    Select(element(page, "sort")).select_by_visible_text("Least of the class")
    tile = page.find_element(By.CSS_SELECTOR, "#gallery > li")
    assert tile.find_element(By.CLASS_NAME, "chosen").text == "border: 0.0%"


def test_the_views_show_image_mask_or_both(page: webdriver.Chrome) -> None:
    tile = page.find_element(By.CSS_SELECTOR, ".tile")
    image, mask = (tile.find_element(By.CLASS_NAME, name) for name in ("image", "mask"))
    choices = {c.get_attribute("value"): c for c in page.find_elements(By.NAME, "view")}

    def choose(view: str) -> tuple[bool, bool, float]:
        page.execute_script("arguments[0].click()", choices[view])
        opacity = float(mask.value_of_css_property("opacity"))
        return image.is_displayed(), mask.is_displayed(), opacity

    assert choose("image")[:2] == (True, False)
    assert choose("mask") == (False, True, 1)
    assert choose("beside") == (True, True, 1)
    assert mask.rect["x"] >= image.rect["x"] + image.rect["width"]
    assert mask.rect["height"] == image.rect["height"]
    assert choose("overlay") == (True, True, 0.5)
    move(page, "opacity", 80)
    assert choose("overlay") == (True, True, 0.8)
    assert image.rect == mask.rect


def test_the_keyboard_is_enough(page: webdriver.Chrome, gallery: Output) -> None:
    """Tab from the top of the page through all controls, and use each by its keys."""
    reached = []
    while "opacity" not in reached:
        press(page, Keys.TAB)
        active = page.switch_to.active_element
        name = active.get_attribute("id") or active.get_attribute("name") or active.tag_name
        assert name != "body", reached
        reached.append(name)
        # Each control shows that it has the focus; of the views, the label does.
        if name == "class":
            press(page, "pet")
        elif name == "share-low":
            press(page, *[Keys.ARROW_RIGHT] * 25)
        elif name == "share-high":
            press(page, *[Keys.ARROW_LEFT] * 30)
        elif name == "confidence-low":
            press(page, Keys.PAGE_UP, Keys.PAGE_UP, Keys.HOME)
        elif name == "sort":
            press(page, "Most")
        elif name == "view":
            press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    controls = ["class", "share-low", "share-high", "confidence-low", "confidence-high", "sort"]
    assert reached[-8:] == [*controls, "view", "opacity"]
    assert element(page, "share").text == "25% to 70%"
    assert element(page, "confidence").text == "0.00 to 1.00"
    assert element(page, "gallery").get_attribute("data-view") == "mask"
    pets = {name_of(row): shares_of(row, gallery.labels)[0] for row in gallery.results}
    expected = sorted((share for share in pets.values() if 0.25 <= share <= 0.7), reverse=True)
    assert [pets[name] for name in shown(page)] == expected
    assert expected

    press(page, Keys.TAB)
    assert page.switch_to.active_element == element(page, "reset")
    press(page, Keys.ENTER)
    assert len(shown(page)) == 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_the_window_and_the_scheme(
    browser: webdriver.Chrome, gallery: Output, scheme: str, width: int
) -> None:
    scheme_feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme_feature)
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get(f"file://{gallery.uri}/report.html")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        body = browser.find_element(By.TAG_NAME, "body")
        brightness = [
            sum(int(n) for n in re.findall(r"\d+", body.value_of_css_property(name))[:3])
            for name in ("background-color", "color")
        ]
        assert (brightness[0] > brightness[1]) == (scheme == "light")
        assert abs(brightness[0] - brightness[1]) > 450
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_many_classes_are_still_a_page(browser: webdriver.Chrome, tmp_path: Path) -> None:
    labels = Labels(tuple(f"kind_{i}" for i in range(255)), tuple(range(255)))
    output = Output(str(tmp_path / "output"), labels)
    for n in range(60):
        output.add(f"{tmp_path}/images/{n}.jpg", n, (100, 100))
    output.write()
    assert len(output.report()) < 8_000_000
    browser.get(f"file://{output.uri}/report.html")
    assert browser.get_log("browser") == []
    assert len(shown(browser)) == 60
    rest = browser.find_elements(By.CSS_SELECTOR, "details > .distribution")
    assert len(rest) == 243
    assert not rest[0].is_displayed()
    name = "kind_77"
    Select(element(browser, "class")).select_by_visible_text(name)
    move(browser, "share-low", 1)
    expected = sum(row[f"pixels_{name}"] >= 100 for row in output.results)
    assert len(shown(browser)) == expected
