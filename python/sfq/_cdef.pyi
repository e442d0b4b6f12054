"""What the build makes of the public headers (python/make_binding.py)."""

from typing import Any

ffi: Any
