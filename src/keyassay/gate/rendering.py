"""The configuration of HAProxy and Mosquitto for one gate, from its settings.

HAProxy ends mutual TLS, looks certificates and MQTT client ids up in maps, and passes plain MQTT on; the agent changes
the maps. Tried with HAProxy 2.6 and Mosquitto 2.0.11; what the rules rely on is said beside them.
"""

from __future__ import annotations

import getpass
import os
import re
from dataclasses import dataclass
from pathlib import Path

from keyassay.errors import KeyassayError

#: maps of a gate, by what they hold; each is a file ``<name>.map`` that HAProxy reads at its start
MAPS = ("active", "blocked", "pairs", "things", "exacts", "prefixes", "sync")

#: bytes of a unix socket's path that every system takes (sun_path holds 108 on Linux with its end)
_SOCKET_PATH = 100
#: OpenSSL's X509_V_ERR numbers of chains that lead to no known authority: the maps decide about those
_NO_CHAIN = "2,18,19,20,21"
#: client ids whose hexadecimal form matches are refused: control characters (NUL would end the id in a map's key),
#: DEL, and ``/``, ``+``, ``#``, which mean something in topics (id ``a`` would read ``devices/a/b`` of id ``a/b``)
_REFUSED_BYTES = "^(..)*(0.|1.|7f|2f|2b|23)"
#: bytes of a client id that AWS IoT takes
LONGEST_CLIENT_ID = 128
#: bytes that a command to HAProxy's socket may have, with its payload (its default)
BUFFER_SIZE = 16_384


@dataclass(frozen=True)
class GateSettings:
    """What a gate is made of.

    Attributes:
        folder: state: maps, authorities, configuration, sockets.
        server_certificate: PEM file with the broker's certificate, its chain and its key.
        listen: HOST:PORT for devices; an empty host means every address of both families.
        broker: HOST:PORT or the path of a unix socket of a broker that runs already; empty for an own Mosquitto.
        source_rate: connections in 10 s that one address may make, 0 for any number.
        stale_after: seconds without the registry after which nobody new gets in; 0 keeps the last known state.
        small_keys: let in RSA keys below 2048 bits and SHA-1 signatures (OpenSSL's security level 0).
        foreign_purpose: let in certificates whose extended key usage is not for clients.
        max_connections: at a time.
        longest_silence: seconds without a byte after which a connection is closed; 1.5 times the longest keep-alive.
    """

    folder: Path
    server_certificate: Path
    listen: tuple[str, ...] = (":8883",)
    broker: str = ""
    source_rate: int = 0
    stale_after: int = 0
    small_keys: bool = False
    foreign_purpose: bool = False
    max_connections: int = 8_000
    longest_silence: int = 2_400

    def __post_init__(self) -> None:
        """Check what would break the configuration's text or its sockets.

        Raises:
            KeyassayError: a path is too long or cannot stand in the files, or an address is none.
        """
        for path in (self.folder, self.server_certificate):
            if not path.is_absolute() or re.search(r"[^A-Za-z0-9_./+@:=-]", str(path)):
                raise KeyassayError(f"{path} cannot stand in HAProxy's configuration", "use an absolute, plain path")
        if len(os.fsencode(self.runtime_socket.with_name("longest-of-them.sock"))) > _SOCKET_PATH:
            raise KeyassayError(f"{self.folder} is too long for the sockets in it", "70 bytes are enough for everybody")
        for address in self.listen:
            _address(address)
        if self.broker and not self.broker.startswith("/"):
            _address(self.broker)

    @property
    def runtime_socket(self) -> Path:
        """HAProxy's Runtime API; as powerful as the registry's database."""
        return self.folder / "haproxy.sock"

    @property
    def master_socket(self) -> Path:
        """HAProxy's master process, which knows older workers after a reload."""
        return self.folder / "master.sock"

    @property
    def device_socket(self) -> Path:
        """Where the own Mosquitto takes devices that HAProxy let in."""
        return self.folder / "mqtt.sock"

    @property
    def private_socket(self) -> Path:
        """Where the own Mosquitto takes the registry's own publisher, with rights to every topic."""
        return self.folder / "registry.sock"

    @property
    def authorities(self) -> Path:
        """The registry's authorities with auto-registration, PEM."""
        return self.folder / "ca.pem"

    def map(self, name: str) -> Path:
        """The file of a map."""
        return self.folder / f"{name}.map"


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65_536 or re.search(r"[^A-Za-z0-9_.:\[\]-]", host):
        raise KeyassayError(f"{text} is no HOST:PORT")
    return host, int(port)


def haproxy_configuration(settings: GateSettings) -> str:
    """The text of ``haproxy.cfg``.

    Order of the rules: no certificate, blocked, unknown; stale; then the CONNECT packet: a refused client id, the
    certificate's thing, further things, *a thing's name belongs to nobody else*, exact ids, any id, prefixes.
    Map keys and values hold client ids as ``url_enc`` writes them: letters, digits and ``-._~`` stay, every other byte
    is ``%XX``; so there are no spaces in them, and a prefix stays a prefix.

    ``req.payload(0,0)`` counts as "may still change", so a negative condition on it waits for the whole inspect-delay:
    positive rules come first. All rules are ``content`` rules because rejects by ``session`` rules leave no line.
    """
    maps = {name: settings.map(name) for name in MAPS}
    ignored = _NO_CHAIN + (",26" if settings.foreign_purpose else "")
    binds = [
        f"    bind {_bind(address)} ssl crt {settings.server_certificate} alpn x-amzn-mqtt-ca,mqtt verify optional "
        f"ca-file {settings.authorities} no-ca-names crt-ignore-err {ignored} ca-ignore-err {ignored}"
        + (" ciphers DEFAULT@SECLEVEL=0" if settings.small_keys else "")
        for address in settings.listen
    ]
    rate_table = (
        "# connection rate of each source address\nbackend st_sources\n"
        "    stick-table type ipv6 size 100k expire 1m store conn_rate(10s)\n\n"
        if settings.source_rate
        else ""
    )
    rate_rules = (
        "    tcp-request connection track-sc1 src table st_sources\n"
        f"    tcp-request connection reject if {{ sc1_conn_rate gt {settings.source_rate} }}\n"
        if settings.source_rate
        else ""
    )
    stale = (
        f"""\
    tcp-request content set-var(txn.age) date,sub(txn.synced)
    tcp-request content set-var(txn.verdict) str(stale) if {{ var(txn.age) -m int gt {settings.stale_after} }}
    tcp-request content reject if {{ var(txn.age) -m int gt {settings.stale_after} }}
"""
        if settings.stale_after
        else ""
    )
    server = f"unix@{settings.device_socket}" if not settings.broker else settings.broker
    server = f"unix@{server}" if server.startswith("/") else server
    mqtt = "{ req.payload(0,0),mqtt_is_valid }"
    foreign = f"{{ var(txn.id),map_str({maps['things']}) -m found }}"
    connect = "req.payload(0,0),mqtt_field_value(connect,client_identifier)"
    return f"""\
# Written by keyassay. The maps are changed through the socket while HAProxy runs: never reload for a certificate.
global
    master-worker
    hard-stop-after 30s
    maxconn {settings.max_connections}
    stats socket {settings.runtime_socket} mode 600 level admin expose-fd listeners
    stats timeout 1m
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
    tune.ssl.cachesize 0
    tune.bufsize {BUFFER_SIZE}

ring gate
    description "keyassay gate events"
    format raw
    maxlen 16384
    size 8388608

defaults
    mode tcp
    timeout connect 5s
    timeout client {settings.longest_silence}s
    timeout server {settings.longest_silence}s
    timeout client-fin 5s
    option clitcpka
    option contstats

# a row for each live connection: <certificate id>@<address>:<port>/<client id>
backend st_conns
    stick-table type string len 520 size 200k expire 5s store gpc0,bytes_in_cnt

{rate_table}frontend mqtts
{chr(10).join(binds)}
    option logasap
    log ring@gate format raw local0
    log-format "%[date(0,ms)] %[src] %[src_port] %[var(txn.verdict)] %[var(txn.fp)] %[var(txn.shown)] %ts \
%[ssl_fc_protocol] %[ssl_c_verify] %[var(txn.der)]"
    error-log-format "%[date(0,ms)] %[src] %[src_port] handshake %[ssl_c_der,sha2(256),hex,lower] - -- \
%[ssl_fc_protocol] %[ssl_c_err] -"
{rate_rules}    tcp-request inspect-delay 5s

    # the certificate
    tcp-request content set-var(txn.fp) ssl_c_der,sha2(256),hex,lower
    tcp-request content set-var(txn.state) var(txn.fp),map_str({maps["active"]})
    tcp-request content set-var(txn.verdict) str(no-certificate) if !{{ ssl_c_used }}
    tcp-request content reject if !{{ ssl_c_used }}
    tcp-request content set-var(txn.verdict) str(inactive) if {{ var(txn.fp),map_str({maps["blocked"]}) -m found }}
    tcp-request content reject if {{ var(txn.fp),map_str({maps["blocked"]}) -m found }}
    tcp-request content set-var(txn.der) ssl_c_der,base64 if !{{ var(txn.state) -m found }} {{ ssl_c_verify 0 }}
    tcp-request content set-var(txn.verdict) str(unregistered) if !{{ var(txn.state) -m found }}
    tcp-request content reject if !{{ var(txn.state) -m found }}

    # is what the gate knows fresh? (HAProxy keeps only maps that a rule names)
    tcp-request content set-var(txn.synced) str(synced),map_str({maps["sync"]},0),add(0)
{stale}
    # the MQTT CONNECT packet
    tcp-request content set-var(txn.cid) {connect} if {mqtt}
    tcp-request content set-var(txn.id) var(txn.cid),url_enc
    tcp-request content set-var(txn.shown) str(=),concat(,txn.id) if {mqtt}
    tcp-request content set-var(txn.want) var(txn.state),bytes(2)
    tcp-request content set-var-fmt(txn.row) "%[var(txn.fp)]@%[src]:%[src_port]/%[var(txn.id)]"
    tcp-request content track-sc0 var(txn.row) table st_conns
    tcp-request content set-var(txn.verdict) str(client-id) if {mqtt}
    tcp-request content reject if {mqtt} !{{ var(txn.cid) -m found }}
    tcp-request content reject if {mqtt} {{ var(txn.cid),length eq 0 }}
    tcp-request content reject if {mqtt} {{ var(txn.cid),length gt {LONGEST_CLIENT_ID} }}
    tcp-request content reject if {mqtt} {{ var(txn.cid),hex,lower -m reg {_REFUSED_BYTES} }}
    tcp-request content set-var-fmt(txn.pair) "%[var(txn.fp)]/%[var(txn.id)]"
    tcp-request content set-var(txn.verdict) str(ok) if {mqtt}
    tcp-request content accept if {mqtt} {{ var(txn.want),strcmp(txn.id) eq 0 }}
    tcp-request content accept if {mqtt} {{ var(txn.pair),map_str({maps["pairs"]}) -m found }}
    tcp-request content set-var(txn.verdict) str(client-id) if {mqtt} {foreign}
    tcp-request content reject if {mqtt} {foreign}
    tcp-request content accept if {mqtt} {{ var(txn.pair),map_str({maps["exacts"]}) -m found }}
    tcp-request content accept if {mqtt} {{ var(txn.want) -m str * }}
    tcp-request content accept if {mqtt} {{ var(txn.pair),map_beg({maps["prefixes"]}) -m found }}
    tcp-request content set-var(txn.verdict) str(client-id) if {mqtt}
    tcp-request content set-var(txn.verdict) str(not-mqtt) if !{mqtt}
    tcp-request content reject
    default_backend broker

backend broker
    # CONNACK with return code 0: the broker took the session
    tcp-response inspect-delay 5s
    tcp-response content sc-inc-gpc0(0) if {{ res.payload(0,0),mqtt_field_value(connack,reason_code) -m str 0 }}
    server mqtt {server}
"""


def _bind(address: str) -> str:
    host, port = _address(address)
    return f"{host}:{port}" if host else f":::{port} v4v6"


def mosquitto_configuration(settings: GateSettings) -> str:
    """The text of ``mosquitto.conf``: no network at all, two unix sockets.

    The device listener takes everybody, since HAProxy has decided; the file of rights has no ``user`` lines, because
    with ``allow_anonymous`` a device may send any user name and would get that user's rights. Sockets get the mode that
    the process's umask leaves: start it with 077, as the user that HAProxy runs as.
    """
    return f"""\
# Written by keyassay.
per_listener_settings true
persistence false
log_dest stderr
log_type error
log_type warning
user {getpass.getuser()}

# devices, through HAProxy only
listener 0 {settings.device_socket}
allow_anonymous true
allow_zero_length_clientid false
acl_file {settings.folder / "mosquitto.acl"}
max_connections {settings.max_connections}

# the registry's own publisher: every topic
listener 0 {settings.private_socket}
allow_anonymous true
"""


def mosquitto_rights() -> str:
    """The text of ``mosquitto.acl``; ``%c`` is the client id, which HAProxy has just matched to the certificate."""
    return "pattern readwrite devices/%c/#\npattern readwrite $aws/things/%c/#\n"


def write_configuration(settings: GateSettings) -> list[Path]:
    """Write the files of the configuration (mode 0600) into the folder (made, mode 0700, if it is missing).

    Maps and authorities are the agent's: see ``maps.prepare``.

    Returns:
        What was written.

    Raises:
        KeyassayError: the folder cannot be written.
    """
    texts = {"haproxy.cfg": haproxy_configuration(settings)}
    if not settings.broker:
        texts |= {"mosquitto.conf": mosquitto_configuration(settings), "mosquitto.acl": mosquitto_rights()}
    written = []
    try:
        settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in texts.items():
            path = settings.folder / name
            temporary = path.with_name(name + ".new")
            temporary.write_text(text)
            temporary.chmod(0o600)
            temporary.replace(path)
            written.append(path)
    except OSError as error:
        raise KeyassayError(f"{settings.folder}: {error.strerror}") from None
    return written
