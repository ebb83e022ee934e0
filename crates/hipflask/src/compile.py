"""Write the bytecode of the modules that the binary holds: `compile.py OUT FILE...`, run while it is built.

Each is headed by Python's magic number, so that another Python takes the source instead.
"""

import marshal
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path

out = Path(sys.argv[1])
for place, name in enumerate(sys.argv[2:]):
    if name.endswith(".py"):
        code = compile(Path(name).read_bytes(), name, "exec", dont_inherit=True)
        (out / f"{place}.code").write_bytes(MAGIC_NUMBER + marshal.dumps(code))
