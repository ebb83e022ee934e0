"""`python -m hipflask`: the command line."""

from .cli import main

main()
