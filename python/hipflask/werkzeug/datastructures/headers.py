"""``Headers`` and ``EnvironHeaders``, which are native.

Implements: werkzeug.datastructures.headers (3.1).
"""

from hipflask._core import EnvironHeaders as EnvironHeaders
from hipflask._core import Headers as Headers
