"""The Python client of the HTTP API. It needs httpx and the standard library only, no other part of feedrank."""

from api.client.answers import Explanation as Explanation
from api.client.answers import Feed as Feed
from api.client.answers import Ready as Ready
from api.client.answers import Rejected as Rejected
from api.client.answers import ScoredItem as ScoredItem
from api.client.answers import Similar as Similar
from api.client.answers import Taken as Taken
from api.client.answers import Why as Why
from api.client.bodies import Diversity as Diversity
from api.client.bodies import Filters as Filters
from api.client.client import Client as Client
from api.client.connection import Timeouts as Timeouts
from api.client.errors import ApiError as ApiError
from api.client.errors import BadAnswer as BadAnswer
from api.client.errors import BadRequest as BadRequest
from api.client.errors import ClientError as ClientError
from api.client.errors import Conflict as Conflict
from api.client.errors import Forbidden as Forbidden
from api.client.errors import NotFound as NotFound
from api.client.errors import TooManyRequests as TooManyRequests
from api.client.errors import Unauthorized as Unauthorized
from api.client.errors import Unavailable as Unavailable
from api.client.errors import Unreachable as Unreachable
from api.client.retries import Ambient as Ambient
from api.client.retries import Retries as Retries
