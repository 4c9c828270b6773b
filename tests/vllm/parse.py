"""Run by the interpreter of vLLM's environment: reads command lines as JSON, writes what `vllm serve` makes of each."""

from __future__ import annotations

import contextlib
import io
import json
import sys

from vllm.config import LoadConfig
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
from vllm.model_executor.model_loader import get_model_loader
from vllm.utils.argparse_utils import FlexibleArgumentParser


def parse(arguments: list[str]) -> dict[str, object]:
    """The options by name, or `{"error": text}`."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = make_arg_parser(FlexibleArgumentParser()).parse_args(arguments)
            config = LoadConfig(options.load_format, model_loader_extra_config=options.model_loader_extra_config)
            loader = type(get_model_loader(config)).__name__
    except SystemExit:
        return {"error": said.getvalue()}
    except ValueError as error:
        return {"error": str(error)}
    if options.quantization not in (None, *QUANTIZATION_METHODS):
        return {"error": f"no such quantization: {options.quantization}"}
    plain = {k: v for k, v in vars(options).items() if isinstance(v, str | int | float | list | dict)}
    return {**plain, "loader": loader}


if __name__ == "__main__":
    json.dump([parse(arguments) for arguments in json.load(sys.stdin)], sys.stdout)
