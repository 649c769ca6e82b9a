"""`python -m partywire`: the command, for where its script is not on the path."""

from partywire.workers.cli import main

if __name__ == "__main__":
    main()
