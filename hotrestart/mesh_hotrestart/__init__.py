"""Handing sockets and connections to a new process over a unix socket."""

from mesh_hotrestart.child import REPLY_TIMEOUT_S, ChildConversation, ChildState, TakeoverRefused
from mesh_hotrestart.fdpass import TruncatedDescriptors, close_all, peer_of
from mesh_hotrestart.link import Link
from mesh_hotrestart.messages import MAX_DESCRIPTORS, PROTOCOL_VERSION, Message, VersionMismatch, WireError
from mesh_hotrestart.parent import ParentConversation, ParentState
from mesh_hotrestart.rendezvous import RendezvousError, connect, listen, path_inode, socket_name, unlink
from mesh_hotrestart.stream import DescriptorStream

__all__ = [
    "MAX_DESCRIPTORS",
    "PROTOCOL_VERSION",
    "REPLY_TIMEOUT_S",
    "ChildConversation",
    "ChildState",
    "DescriptorStream",
    "Link",
    "Message",
    "ParentConversation",
    "ParentState",
    "RendezvousError",
    "TakeoverRefused",
    "TruncatedDescriptors",
    "VersionMismatch",
    "WireError",
    "close_all",
    "connect",
    "listen",
    "path_inode",
    "peer_of",
    "socket_name",
    "unlink",
]
