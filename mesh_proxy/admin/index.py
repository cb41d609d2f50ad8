"""The page at `/`: links for what reads, buttons for what changes. No script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from mesh_proxy import __version__
from mesh_proxy.admin.exchange import HTML, AdminResponse

if TYPE_CHECKING:
    from mesh_proxy.admin.endpoints import Endpoint
    from mesh_proxy.supervisor.supervisor import Supervisor

_ESCAPED: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})
_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; width: 100%; }
td { padding: .35rem .75rem .35rem 0; vertical-align: top; border-top: 1px solid #8884; }
td:first-child { white-space: nowrap; font-family: ui-monospace, monospace; width: 14rem; }
form { margin: 0; } button, input, select { font: inherit; }
input[type=text] { max-width: 100%; box-sizing: border-box; }
button { cursor: pointer; font-family: ui-monospace, monospace; }
label { margin-right: 1rem; white-space: nowrap; }
.state { display: inline-block; padding: 0 .6rem; border-radius: 1rem; color: #fff; background: #a33; font-size: .9rem; }
.LIVE { background: #2a7d3c; }
small { opacity: .75; }
@media (max-width: 40rem) {
  td { display: block; border: 0; padding: 0 0 .35rem; }
  td:first-child { border-top: 1px solid #8884; padding-top: .35rem; width: auto; }
}
"""
_FLAGS: Final = frozenset({"usedonly", "invert_filter", "include_eds", "by_process", "graceful", "skip_exit", "inboundonly"})
_CHOICES: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    "format": {"/stats": ("text", "json", "prometheus"), "": ("text", "json")},
    "type": {"": ("All", "Counters", "Gauges", "Histograms")},
    "histogram_buckets": {"": ("summary", "cumulative", "disjoint", "detailed")},
    "level": {"": ("", "trace", "debug", "info", "warning", "error", "critical", "off")},
}


def page(supervisor: Supervisor, endpoints: Sequence[Endpoint]) -> AdminResponse:
    """The index."""
    state = supervisor.state
    node = supervisor.bootstrap.node
    who = " · ".join(part for part in (node.id, node.cluster, f"up {supervisor.uptime_s} s") if part)
    reading = "".join(_row(endpoint) for endpoint in endpoints if not endpoint.mutates and endpoint.path != "/")
    changing = "".join(_row(endpoint) for endpoint in endpoints if endpoint.mutates)
    body = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>mesh-proxy admin</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>mesh-proxy {__version__} <span class="state {state}">{state}</span></h1>\n<small>{escape(who)}</small>\n'
        f"<h2>Look</h2>\n<table>\n{reading}</table>\n<h2>Change</h2>\n<table>\n{changing}</table>\n</body>\n</html>\n"
    )
    return AdminResponse(body=body.encode(), content_type=HTML)


def _row(endpoint: Endpoint) -> str:
    path = escape(endpoint.path)
    fields = "".join(_field(endpoint.path, name, meaning) for name, meaning in endpoint.params if not name.startswith("<"))
    if endpoint.mutates:
        first = f'<form method="post" action="{quote(endpoint.path)}" id="{_id(endpoint)}"><button>{path}</button></form>'
    elif fields:
        first = (
            f'<a href="{quote(endpoint.path)}">{path}</a>'
            f'<form method="get" action="{quote(endpoint.path)}" id="{_id(endpoint)}"></form>'
        )
        fields += f'<button form="{_id(endpoint)}">show</button>'
    else:
        first = f'<a href="{quote(endpoint.path)}">{path}</a>'
    fields = fields.replace("<input ", f'<input form="{_id(endpoint)}" ').replace("<select ", f'<select form="{_id(endpoint)}" ')
    return f"<tr><td>{first}</td><td>{escape(endpoint.help)}{'<br>' + fields if fields else ''}</td></tr>\n"


def _id(endpoint: Endpoint) -> str:
    return "form" + escape(endpoint.path.replace("/", "-"))


def _field(path: str, name: str, meaning: str) -> str:
    title = escape(meaning)
    if name in _FLAGS:
        return f'<label title="{title}"><input type="checkbox" name="{name}"> {name}</label>'
    if name in _CHOICES:
        words = _CHOICES[name].get(path) or _CHOICES[name][""]
        options = "".join(f"<option>{word}</option>" for word in words)
        return f'<label title="{title}">{name} <select name="{name}">{options}</select></label>'
    return f'<label title="{title}">{name} <input type="text" name="{name}"></label>'


def escape(text: str) -> str:
    """As text or in quotes. The library's `html` brings a third of a megabyte of entities."""
    return text.translate(_ESCAPED)
