"""A worker process: the loop that drives one data plane. Nothing here or below imports protobuf, yaml or grpc."""
