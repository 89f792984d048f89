"""The public names, each from the module it lives in: type checkers read this, and so does ``__init__.py``."""

from enrichstatus.accessor.accessor import Enrichment as Enrichment
from enrichstatus.dashboard.dashboard import Dashboard as Dashboard
from enrichstatus.dashboard.dashboard import dashboards as dashboards
from enrichstatus.dashboard.dashboard import stop_all as stop_all
from enrichstatus.errors import ChargeWarning as ChargeWarning
from enrichstatus.errors import EnrichStatusError as EnrichStatusError
from enrichstatus.errors import EntityWarning as EntityWarning
from enrichstatus.errors import HeaderWarning as HeaderWarning
from enrichstatus.errors import InternalError as InternalError
from enrichstatus.errors import LookupInterrupted as LookupInterrupted
from enrichstatus.errors import OrganizationWarning as OrganizationWarning
from enrichstatus.errors import PartialLookupError as PartialLookupError
from enrichstatus.errors import PollDeadline as PollDeadline
from enrichstatus.errors import PollInterrupted as PollInterrupted
from enrichstatus.errors import RequirementError as RequirementError
from enrichstatus.errors import ServiceError as ServiceError
from enrichstatus.errors import StatusWarning as StatusWarning
from enrichstatus.errors import StoreError as StoreError
from enrichstatus.errors import StoreLockedError as StoreLockedError
from enrichstatus.errors import TriggerInterrupted as TriggerInterrupted
from enrichstatus.errors import TriggerStopped as TriggerStopped
from enrichstatus.errors import UnauthorizedError as UnauthorizedError
from enrichstatus.errors import ValidationError as ValidationError
from enrichstatus.leads.plan import Plan as Plan
from enrichstatus.leads.planning import plan as plan
from enrichstatus.leads.spread import spread as spread
from enrichstatus.lookup.dialects import lookup_sql as lookup_sql
from enrichstatus.lookup.leads import tasks_from_leads as tasks_from_leads
from enrichstatus.lookup.query import Source as Source
from enrichstatus.lookup.requirements import require as require
from enrichstatus.polling.awaited import apoll as apoll
from enrichstatus.polling.awaited import aresume as aresume
from enrichstatus.polling.awaited import await_completed as await_completed
from enrichstatus.polling.completed import Completed as Completed
from enrichstatus.polling.completed import as_completed as as_completed
from enrichstatus.polling.poll import poll as poll
from enrichstatus.polling.poll import wait as wait
from enrichstatus.polling.resuming.resume import resume as resume
from enrichstatus.polling.schedules import Adaptive as Adaptive
from enrichstatus.polling.schedules import Ask as Ask
from enrichstatus.polling.schedules import Backoff as Backoff
from enrichstatus.polling.update import Update as Update
from enrichstatus.reports.coverage import coverage as coverage
from enrichstatus.reports.diff import diff as diff
from enrichstatus.reports.reconcile import reconcile as reconcile
from enrichstatus.reports.report import Report as Report
from enrichstatus.reports.timing import timing as timing
from enrichstatus.reports.waste import waste as waste
from enrichstatus.sources.client.awaited import AsyncEnrichmentClient as AsyncEnrichmentClient
from enrichstatus.sources.client.client import EnrichmentClient as EnrichmentClient
from enrichstatus.sources.client.trigger_report import TriggerReport as TriggerReport
from enrichstatus.sources.spark.store import SparkEnrichmentStore as SparkEnrichmentStore
from enrichstatus.sources.store.answering.lookup_files import LookupReport as LookupReport
from enrichstatus.sources.store.changes import Changes as Changes
from enrichstatus.sources.store.loading.load import LoadReport as LoadReport
from enrichstatus.sources.store.store import EnrichmentStore as EnrichmentStore

__all__: list[str]
__version__: str

def __dir__() -> list[str]: ...
