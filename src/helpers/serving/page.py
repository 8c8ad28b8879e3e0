"""A study's people and scans as a page of their own: Voilà, for this machine and one reader."""

from __future__ import annotations

import logging
import socket
import webbrowser
from collections.abc import Callable
from html import escape
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

import nbformat

from helpers.kernel import OwnKernelSpecManager, open_private_folder
from helpers.storage import write_text
from helpers.study import Study

_HOST = "127.0.0.1"
_SOCKET = "voila_12345678/kernel-12345678-1234-1234-1234-123456789abc-ipc-5"
_TEMPLATE = Path(__file__).with_name("template")
# What a page may ask for: itself alone. Code that is made in it is plotly's and anywidget's way.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' ws://127.0.0.1:*;"
    " frame-ancestors 'none'"
)


def show_page(study: Study, *, port: int, browser: bool, say: Callable[[str], None]) -> None:
    """Serve a study's exploration and scans on this machine until it is stopped.

    `study` has been through 03_performance; a `port` of 0 is any that is free; `say` receives the
    address, with the token that it needs.
    """
    from tornado.ioloop import IOLoop

    with open_private_folder(_SOCKET) as private:
        folder = Path(private)
        server = make_server(study, folder, token=token_urlsafe(32), port=port or _find_port())
        address = f"http://{_HOST}:{server.port}/?token={server.token}"

        def announce() -> None:
            say(f"{study.title}: {address} (for this machine alone; Ctrl+C ends it)")
            if browser:  # a program's words can be read by everybody on the machine, a file of one's own cannot
                page = folder / "open.html"
                write_text(f'<meta http-equiv="refresh" content="0; url={address}">', page)
                webbrowser.open(page.as_uri())

        IOLoop.current().add_callback(announce)  # once it listens
        server.start()


def make_server(study: Study, folder: Path, *, token: str, port: int) -> Any:
    """Return a Voilà server that is ready to start, on a notebook of one cell in `folder`.

    It listens on 127.0.0.1 alone, answers by that name and to the token alone, reads no settings of
    the user's, and its page asks nothing of anybody else.
    """
    from traitlets.config import Config
    from voila.app import Voila

    logging.getLogger("tornado.general").setLevel(logging.ERROR)  # of settings that are Jupyter's own
    notebook = folder / "study.ipynb"
    write_text(nbformat.writes(_write_notebook(study)), notebook)
    settings = Config()
    settings.Voila = Config(
        ip=_HOST,
        port=port,
        port_retries=0,
        token=token,
        open_browser=False,
        log_level="ERROR",
        config_file_paths=[],
        connection_dir_root=str(folder),
        tornado_settings={
            "allow_remote_access": False,
            "headers": {"Content-Security-Policy": _POLICY},
        },
    )
    settings.KernelManager = Config(transport="ipc")  # TCP ports could be reached by others on this machine
    settings.VoilaConfiguration = Config(
        allow_template_override="NO",
        allow_theme_override="NO",
        kernel_spec_manager_class=OwnKernelSpecManager,
    )
    server = Voila(config=settings)
    server.initialize([str(notebook)])
    server.template_paths.insert(0, str(_TEMPLATE))
    return server


def _write_notebook(study: Study) -> nbformat.NotebookNode:
    """Return a notebook of what the study's folder holds, whatever its parameter file says now."""
    code = (
        "from helpers.explore import explore_study\nfrom helpers.notebook import open_study\n\n"
        f"explore_study(open_study({str(study.folder)!r}, needs=('cohort', 'metrics')))"
    )
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_markdown_cell(f"## {escape(study.title)}"), nbformat.v4.new_code_cell(code)]
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "title": study.title})


def _find_port() -> int:
    with socket.socket() as free:
        free.bind((_HOST, 0))
        return int(free.getsockname()[1])
