# The part of boto3 that keyassay uses; clients are made at run time from service models.
from typing import Any

class Session:
    region_name: str | None
    def __init__(self, profile_name: str | None = ...) -> None: ...
    def client(
        self,
        service_name: str,
        *,
        endpoint_url: str | None = ...,
        region_name: str | None = ...,
        config: Any = ...,
        aws_access_key_id: str | None = ...,
        aws_secret_access_key: str | None = ...,
    ) -> Any: ...
