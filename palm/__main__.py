"""`python -m palm`: the `palm` command, also where no scripts are installed."""

from palm.cli import main

main()
