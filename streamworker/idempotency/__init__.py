"""What keeps a record from having its effect twice, and two workers from doing the same.

Claims for effects outside of a database, locks with fences, the election of a leader, and tables of states.
"""

from streamworker.idempotency.leader import Leader
from streamworker.idempotency.lock import Fence, Hold, Lock
from streamworker.idempotency.redis_lock import RedisLock
from streamworker.idempotency.transitions import Transitions

__all__ = ["Fence", "Hold", "Leader", "Lock", "RedisLock", "Transitions"]
