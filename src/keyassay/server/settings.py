"""What an operator may set for a server, checked before anything starts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keyassay.errors import KeyassayError
from keyassay.lists.lookup import data_folder

DEFAULT_LISTEN = "127.0.0.1:8443"
DEFAULT_REGION = "us-east-1"
SCREENING = ("off", "report", "refuse")
AUDIT_PROFILES = ("aws", "fast", "standard", "deep")
AUDIT_LEVELS = ("broken", "weak", "notice")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """``127.0.0.1:8443``, ``[::1]:8443`` or ``localhost:8443``; port 0 takes a free one.

        Raises:
            KeyassayError: it is none.
        """
        found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]\s]+)):(\d{1,5})", text)
        if found is None or int(found[3]) > 65_535:
            raise KeyassayError(f"{text!r} is no address to listen on", "127.0.0.1:8443 and [::1]:8443 are")
        return cls(found[1] or found[2], int(found[3]))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
        database: address; empty for a SQLite file in the user's data folder.
        listen: where the API listens.
        tls_certificate, tls_key: PEM files, both or none; without them only loopback is listened on.
        region: in signatures and ARNs.
        endpoint: the host name that DescribeEndpoint tells devices; empty for the first address.
        key_file: where the key that seals secrets is; empty for ``keyassay.key`` beside the SQLite file.
        key_command: prints that key instead.
        insecure_no_auth: take everybody for the first account's administrator; loopback only.
        metrics: where Prometheus reads, loopback only; None for nowhere.
        screening: what happens to broken keys at registration: off, report, refuse.
        activate_broken: devices that registered themselves may be activated though their keys are broken.
        workers: threads that do audits; with 0 a server does no work of its own (``keyassay worker`` does).
        audit_profile: how much work a key is worth in audits: aws, fast, standard, deep.
        audit_budget: CPU seconds that profile deep spends on each different key; 0 for the default.
        audit_level: the mildest weakness that makes a certificate noncompliant: broken, weak, notice.
        audit_hour: when scheduled audits run, UTC.
        fleet_store: folder for the keys that were compared with each other; None for ``fleet`` beside the SQLite file.
        fleet_across_accounts: audits compare keys with those of all accounts; no account learns more of the others.
        publish_to: topics and webhooks that messages may go to, with ``ACCOUNT=`` before those of one account.
        webhook_secrets: file with a line for each webhook: its address and its secret.
        issuing_hook: command that has new certificates of replacements issued by an external authority; empty for none.
        crl_hosts: names and addresses that revocation lists may be fetched from; a private address only if it is here.
        public_url: where devices find lists and answers about what the registry issues; stands in its certificates.
        public_listen: where revocation lists and OCSP, and nothing else, are answered by plain HTTP.
        public_rate: requests a second for those that one source may keep up; 0 for no limit.
        crl_hours: hours between two revocation lists of an authority without a revocation.
        crl_hold: certificates that are not active are on hold in lists and answers, not only revoked ones revoked.
        threads: that answer requests.
        connections: at most, at once.
        rate_limit: requests a second that an account may keep up, on each server; 0 for no limit.
        log_format: "json" or "text".
    """

    database: str = ""
    listen: tuple[Address, ...] = (Address("127.0.0.1", 8443),)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    region: str = DEFAULT_REGION
    endpoint: str = ""
    key_file: Path | None = None
    key_command: str = ""
    insecure_no_auth: bool = False
    metrics: Address | None = None
    screening: str = "report"
    activate_broken: bool = False
    workers: int = 1
    audit_profile: str = "standard"
    audit_budget: float = 0.0
    audit_level: str = "broken"
    audit_hour: int = 2
    fleet_store: Path | None = None
    fleet_across_accounts: bool = False
    publish_to: tuple[str, ...] = ()
    webhook_secrets: Path | None = None
    issuing_hook: str = ""
    crl_hosts: tuple[str, ...] = ()
    public_url: str = ""
    public_listen: tuple[Address, ...] = ()
    public_rate: float = 200
    crl_hours: float = 6.0
    crl_hold: bool = False
    threads: int = 16
    connections: int = 1_000
    rate_limit: float = 2_000
    log_format: str = "json"
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise KeyassayError("TLS needs both a certificate and its key", "give --tls-cert and --tls-key")
        for address in self.listen:
            if address.is_loopback:
                continue
            if self.insecure_no_auth:
                raise KeyassayError(f"without authentication nobody may listen on {address}", "127.0.0.1 is possible")
            if self.tls_certificate is None:
                raise KeyassayError(
                    f"{address} can be reached from outside, which needs TLS",
                    "give --tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy that has them",
                )
        if self.metrics is not None and not self.metrics.is_loopback:
            raise KeyassayError(f"counters are shown on loopback only, not on {self.metrics}")
        if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d{1,2}", self.region):
            raise KeyassayError(f"{self.region!r} is no region", "us-east-1 is one")
        if self.screening not in SCREENING:
            raise KeyassayError(f"screening is one of {', '.join(SCREENING)}")
        if self.audit_profile not in AUDIT_PROFILES:
            raise KeyassayError(f"the profile of audits is one of {', '.join(AUDIT_PROFILES)}")
        if self.audit_budget < 0 or (self.audit_budget and self.audit_profile != "deep"):
            raise KeyassayError("a budget for audits is for profile deep", "add --audit-profile deep")
        if self.audit_level not in AUDIT_LEVELS:
            raise KeyassayError(f"the level of audits is one of {', '.join(AUDIT_LEVELS)}")
        for host in self.crl_hosts:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}|[0-9a-fA-F:.]{2,45}", host):
                raise KeyassayError(
                    f"{host!r} is no host", "crl.example.com and 192.0.2.1 are, without http:// and port"
                )
        if self.public_url and not re.fullmatch(r"https?://[A-Za-z0-9\[][!-~]{0,1000}", self.public_url):
            raise KeyassayError(f"{self.public_url!r} is no address", "http://pki.example.com is one")
        if not 0 < self.crl_hours <= 48:  # lists are good for seven days
            raise KeyassayError("revocation lists are signed every 48 hours, or more often")
        if not 0 <= self.audit_hour <= 23:
            raise KeyassayError("the hour of audits is one of 0 to 23")

    @property
    def database_url(self) -> str:
        """The address of the database, with the default filled in."""
        return self.database or f"sqlite:///{data_folder() / 'registry.db'}"

    @property
    def sealing_key_file(self) -> Path:
        """The file of the sealing key, with the default filled in."""
        if self.key_file is not None:
            return self.key_file
        url = self.database_url
        if url.startswith("sqlite:///"):
            return Path(url.removeprefix("sqlite:///")).parent / "keyassay.key"
        return data_folder() / "keyassay.key"

    @property
    def fleet_folder(self) -> Path:
        """Where the keys that were compared are, with the default filled in."""
        if self.fleet_store is not None:
            return self.fleet_store
        url = self.database_url
        return (
            Path(url.removeprefix("sqlite:///")).parent if url.startswith("sqlite:///") else data_folder()
        ) / "fleet"

    @property
    def endpoint_name(self) -> str:
        """What DescribeEndpoint answers."""
        return self.endpoint or str(self.listen[0])
