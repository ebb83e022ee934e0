"""Maps of URL rules: which rule a path matches, and which URL an endpoint has.

Implements: werkzeug.routing (3.1). The matching and building itself is native, in `hipflask._core`.
"""

from .converters import (
    AnyConverter as AnyConverter,
)
from .converters import (
    BaseConverter as BaseConverter,
)
from .converters import (
    FloatConverter as FloatConverter,
)
from .converters import (
    IntegerConverter as IntegerConverter,
)
from .converters import (
    PathConverter as PathConverter,
)
from .converters import (
    UnicodeConverter as UnicodeConverter,
)
from .converters import (
    UUIDConverter as UUIDConverter,
)
from .converters import (
    ValidationError as ValidationError,
)
from .exceptions import (
    BuildError as BuildError,
)
from .exceptions import (
    NoMatch as NoMatch,
)
from .exceptions import (
    RequestAliasRedirect as RequestAliasRedirect,
)
from .exceptions import (
    RequestPath as RequestPath,
)
from .exceptions import (
    RequestRedirect as RequestRedirect,
)
from .exceptions import (
    RoutingException as RoutingException,
)
from .exceptions import (
    WebsocketMismatch as WebsocketMismatch,
)
from .map import Map as Map
from .map import MapAdapter as MapAdapter
from .matcher import StateMachineMatcher as StateMachineMatcher
from .rules import (
    EndpointPrefix as EndpointPrefix,
)
from .rules import (
    Rule as Rule,
)
from .rules import (
    RuleFactory as RuleFactory,
)
from .rules import (
    RuleTemplate as RuleTemplate,
)
from .rules import (
    RuleTemplateFactory as RuleTemplateFactory,
)
from .rules import (
    Subdomain as Subdomain,
)
from .rules import (
    Submount as Submount,
)
from .rules import (
    parse_converter_args as parse_converter_args,
)
