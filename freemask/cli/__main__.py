"""`python -m freemask.cli`: the console script without an installed entry point."""

import sys

from freemask.cli.commands import main

sys.exit(main())
