"""`python -m hipflask`: the command line."""

from .fast_start import main

main()
