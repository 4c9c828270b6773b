"""`python -m inference.engine`."""

import argparse
import sys

from inference.engine.server import add_arguments

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="inference.engine", description="A simulated vLLM replica.")
    add_arguments(parser)
    args = parser.parse_args()
    sys.exit(args.run(args))
