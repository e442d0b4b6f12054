"""`python -m sfq.transformers MODULE [ARGUMENTS]`: as `python -m MODULE [ARGUMENTS]`, in a Python
where Transformers knows sfq. For programs that load models themselves and know no plug-ins:

    python -m sfq.transformers lm_eval run --model hf --model_args pretrained=small,dtype=float32 \
        --device cpu --tasks arc_easy
"""

from __future__ import annotations

import runpy
import sys

from . import register


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        raise SystemExit(0 if len(sys.argv) > 1 else 2)
    register()
    del sys.argv[0]  # run_module puts the file of the module in front of what is left
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
