"""`python -m uepp.cli`."""

from uepp.cli import main

main()
