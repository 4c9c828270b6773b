"""`python -m inference.engine`."""

import argparse
import sys

from inference.engine.server import add_arguments, run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="inference.engine", description="A simulated vLLM replica.")
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
