"""`python -m costmodel.cli`."""

from costmodel.cli import main

main()
