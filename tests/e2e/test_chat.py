"""The chat of `examples/` in a browser, with a member of its own."""

from __future__ import annotations

import json
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[2]


def test_two_members_talk(serve, browser) -> None:
    server = serve("--app", "examples/chat/app.py", "run", "--port", "0", cwd=ROOT)
    try:
        browser.get(f"{server.url}/?room=hall&name=ann")
        waiting = WebDriverWait(browser, 20)

        def said(text: str) -> bool:
            return any(item.text.split() == text.split() for item in browser.find_elements(By.TAG_NAME, "li"))

        waiting.until(lambda _: said("ann has come"))
        address = server.url.replace("http://", "ws://")
        with connect(f"{address}/ws/hall?name=bob") as bob:
            waiting.until(lambda _: said("bob has come"))
            bob.send("hello ann")
            waiting.until(lambda _: said("bob hello ann"))
            assert json.loads(bob.recv(timeout=20)) == {"name": "bob", "text": "has come"}
            assert json.loads(bob.recv(timeout=20)) == {"name": "bob", "text": "hello ann"}
            browser.find_element(By.ID, "text").send_keys("hello bob")
            browser.find_element(By.TAG_NAME, "button").click()
            assert json.loads(bob.recv(timeout=20)) == {"name": "ann", "text": "hello bob"}
        waiting.until(lambda _: said("bob has gone"))
    finally:
        status = server.stop()
    assert status == 0, "".join(server.output)
