"""`python -m regstore`."""

from regstore.cli import main

if __name__ == "__main__":
    main()
