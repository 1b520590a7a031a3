"""`python -m ls3dw`."""

from ls3dw.cli import main

if __name__ == "__main__":
    main()
