"""Dubbo 2: frames, lazy views of calls, edits of attachments, and the replies that a proxy makes itself."""

from mesh_codecs.dubbo.body import Attachments
from mesh_codecs.dubbo.codec import DubboCodec, DubboEvent, MessageTooLarge
from mesh_codecs.dubbo.frame import (
    answer_heartbeat,
    build_frame,
    heartbeat_request,
    heartbeat_response,
    readonly_event,
    with_id,
    writeable_event,
)
from mesh_codecs.dubbo.invocation import InvocationHead
from mesh_codecs.dubbo.memo import Counters, HeadMemo
from mesh_codecs.dubbo.message import DubboMessage
from mesh_codecs.dubbo.replies import Refusal, error_response, exception_response, null_response, refuse

__all__ = [
    "Attachments",
    "Counters",
    "DubboCodec",
    "DubboEvent",
    "DubboMessage",
    "HeadMemo",
    "InvocationHead",
    "MessageTooLarge",
    "Refusal",
    "answer_heartbeat",
    "build_frame",
    "error_response",
    "exception_response",
    "heartbeat_request",
    "heartbeat_response",
    "null_response",
    "readonly_event",
    "refuse",
    "with_id",
    "writeable_event",
]
