"""The Python client of the HTTP API. It needs httpx and the standard library only, no other part of feedrank."""

from feedrank.api.client.client import Client as Client
from feedrank.api.client.connection import Timeouts as Timeouts
from feedrank.api.client.errors import ApiError as ApiError
from feedrank.api.client.errors import BadAnswer as BadAnswer
from feedrank.api.client.errors import BadRequest as BadRequest
from feedrank.api.client.errors import ClientError as ClientError
from feedrank.api.client.errors import Conflict as Conflict
from feedrank.api.client.errors import Forbidden as Forbidden
from feedrank.api.client.errors import NotFound as NotFound
from feedrank.api.client.errors import TooManyRequests as TooManyRequests
from feedrank.api.client.errors import Unauthorized as Unauthorized
from feedrank.api.client.errors import Unavailable as Unavailable
from feedrank.api.client.errors import Unreachable as Unreachable
from feedrank.api.client.requests import Diversity as Diversity
from feedrank.api.client.requests import Filters as Filters
from feedrank.api.client.responses import Explanation as Explanation
from feedrank.api.client.responses import Feed as Feed
from feedrank.api.client.responses import Ready as Ready
from feedrank.api.client.responses import Rejected as Rejected
from feedrank.api.client.responses import ScoredItem as ScoredItem
from feedrank.api.client.responses import Similar as Similar
from feedrank.api.client.responses import Taken as Taken
from feedrank.api.client.responses import Why as Why
from feedrank.api.client.retries import Ambient as Ambient
from feedrank.api.client.retries import Retries as Retries
