"""`python -m streamworker`, the same as the command `streamworker`."""

from streamworker.cli.main import main

main()
