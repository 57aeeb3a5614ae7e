"""`python -m pncbayes` is the same as `pncbayes`."""

from pncbayes.cli import main

if __name__ == "__main__":
    main()
