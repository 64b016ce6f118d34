"""`python -m launch VERB ...`: the `albert` command where the project is on the path and not installed."""

import sys

from launch.cli import main

sys.exit(main(sys.argv[1:]))
