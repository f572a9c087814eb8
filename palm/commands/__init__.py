"""What the `palm` command and the recipes do; `palm.cli` makes one command of it."""
