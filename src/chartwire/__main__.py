"""`python -m chartwire` is the `chartwire` command."""

from chartwire.cli import main

if __name__ == "__main__":
    main()
