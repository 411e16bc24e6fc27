"""Runs the command line with `python -m freemask`, without an installed entry point."""

import sys

from freemask.cli.commands import main

sys.exit(main())
