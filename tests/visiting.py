"""Pages opened in a real browser, and what they ask for and complain of."""

from __future__ import annotations

from pathlib import Path

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Visit:
    """A page opened from a file, with everything it asked for and complained of."""

    def __init__(self, browser, path: Path, *, width: int = 1280, scripts: bool = True) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=scripts)
        self.context.set_default_timeout(120_000)  # drawing in three dimensions without a GPU takes its time
        self.page = self.context.new_page()
        self.page.set_default_timeout(120_000)  # a busy machine is slow to start, and not wrong for it
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda socket: self.requests.append(socket.url))
        self.page.on(
            "console",
            lambda message: self.complaints.append(message.text) if message.type == "error" else None,
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.url = path.as_uri()
        self.page.goto(self.url, wait_until="load")

    def draw_all(self) -> int:
        """Unfold and scroll to every figure until it is drawn; return how many there are."""
        self.page.evaluate("document.querySelectorAll('details:has(.canvas)').forEach(one => { one.open = true; })")
        canvases = self.page.locator(".canvas")
        for place in range(canvases.count()):
            canvases.nth(place).scroll_into_view_if_needed()
            canvases.nth(place).locator(".main-svg").first.wait_for(state="attached", timeout=30_000)
        return canvases.count()
