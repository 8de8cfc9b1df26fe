"""kq's only door to the broker: publishing, consuming, looking. Nothing else in kq knows Kombu.

What a broker can do is read from its transport's traits; nothing here asks which one it is.
"""

from kq.broker.inspector import Inspector as Inspector
from kq.broker.letters import Delivery as Delivery
from kq.broker.letters import Seen as Seen
from kq.broker.letters import Settlement as Settlement
from kq.broker.letters import Swap as Swap
from kq.broker.link import Broker as Broker
from kq.broker.link import answer_time as answer_time
from kq.broker.link import establish as establish
from kq.broker.publisher import Publisher as Publisher
from kq.broker.publisher import Publishes as Publishes
from kq.broker.queues import BURIED as BURIED
from kq.broker.queues import ORDERS as ORDERS
from kq.broker.queues import PARKED as PARKED
from kq.broker.queues import declare as declare
from kq.broker.queues import declare_missing as declare_missing
from kq.broker.queues import holds_jobs as holds_jobs
from kq.broker.queues import home_of as home_of
from kq.broker.session import Session as Session
from kq.broker.translation import quietly as quietly
from kq.broker.translation import translated as translated
from kq_transports.engine import Load as Load
