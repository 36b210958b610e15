"""The page is read by a parser, and laid out once by a real browser, which also says what it asks the server for."""

import base64
import hashlib
import json
import re
import subprocess
import threading
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from keyassay.output.gate import Gate
from sample_run import HOSTILE, TODAY, primes, results, weak_result

#: measures the report in a narrow and in a wide frame; served beside it, since the report itself runs no script
_MEASURE = """<!DOCTYPE html><meta charset="utf-8"><body><pre id="found"></pre><script>
const widths = [360, 1400], found = {};
function measure(width, frame) {
  const page = frame.contentDocument, root = page.documentElement;
  const items = [...page.querySelectorAll(".item")].map(one => one.getBoundingClientRect());
  found[width] = {
    wide: root.scrollWidth, high: root.scrollHeight, items: items.length,
    hidden: items.filter(one => one.height < 60 || one.width < 200).length,
    background: frame.contentWindow.getComputedStyle(page.querySelector(".verdict")).backgroundColor,
    bars: [...page.querySelectorAll(".bars rect")].filter(one => one.getBoundingClientRect().width > 1).length,
    scripts: page.scripts.length,
  };
  if (Object.keys(found).length == widths.length)
    document.getElementById("found").textContent = JSON.stringify(found);
}
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.onload = () => measure(width, frame);
  frame.src = "report.html";
  document.body.append(frame);
}
</script>"""


class Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.open = []
        self.attributes = []
        self.texts = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_every_tag_is_closed_in_order(rendered):
    assert Page(rendered("html")).open == []


def test_the_page_needs_nothing_from_outside_and_runs_nothing(rendered):
    page = Page(rendered("html"))
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "base", "a"} & set(page.tags)
    for name, value in page.attributes:
        assert name not in {"src", "href", "style", "srcset", "action"}, (name, value)
        assert not name.startswith("on")
    style = re.search(r"<style>(.*?)</style>", rendered("html"), re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_the_style_sheet_and_nothing_else(rendered):
    text = rendered("html")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = re.search(r'Policy" content="([^"]*)"', text)[1]
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_hostile_names_are_text(rendered):
    text = rendered("html", [weak_result(HOSTILE, f'{HOSTILE}"><script>alert(1)</script>.pem')])
    page = Page(text)
    assert "script" not in page.tags
    assert any("<script>alert(1)</script>" in one for one in page.texts)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert all(character.isprintable() for character in text.replace("\n", ""))


def test_the_worst_come_first_and_say_what_to_do(rendered):
    text = " ".join(Page(rendered("html")).texts)
    places = [
        text.index(one)
        for one in (
            "2 findings of class broken", "What to do next", "Make a new key", "keyassay prove fleet/a.pem",
            "The primes of device-17 are close.", "The modulus has 1024 bits.", "Unreadable", "fleet/bad.pem #2",
            "Not assessed", "Remarks", "Checks that failed", "What was looked for", "rsa-deep-thing",
            "keyassay scan --profile deep fleet/",
        )
    ]  # fmt: skip
    assert places == sorted(places)


def test_incomplete_lists_and_interruption_are_told(rendered):
    text = rendered("html", changes={"lists": ("debian-rsa-2048: 95 of 96 blocks",), "interrupted": True})
    assert "debian-rsa-2048: 95 of 96 blocks" in text
    assert "Interrupted: this is what was found until then." in text


def test_accepted_findings_are_marked(rendered, accepting):
    text = rendered("html", gate=Gate(baseline=accepting("rsa-near-primes"), today=TODAY))
    assert '<article class="card item accepted">' in text
    assert "accepted until 2026-12-31: a test device" in text


def test_secrets_appear_only_if_asked_for(rendered):
    factor = f"{primes()[0]:x}"
    assert factor not in rendered("html")
    assert factor in rendered("html", reveal=True)


@pytest.fixture
def served():
    """Serve files from memory; the paths that were asked for are remembered."""
    files, asked = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = files.get(self.path, b"").encode() if isinstance(files.get(self.path), str) else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield files, asked, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def browse(address, profile):
    """The page after its scripts ran, and what the browser's console says."""
    done = subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
            "--disable-quic", "--disable-extensions", "--enable-logging=stderr", "--virtual-time-budget=20000",
            f"--user-data-dir={profile}", "--window-size=1600,2200", "--dump-dom", address,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_browser_lays_the_page_out_in_narrow_and_wide_windows(rendered, served, tmp_path):
    files, asked, address = served
    found = [*results(), *(weak_result("x" * 60, f"fleet/{'long-name' * 20}/{number}.pem") for number in range(3))]
    files["/report.html"] = rendered("html", found)
    files["/measure.html"] = _MEASURE
    page, console = browse(f"{address}/measure.html", tmp_path)
    assert console == []
    assert set(asked) <= {"/measure.html", "/report.html", "/favicon.ico"}
    measured = json.loads(re.search(r'<pre id="found">(.*?)</pre>', page)[1])
    for width, one in measured.items():
        assert one["wide"] <= int(width), "the page scrolls sideways"
        assert one["items"] == 6
        assert one["hidden"] == 0
        assert one["scripts"] == 0
        assert one["bars"] >= 6
        assert one["background"] != "rgba(0, 0, 0, 0)", "the style sheet was not applied"
    assert measured["360"]["high"] > measured["1400"]["high"]


def test_the_browser_refuses_what_the_policy_forbids(rendered, served, tmp_path):
    files, asked, address = served
    bad = '<script>document.title="run"</script><img src="/spy.png">'
    files["/report.html"] = rendered("html").replace("<main>", f"<main>{bad}")
    page, console = browse(f"{address}/report.html", tmp_path)
    assert "<title>keyassay: " in page
    assert "/spy.png" not in asked
    assert any("Content Security Policy" in line for line in console)
