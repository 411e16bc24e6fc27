"""Defines the command that serves a page: `ui`."""

from __future__ import annotations

import argparse

from freemask.cli.arguments import add_request, make_request
from freemask.cli.progress import echo
from freemask.editors.request import EditorRequest
from freemask.ui.request import UiRequest


def add_ui(parser: argparse.ArgumentParser) -> None:
    add_request(parser, UiRequest)
    add_request(parser, EditorRequest)


def run_ui(options: argparse.Namespace) -> None:
    from freemask.ui.app import serve

    try:
        serve(make_request(UiRequest, options), make_request(EditorRequest, options), echo)
    except KeyboardInterrupt:
        echo("the page has ended")
