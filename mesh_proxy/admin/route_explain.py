"""`/route_explain`: a worker says which way a described request would go. A GET describes it in the query, a POST in JSON."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Final

from mesh_proxy.admin.exchange import AdminRequest, AdminResponse, text, to_json
from mesh_proxy.explain.question import BadQuestion, from_json, from_query
from mesh_proxy.worker import messages as m

if TYPE_CHECKING:
    from mesh_proxy.explain.question import Question
    from mesh_proxy.supervisor.supervisor import Supervisor

TIMEOUT_S: Final = 5.0


async def route_explain(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """Ask one worker; they all have the same configuration, and the same view of health."""
    try:
        question = _question(request)
    except BadQuestion as error:
        return text(f"{error}\n", 400)
    answers = await supervisor.pool.ask(_asking(question), TIMEOUT_S, most=1)
    if not answers:
        return text("no worker answers\n", 503)
    (answer,) = answers.values()
    if request.query.get("format") == "text":
        return text(answer.get("way", answer["result"]) + "\n")
    return to_json(answer)


def _asking(question: Question) -> functools.partial[m.Explain]:
    return functools.partial(m.Explain, question=question)


def _question(request: AdminRequest) -> Question:
    query = {name: value for name, value in request.query.items() if name != "format"}
    if request.method != "POST" or not request.body:
        return from_query(query)
    if query:
        raise BadQuestion("say it in the query or in the body, not in both")
    try:
        return from_json(json.loads(request.body))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadQuestion):
            raise
        raise BadQuestion("the body is not JSON") from None
