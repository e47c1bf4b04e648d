"""python -m pixelrnn.coding pack | unpack: see command_line.py."""

import sys

try:
    from pixelrnn.coding import command_line
except ModuleNotFoundError as error:
    advice = "Run `make notebooks` once, then .venv/bin/python -m pixelrnn.coding (Windows: .venv\\Scripts\\python)."
    sys.exit(f"{sys.executable} has no {error.name}; the Python in .venv of this project has. {advice}")
except KeyboardInterrupt:
    sys.exit(130)  # as a shell tells it

command_line.main()
