"""The command line, ``tgrec`` or ``python -m tgrec``. It starts where half of tgrec is broken."""
