"""For your own tests: an in-memory cluster, a manual clock, fault injection and event capture."""

from sandlane.testing.clock import ManualClock as ManualClock
from sandlane.testing.cluster import FakeCluster as FakeCluster
from sandlane.testing.events import captured_events as captured_events
from sandlane.testing.faults import Failure as Failure
from sandlane.testing.faults import Schedule as Schedule
from sandlane.testing.faults import Watching as Watching
from sandlane.testing.garbage import garbage_collection as garbage_collection
from sandlane.testing.harness import Differs as Differs
from sandlane.testing.harness import Harness as Harness
from sandlane.testing.harness import Report as Report
