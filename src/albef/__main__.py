"""`python -m albef` is the command `albef`."""

from albef.cli import main

if __name__ == "__main__":
    main()
