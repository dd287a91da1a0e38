"""``python -m tgrec`` is the command ``tgrec``."""

from tgrec.cli.main import main

main()
