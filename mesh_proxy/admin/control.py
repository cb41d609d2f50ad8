"""Endpoints that change something; all of them by POST."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh_proxy.admin.exchange import OK, AdminRequest, AdminResponse, text

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor


def healthcheck_fail(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """Say DRAINING on /ready and let workers ask callers to go elsewhere."""
    supervisor.set_health_check_failed(True)
    return OK


def healthcheck_ok(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """Undo it."""
    supervisor.set_health_check_failed(False)
    return OK


def drain_listeners(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """See Supervisor.drain_listeners."""
    supervisor.drain_listeners(
        inbound_only=request.flag("inboundonly"), graceful=request.flag("graceful"), skip_exit=request.flag("skip_exit")
    )
    return OK


def quitquitquit(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """Stop without a drain, once the answer is written."""
    return text("OK\n", then=supervisor.stop_now)


def reopen_logs(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """As SIGUSR1."""
    supervisor.reopen_logs()
    return OK


def reset_counters(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """In every worker and of the dead."""
    supervisor.reset_counters()
    return OK


def runtime_modify(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """Needs an admin layer in `layered_runtime`, which the loader does not take yet; the answers are Envoy's."""
    if not request.query:
        return text("usage: /runtime_modify?key1=value1&key2=value2 (or as a form); an empty value removes an override\n", 400)
    return text("No admin layer specified", 503)
