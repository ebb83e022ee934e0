"""The interactive debugger in a browser, and the reload that follows a saved file."""

from __future__ import annotations

import re
import time
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

BROKEN = """
from hipflask import Flask, request

app = Flask(__name__)

@app.route("/")
def index():
    answer = 6 * 7
    return answer / 0
"""


def test_a_developer_looks_into_a_frame_and_mends_the_view(serve, browser, tmp_path) -> None:
    source = tmp_path / "broken.py"
    source.write_text(BROKEN)
    server = serve(
        "--app",
        "broken",
        "--debug",
        "run",
        "--port",
        "0",
        cwd=tmp_path,
        env={"WERKZEUG_DEBUG_PIN": "123-456"},
    )
    try:
        browser.get(server.url)
        look_into_the_frame(browser)
        source.write_text(BROKEN.replace("answer / 0", "str(answer)"))
        deadline = time.monotonic() + 20
        while browser.find_element(By.TAG_NAME, "body").text != "42":
            assert time.monotonic() < deadline, "".join(server.output)
            browser.get(server.url)
    finally:
        status = server.stop()
    assert status == 0, "".join(server.output)


def look_into_the_frame(browser) -> None:
    """Read the page, give a wrong and the right PIN, run code in the view's frame."""
    assert browser.find_element(By.TAG_NAME, "h1").text == "ZeroDivisionError"
    frame = browser.find_elements(By.CLASS_NAME, "frame")[-1]
    assert "return answer / 0" in frame.find_element(By.CSS_SELECTOR, ".line.current").text
    frame.find_element(By.CLASS_NAME, "open-console").click()

    enter_pin(browser, "000-000")
    waiting = WebDriverWait(browser, 10)
    waiting.until(lambda b: b.find_element(By.CSS_SELECTOR, "dialog .problem").text == "Wrong PIN.")
    enter_pin(browser, "123-456")
    waiting.until(lambda b: count(b, "dialog") == 0)

    prompt = frame.find_element(By.CSS_SELECTOR, ".console input")
    lines = ("answer + 1", "request.path", "'<b>' * 2", "for i in range(2):", "    i", "", "1 / 0")
    for shown, line in enumerate(lines, 1):
        prompt.send_keys(line, Keys.ENTER)
        waiting.until(lambda b, n=shown: count(b, ".console pre.output") == n)
    text = frame.find_element(By.CLASS_NAME, "console").text
    for expected in (
        ">>> answer + 1\n43",
        ">>> request.path\n'/'",
        "'<b><b>'",
        "...     i\n",
        "ZeroDivisionError",
    ):
        assert expected in text
    assert "line 9" in frame.find_element(By.TAG_NAME, "h4").text
    assert count(browser, ".console b") == 0


def count(browser, selector) -> int:
    """How many elements there are now; looking for none with the driver would wait."""
    return browser.execute_script("return document.querySelectorAll(arguments[0]).length", selector)


def enter_pin(browser, pin) -> None:
    """Type a PIN into the dialog."""
    field = browser.find_element(By.CSS_SELECTOR, "dialog input")
    field.clear()
    field.send_keys(pin, Keys.ENTER)


def test_strangers_see_no_secret(serve, tmp_path) -> None:
    import http.client

    Path(tmp_path / "broken.py").write_text(BROKEN)
    server = serve("--app", "broken", "--debug", "run", "--port", "0", cwd=tmp_path)
    try:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
        connection.request("GET", "/", headers={"Host": "rebound.example"})
        response = connection.getresponse()
        page = response.read().decode()
        connection.close()
    finally:
        server.stop()
    assert response.status == 500
    assert "ZeroDivisionError" in page
    assert not re.search("data-secret|open-console", page)


def test_a_template_error_shows_the_templates_line(serve, browser, tmp_path) -> None:
    Path(tmp_path / "broken.py").write_text(
        "from hipflask import Flask, render_template\n"
        "app = Flask(__name__)\n"
        "@app.route('/')\n"
        "def index():\n"
        "    return render_template('list.html', items=[1, None])\n"
    )
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "list.html").write_text(
        "<ul>\n{% for item in items %}\n  <li>{{ item + 1 }}</li>\n{% endfor %}\n</ul>\n"
    )
    server = serve("--app", "broken", "--debug", "run", "--port", "0", cwd=tmp_path)
    try:
        browser.get(server.url)
        frame = browser.find_elements(By.CLASS_NAME, "frame")[-1]
        title = frame.find_element(By.TAG_NAME, "h4").text
        assert 'list.html", line 3' in title
        assert frame.find_element(By.CSS_SELECTOR, ".line.current").text.strip() == "<li>{{ item + 1 }}</li>"
        # The developer's frame is open, those of libraries are folded.
        assert "{% endfor %}" in frame.text
        assert browser.execute_script("return document.querySelectorAll('.frame.library.open').length") == 0
    finally:
        server.stop()
