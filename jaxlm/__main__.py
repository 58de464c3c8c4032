"""`python -m jaxlm` is the command `jaxlm`."""

from jaxlm.cli import main

main(prog_name="jaxlm")
