"""Flask's own tutorial application, unmodified, on Hipflask."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.wait import WebDriverWait


def test_its_own_tests_pass(tutorial: Path) -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "hipflask.pytest_alias",
            "-p",
            "no:cacheprovider",
            "tests",
        ],
        cwd=tutorial,
        env={**os.environ, "PYTHONPATH": str(tutorial), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert re.search(r"^24 passed", run.stdout, re.MULTILINE), run.stdout + run.stderr
    assert run.returncode == 0


def test_a_browser_uses_the_blog(tutorial, serve, browser, tmp_path, monkeypatch) -> None:
    # Run in a copy, so that the instance folder with the database is new.
    work = tmp_path / "tutorial"
    subprocess.run(["cp", "-r", str(tutorial), str(work)], check=True)
    init = [sys.executable, "-m", "hipflask", "--as-flask", "--app", "flaskr", "init-db"]
    done = subprocess.run(init, cwd=work, capture_output=True, text=True)
    assert "Initialized the database." in done.stdout, done.stdout + done.stderr

    server = serve("--as-flask", "--app", "flaskr", "run", "--port", "0", cwd=work)
    try:
        use_the_blog(browser, server.url)
    finally:
        status = server.stop()
    assert status == 0, "".join(server.output)


def use_the_blog(browser, url: str) -> None:
    def go(element, *, stays: bool = False) -> None:
        # A click returns before the next page is there, and what is found meanwhile is the last one's.
        page = browser.find_element(By.TAG_NAME, "html")
        element.click()
        if not stays:
            WebDriverWait(browser, 30).until(staleness_of(page))

    def fill(*, stays: bool = False, **fields: str) -> None:
        for name, text in fields.items():
            field = browser.find_element(By.NAME, name)
            field.clear()
            field.send_keys(text)
        go(browser.find_element(By.CSS_SELECTOR, "form input[type=submit]"), stays=stays)

    def text(selector: str) -> str:
        return browser.find_element(By.CSS_SELECTOR, selector).text

    browser.get(url + "/auth/register")
    fill(username="ada", password="engine")
    assert text("h1") == "Flaskr"
    assert browser.current_url == url + "/auth/login"

    fill(username="ada", password="wrong")
    assert text(".flash") == "Incorrect password."
    fill(username="ada", password="engine")
    assert text("nav span") == "ada"

    go(browser.find_element(By.LINK_TEXT, "New"))
    fill(title="", body="no title", stays=True)
    assert browser.current_url == url + "/create"  # the browser itself asks for the required title
    fill(title="On engines", body="Ünïcode & <b>markup</b>")
    assert text("article h1") == "On engines"
    assert text("article p.body") == "Ünïcode & <b>markup</b>"

    go(browser.find_element(By.LINK_TEXT, "Edit"))
    fill(title="On analytical engines", body="edited")
    assert text("article h1") == "On analytical engines"

    go(browser.find_element(By.LINK_TEXT, "Edit"))
    page = browser.find_element(By.TAG_NAME, "html")
    go(browser.find_element(By.CSS_SELECTOR, "input.danger"), stays=True)
    browser.switch_to.alert.accept()
    WebDriverWait(browser, 30).until(staleness_of(page))
    browser.implicitly_wait(0)
    assert not browser.find_elements(By.CSS_SELECTOR, "article")
    browser.implicitly_wait(5)

    go(browser.find_element(By.LINK_TEXT, "Log Out"))
    assert browser.find_element(By.LINK_TEXT, "Log In")

    browser.get(url + "/auth/register")
    fill(username="ada", password="again")
    assert text(".flash") == "User ada is already registered."
