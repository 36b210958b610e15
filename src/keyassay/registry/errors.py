"""What the registry refuses, each with a sentence for the caller; ``keyassay.aws.errors`` gives them AWS's names."""

from __future__ import annotations


class RegistryError(Exception):
    """Something was asked that cannot be; nothing has changed.

    Args:
        message: one sentence for the caller, without secrets.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidError(RegistryError):
    """The request contradicts itself or a rule."""


class NotFoundError(RegistryError):
    """There is no such resource in this account."""


class AlreadyExistsError(RegistryError):
    """The name or the certificate is taken.

    Args:
        message: one sentence.
        resource_id: certificate id, or name.
        resource_arn: of what is there.
    """

    def __init__(self, message: str, resource_id: str = "", resource_arn: str = "") -> None:
        super().__init__(message)
        self.resource_id = resource_id
        self.resource_arn = resource_arn


class CertificateStateError(RegistryError):
    """The status of the certificate does not allow it."""


class CertificateValidationError(RegistryError):
    """The certificate does not hold: signature, validity, key, form."""


class BrokenKeyError(CertificateValidationError):
    """Screening refuses the certificate: others can compute its private key, or have it."""


class CertificateConflictError(RegistryError):
    """Several registered authorities could have signed the certificate."""


class RegistrationCodeError(RegistryError):
    """The verification certificate does not carry the account's registration code."""


class TransferConflictError(RegistryError):
    """What is attached to the certificate hinders its transfer."""


class TransferCompletedError(RegistryError):
    """The transfer has been accepted already."""


class DeleteConflictError(RegistryError):
    """Something is still attached."""


class VersionConflictError(RegistryError):
    """The resource has another version than expected."""


class VersionsLimitError(RegistryError):
    """No further version of the policy fits."""


class LimitError(RegistryError):
    """A quota is used up."""


class MalformedPolicyError(RegistryError):
    """The document is no policy."""


class TaskExistsError(RegistryError):
    """A task of that id is there, with other contents."""


class NotConfiguredError(RegistryError):
    """Nothing has been set yet."""


class SigningUnavailableError(RegistryError):
    """A key that stays in a token cannot be used now: the token is away, refuses the PIN, or answers with an error."""
