"""``python -m coinpp_xr.cli``: the command line where the package has no script."""

from coinpp_xr.cli import main

main()
