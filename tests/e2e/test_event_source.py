"""A browser reads server-sent events with `EventSource`."""

from __future__ import annotations

from pathlib import Path

APP = '''
from hipflask import Channel, Flask, request

app = Flask(__name__)
channel = Channel(history=10)
asked = []

PAGE = """
<!doctype html><title>Events</title><ol></ol><p></p>
<script>
  const source = new EventSource("/events");
  const show = event => {
    const item = document.createElement("li");
    item.textContent = `${event.type}: ${event.data}`;
    document.querySelector("ol").append(item);
  };
  source.onopen = () => { document.querySelector("p").textContent += "open " };
  source.onmessage = show;
  source.addEventListener("named", show);
</script>
"""

@app.route("/")
def page():
    return PAGE

@app.route("/events")
def events():
    asked.append(request.headers.get("Last-Event-ID"))
    return channel.stream(retry=10)

@app.route("/publish")
def publish():
    args = request.args
    return str(channel.publish(args["data"], event=args.get("event"), id=args.get("id")))

@app.route("/interrupt")
def interrupt():
    global channel
    before, channel = channel, Channel(history=10)
    channel.publish("known", id="2")
    channel.publish("missed", id="3")
    before.close()
    return "ok"

@app.route("/asked")
def what_was_asked():
    return asked
'''


def test_a_page_gets_events_and_comes_back(serve, browser, tmp_path: Path) -> None:
    import json
    from urllib.parse import urlencode
    from urllib.request import urlopen

    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    tmp_path.joinpath("app.py").write_text(APP)
    server = serve("run", "--port", "0", cwd=tmp_path)
    try:

        def ask(path: str, **query: str) -> str:
            with urlopen(f"{server.url}{path}?{urlencode(query)}", timeout=20) as answer:
                return answer.read().decode()

        def shown() -> list[str]:
            return [item.text for item in browser.find_elements(By.TAG_NAME, "li")]

        def wait_until(condition) -> None:
            WebDriverWait(browser, 20).until(lambda _: condition())

        browser.get(server.url)
        wait_until(lambda: "open" in browser.find_element(By.TAG_NAME, "p").text)
        assert ask("/publish", data="two\nlines", id="1") == "1"
        assert ask("/publish", data="é", event="named", id="2") == "1"
        wait_until(lambda: shown() == ["message: two lines", "named: é"])
        # The stream ends; the browser comes back and says what it has got.
        ask("/interrupt")
        wait_until(lambda: shown()[2:] == ["message: missed"])
        assert json.loads(ask("/asked")) == [None, "2"]
    finally:
        assert server.stop() == 0
