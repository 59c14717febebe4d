"""`python -m flows.cli`: what the console script does."""

from flows.cli.app import main

main()
