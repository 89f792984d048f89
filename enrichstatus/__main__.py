"""``python -m enrichstatus``: the command line."""

import sys

from enrichstatus.cli import main

sys.exit(main())
