"""The pages as a person sees them, in a real browser without a network."""

import os
import shutil
import urllib.parse

import pytest
from playwright.sync_api import sync_playwright

import cases
from program import PATIENCE_S, ROOT, Receiver, Sender

SCREENSHOTS = ROOT / "target/screenshots"
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    assert path, "no Chromium found; run: apt-get install --no-install-recommends chromium (or set CHROMIUM to its path)"
    # Root may not use Chromium's sandbox; the rest keeps it from calling home.
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=quiet, timeout=PATIENCE_S * 1000)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1200, "height": 1600})
    page.set_default_timeout(PATIENCE_S * 1000)
    page.asked = []
    page.errors = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    page.close()


def open_documentation(page, server):
    page.goto(server.url + "/apidocs/")
    page.wait_for_selector(".opblock")
    return page


def check_operations(page, server):
    """All that the document describes is on the page, and nothing was asked of another machine."""
    paths = server.get("/openapi.json").json()["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    shown = set()
    for block in page.query_selector_all(".opblock"):
        path = block.query_selector(".opblock-summary-path").get_attribute("data-path")
        shown.add((block.query_selector(".opblock-summary-method").inner_text(), path))
    assert shown == described
    hosts = {urllib.parse.urlsplit(url).netloc for url in page.asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {server.address}
    assert not page.errors


def screenshot(page, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def operation(page, method, path):
    return page.locator(f".opblock-{method}").filter(has=page.locator(f'[data-path="{path}"]'))


def try_out(page, method, path, body=None):
    """Opens an operation, presses "Try it out" and "Execute", and returns the status that the page shows."""
    block = operation(page, method, path)
    block.locator(".opblock-summary-control").click()
    # Where the page is set so, it starts with the form open.
    block.locator("button.try-out__btn").wait_for()
    if block.locator("button.execute").count() == 0:
        block.locator("button.try-out__btn").click()
    if body is not None:
        block.locator("textarea.body-param__text").fill(body)
    block.locator("button.execute").click()
    status = block.locator(".live-responses-table tr.response .response-col_status").first
    status.wait_for()
    return status.inner_text().split()[0]


def try_out_everything(page, server):
    """Every operation works as it stands on the page, with the example that it offers."""
    paths = server.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for method, described in methods.items():
            # The page shows an answer when it has all of it, and a stream of events has no end.
            if "text/event-stream" in described["responses"].get("200", {}).get("content", {}):
                continue
            status = try_out(page, method, path)
            assert status.startswith("2") and status in described["responses"], (method, path, status)


def test_the_receivers_documentation_works(page, receiver):
    open_documentation(page, receiver)
    check_operations(page, receiver)
    try_out_everything(page, receiver)
    assert "Genesis Block" in operation(page, "get", "/get_chain").locator(".live-responses-table").inner_text()
    assert len(receiver.chain()) == 2
    check_operations(page, receiver)
    screenshot(page, "receiver-apidocs")


def test_the_senders_documentation_works(page, receiver, tmp_path):
    (tmp_path / "sender").mkdir()
    with Sender(tmp_path / "sender", receiver.url) as sender:
        open_documentation(page, sender)
        try_out_everything(page, sender)
        check_operations(page, sender)
        screenshot(page, "sender-apidocs")


def test_a_token_can_be_entered(page, tmp_path):
    token = "a-long-secret-token-0123456789"
    with Receiver(tmp_path, API_TOKEN=token) as receiver:
        open_documentation(page, receiver)
        body = f"[{cases.device().item(cases.reading())}]"
        page.locator(".auth-wrapper .authorize").click()
        page.locator(".auth-container input").fill(token)
        page.locator(".auth-container button.authorize").click()
        page.locator(".auth-container .btn-done").click()
        assert try_out(page, "post", "/receive_data", body) == "200"
        assert len(receiver.chain()) == 2


def test_the_first_page_leads_to_everything(page, receiver):
    page.goto(receiver.url)
    screenshot(page, "receiver-home")
    for link in [anchor.get_attribute("href") for anchor in page.query_selector_all("a")]:
        answer = page.request.get(urllib.parse.urljoin(receiver.url, link))
        assert answer.status == 200, link
    page.goto(receiver.url + "/apidocs")
    page.wait_for_selector(".opblock")
