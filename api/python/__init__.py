"""The Python API: a home folder that loads data frames, evaluates, trains and recommends in this process."""

from feedrank.api.python.evaluation_table import Evaluation as Evaluation
from feedrank.api.python.explanation import Explanation as Explanation
from feedrank.api.python.feed import Feed as Feed
from feedrank.api.python.feed_table import FeedTable as FeedTable
from feedrank.api.python.home import Home as Home
from feedrank.api.python.load_report import LoadReport as LoadReport
from feedrank.api.python.recommender import Recommender as Recommender
from feedrank.api.python.train_report import TrainReport as TrainReport
