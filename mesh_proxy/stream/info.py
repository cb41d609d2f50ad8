"""What is known about a connection and about a stream: the source of access logs, header formatters, matchers and statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mesh_codecs.events import ResponseHeaders
from mesh_codecs.headers import Headers

if TYPE_CHECKING:
    from mesh_codecs.dubbo import DubboMessage
    from mesh_proxy.network.original_source import OriginalSource
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.endpoint import Endpoint


class ConnectionInfo:
    """A downstream connection. Addresses are `b"10.0.0.1:80"`, `b"[::1]:80"` or the path of a unix socket, as logs print them."""

    __slots__ = (
        "application_protocols",
        "connection_id",
        "direct_remote_address",
        "filter_chain_name",
        "filter_state",
        "listener_direction",
        "local_address",
        "local_ip",
        "local_port",
        "original_destination",
        "place",
        "remote_address",
        "remote_ip",
        "remote_port",
        "requested_server_name",
        "source",
        "start_monotonic",
        "start_wall",
        "termination_details",
        "tls",
        "transport_failure",
        "transport_protocol",
    )

    def __init__(self, connection_id: int, start_monotonic: float, start_wall: float) -> None:
        self.connection_id = connection_id
        self.start_monotonic = start_monotonic
        self.start_wall = start_wall
        self.local_address = b""
        self.local_ip = b""
        """without port; empty for a unix socket"""
        self.local_port = 0
        self.remote_address = b""
        """of the peer, after a listener filter (proxy protocol) may have changed it"""
        self.remote_ip = b""
        self.remote_port = 0
        self.direct_remote_address = b""
        """of the socket's peer"""
        self.original_destination: tuple[str, int] | None = None
        """where the connection was going before it was redirected to us"""
        self.source: OriginalSource | None = None
        """what upstream connections for it are bound to; None: our own address (`original_src`)"""
        self.place: object = None
        """see `mesh_proxy.stream.request_plan`"""
        self.requested_server_name = b""
        """SNI"""
        self.application_protocols: tuple[str, ...] = ()
        """what a listener filter found, or TLS agreed on"""
        self.filter_chain_name = ""
        self.filter_state: dict[Any, Any] = {}
        """what filters keep for the connection"""
        self.listener_direction = "UNSPECIFIED"
        self.transport_protocol = "raw_buffer"
        """`tls` once a listener filter has seen its beginning"""
        self.tls: Any = None
        """`mesh_proxy.tls.peer.TlsInfo` of a connection whose TLS ends here; None on plain text"""
        self.termination_details = ""
        self.transport_failure = ""


class StreamInfo:
    """One request/response pair, or one TCP session. Times are monotonic seconds, 0.0 until they happen."""

    __slots__ = (
        "__dict__",
        "attempts",
        "bytes_received",
        "bytes_sent",
        "cluster",
        "cluster_name",
        "connection",
        "details",
        "end_time",
        "first_downstream_tx_time",
        "first_upstream_rx_time",
        "first_upstream_tx_time",
        "is_internal",
        "labels",
        "last_upstream_rx_time",
        "last_upstream_tx_time",
        "protocol",
        "remote_address",
        "request",
        "request_end_time",
        "response",
        "response_code",
        "response_trailers",
        "route",
        "route_name",
        "start_time",
        "upstream",
        "upstream_local_address",
        "upstream_protocol",
        "upstream_wire_bytes_received",
        "upstream_wire_bytes_sent",
        "virtual_host_name",
        "wire_bytes_received",
        "wire_bytes_sent",
    )

    # What few streams need is an attribute of the class until somebody sets it: it then costs no others anything.
    request_header_bytes: int = 0
    """for the log, as the next two"""
    response_header_bytes: int = 0
    wire_start: tuple[int, int] = (0, 0)
    """what the connection had received and sent when the stream began"""
    start_wall: float = 0.0
    """seconds since the epoch; 0.0 = derive it from the connection's pair of clocks (see `wall`)"""
    request_trailers: Headers | None = None
    original_path: bytes = b""
    """path before a rewrite; empty if there was none"""
    health_check: bool = False
    """a filter says that the request is a probe of the local service"""
    flags: int = 0
    """response flags (`mesh_proxy.stream.flags`)"""
    local_reply_body: bytes = b""
    """of a local reply, before a local reply format is applied to it"""
    upstream_cancelled: bool = False
    """the endpoint reset the request with CANCEL"""
    upstream_transport_failure: str = ""
    dynamic_metadata: dict[str, Any] | None = None
    """filter name -> its metadata"""
    filter_state: dict[str, Any] | None = None

    def __init__(self, connection: ConnectionInfo, start_time: float) -> None:
        self.connection = connection
        self.start_time = start_time
        self.protocol: bytes = b""
        """`HTTP/1.0`, `HTTP/1.1`, `HTTP/2`; empty for TCP"""
        self.request: Any = None
        """RequestHeaders as they are now: filters and the route may have changed them; None where there are none. (HTTP streams
        always have some. mypyc knows no attribute whose type a subclass narrows, so it is Any, as `route` is.)"""
        self.response: ResponseHeaders | None = None
        self.response_trailers: Headers | None = None
        self.remote_address: bytes = connection.remote_address
        """the trusted client address (from x-forwarded-for where that is trusted), with its port"""
        self.is_internal = False
        """the request is internal in Envoy's sense (x-envoy-internal)"""
        self.bytes_received = 0
        """body bytes from downstream"""
        self.bytes_sent = 0
        """body bytes to downstream"""
        self.wire_bytes_received = 0
        """everything from downstream, framing included; set for the log"""
        self.wire_bytes_sent = 0
        self.upstream_wire_bytes_sent = 0
        self.upstream_wire_bytes_received = 0
        self.response_code = 0
        """0 when none was sent"""
        self.details = ""
        """`%RESPONSE_CODE_DETAILS%`"""
        self.route: Any = None
        """the compiled route, or None"""
        self.route_name = ""
        self.virtual_host_name = ""
        self.cluster_name = ""
        self.cluster: Cluster | None = None
        """what `cluster_name` names, once found"""
        self.upstream: Endpoint | None = None
        self.upstream_local_address = b""
        self.upstream_protocol = b""
        self.attempts = 0
        """upstream attempts made"""
        self.request_end_time = 0.0
        """last byte of the request received"""
        self.first_upstream_tx_time = 0.0
        self.last_upstream_tx_time = 0.0
        self.first_upstream_rx_time = 0.0
        self.last_upstream_rx_time = 0.0
        self.first_downstream_tx_time = 0.0
        self.end_time = 0.0
        self.labels: tuple[tuple[str, str], ...] | None = None
        """what filters narrow the cluster's endpoints to (`mesh_proxy.upstream.labels`)"""

    @property
    def dubbo_request(self) -> DubboMessage | None:
        """The call, if it is one of Dubbo."""
        return None

    @property
    def dubbo_response_frame(self) -> bytes:
        """What a Dubbo consumer got; empty if nothing."""
        return b""

    def wall(self, monotonic: float) -> float:
        """Wall-clock seconds for a monotonic time of this stream."""
        connection = self.connection
        return connection.start_wall + (monotonic - connection.start_monotonic)
