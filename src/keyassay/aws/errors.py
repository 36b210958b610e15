"""From what went wrong to what AWS's clients expect: one table from domain errors to AWS's codes.

Domain modules raise their own exceptions with a ``message`` for people; ``TRANSLATIONS`` says which AWS code each
one means, ``translate`` does it. The HTTP status comes from the service model; codes that are not in the model
(signatures, serialization) have theirs in ``STATUS``.

An operation may also raise ``ServiceError`` itself, where the protocol and not the domain is at fault.
"""

from __future__ import annotations

from typing import Any

from keyassay.registry import errors
from keyassay.storage.database import BusyError

#: HTTP status of codes that AWS answers but that the service model does not list.
STATUS = {
    "AccessDeniedException": 403,
    "IncompleteSignatureException": 403,
    "InvalidSignatureException": 403,
    "MissingAuthenticationTokenException": 403,
    "NotImplementedException": 501,
    "RequestEntityTooLargeException": 413,
    "RequestTimeoutException": 408,
    "SerializationException": 400,
    "UnknownOperationException": 404,
    "UnrecognizedClientException": 403,
}

#: Domain error -> AWS code. A subclass that is not listed itself means what its nearest listed base means.
TRANSLATIONS: dict[type[Exception], str] = {
    errors.InvalidError: "InvalidRequestException",
    errors.NotFoundError: "ResourceNotFoundException",
    errors.AlreadyExistsError: "ResourceAlreadyExistsException",
    errors.CertificateStateError: "CertificateStateException",
    errors.CertificateValidationError: "CertificateValidationException",
    errors.CertificateConflictError: "CertificateConflictException",
    errors.RegistrationCodeError: "RegistrationCodeValidationException",
    errors.TransferConflictError: "TransferConflictException",
    errors.TransferCompletedError: "TransferAlreadyCompletedException",
    errors.DeleteConflictError: "DeleteConflictException",
    errors.VersionConflictError: "VersionConflictException",
    errors.VersionsLimitError: "VersionsLimitExceededException",
    errors.LimitError: "LimitExceededException",
    errors.MalformedPolicyError: "MalformedPolicyException",
    errors.TaskExistsError: "TaskAlreadyExistsException",
    errors.NotConfiguredError: "NotConfiguredException",
    errors.SigningUnavailableError: "ServiceUnavailableException",
    BusyError: "ServiceUnavailableException",
}


class ServiceError(Exception):
    """An answer that is an error.

    Args:
        code: AWS's name of it, such as ``ResourceNotFoundException``.
        message: a sentence for people; never empty, never a secret.
        members: further members of the body, such as ``resourceId``; None is left out.
    """

    def __init__(self, code: str, message: str, **members: str | None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message or code
        self.members = {name: value for name, value in members.items() if value is not None}


def translate(error: Exception) -> ServiceError | None:
    """The AWS error that an exception means, or None if it means none: then it is our mistake.

    A domain error for a resource that exists already carries ``resource_id`` and ``resource_arn``.
    """
    if isinstance(error, ServiceError):
        return error
    for kind in type(error).__mro__:
        code = TRANSLATIONS.get(kind)
        if code:
            message: Any = getattr(error, "message", None) or str(error)
            members = {"resourceId": getattr(error, "resource_id", None) or None}
            members["resourceArn"] = getattr(error, "resource_arn", None) or None
            return ServiceError(code, str(message), **members)
    return None
