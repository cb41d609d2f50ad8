"""From protobufs to dataclasses: the same translation for the bootstrap's static resources and for those of a control plane.

Each function takes a message, the path to name in errors and, when several resources are loaded together, their Context.
"""

from mesh_proxy.config.translate.cluster import translate_cluster
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.endpoint import translate_endpoints
from mesh_proxy.config.translate.listener import translate_listener
from mesh_proxy.config.translate.route import translate_route_configuration

__all__ = ["Context", "translate_cluster", "translate_endpoints", "translate_listener", "translate_route_configuration"]
