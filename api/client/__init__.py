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
from feedrank.api.client.responses import EventsResult as EventsResult
from feedrank.api.client.responses import FeatureDescription as FeatureDescription
from feedrank.api.client.responses import Feed as Feed
from feedrank.api.client.responses import ItemExplanation as ItemExplanation
from feedrank.api.client.responses import RankingExplanation as RankingExplanation
from feedrank.api.client.responses import RejectedEvent as RejectedEvent
from feedrank.api.client.responses import ScoredItem as ScoredItem
from feedrank.api.client.responses import ServiceStatus as ServiceStatus
from feedrank.api.client.responses import SimilarItems as SimilarItems
from feedrank.api.client.retries import Clock as Clock
from feedrank.api.client.retries import Retries as Retries
