"""Names of keys in tokens (PKCS#11), as administrators write them: ``pkcs11:`` URIs (RFC 7512), never with a PIN.

A name says which token and which key, and may say which library reaches it and which file holds the PIN. Where it does
not, ``KEYASSAY_PKCS11_MODULE`` and ``KEYASSAY_PKCS11_PIN_FILE`` or ``KEYASSAY_PKCS11_PIN`` say it, on each machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from keyassay.registry.errors import InvalidError

_SCHEME = "pkcs11:"
_LONGEST = 2_000
_PATH = ("token", "manufacturer", "model", "serial", "object", "id", "type")
_QUERY = ("module-path", "pin-source")
#: what RFC 7512 lets stand unescaped in a value of the path; and of the query, where a "/" may stand, too
_PLAIN, _PLAIN_IN_QUERY = "-._~:[]@!$'()*+,=", "-._~:[]@!$'()*+,=/"
_ESCAPED = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/?|&]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True, slots=True)
class TokenUri:
    """A token, and a key in it.

    Attributes:
        token: label of the token.
        manufacturer, model, serial: of the token, as it says them.
        object: label of the key.
        id: its CKA_ID.
        module_path: absolute path of the PKCS#11 library; "" for the one of the environment.
        pin_source: absolute path of a file with the PIN; "" for the environment.
    """

    token: str = ""
    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    object: str = ""
    id: bytes = b""
    module_path: str = ""
    pin_source: str = ""

    @classmethod
    def parse(cls, text: str) -> TokenUri:
        """Read a URI.

        Raises:
            InvalidError: it is none, names no token, carries a PIN, or asks for something that is not understood: what
                is not understood might be what tells two tokens apart.
        """
        if not text.startswith(_SCHEME) or len(text) > _LONGEST:
            raise InvalidError("a key in a token is named by a URI: 'pkcs11:token=LABEL;object=LABEL?module-path=FILE'")
        path, _, query = text[len(_SCHEME) :].partition("?")
        found: dict[str, bytes] = {}
        for part, separator, known in ((path, ";", _PATH), (query, "&", _QUERY)):
            for one in filter(None, part.split(separator)):
                name, equals, value = one.partition("=")
                if name == "pin-value":  # whose value is in no message
                    raise InvalidError("a PIN does not belong into a URI: pin-source=file:/... names a file with it")
                if name not in known:
                    raise InvalidError(f"{name[:40]!r} is not understood in a pkcs11: URI; {', '.join(known)} are")
                if name in found:
                    raise InvalidError(f"{name!r} stands twice in the pkcs11: URI")
                if not equals or _ESCAPED.fullmatch(value) is None:
                    raise InvalidError(f"the value of {name!r} is not escaped as URIs are")
                found[name] = unquote_to_bytes(value)
        if found.pop("type", b"private") != b"private":
            raise InvalidError("the pkcs11: URI names no private key: leave 'type' out")
        identifier = found.pop("id", b"")
        try:
            texts = {name.replace("-", "_"): value.decode() for name, value in found.items()}
        except UnicodeDecodeError:
            raise InvalidError("the pkcs11: URI holds something that is no UTF-8") from None
        if any("\x00" in value for value in texts.values()):
            raise InvalidError("the pkcs11: URI holds a zero byte")
        made = cls(**texts, id=identifier)
        if not (made.token or made.serial):
            raise InvalidError("the pkcs11: URI names no token: token=LABEL or serial=NUMBER does")
        if made.module_path and not made.module_path.startswith("/"):
            raise InvalidError("module-path is the absolute path of a PKCS#11 library")
        if made.pin_source:
            made = replace(made, pin_source=_file(made.pin_source))
        return made

    @property
    def place(self) -> TokenUri:
        """The token alone, and how it is reached."""
        return replace(self, object="", id=b"")

    @property
    def names_a_key(self) -> bool:
        """Whether it says which key, and not only which token."""
        return bool(self.object or self.id)

    @property
    def token_name(self) -> str:
        """How sentences call the token."""
        return repr(self.token) if self.token else f"with serial number {self.serial!r}"

    @property
    def key_name(self) -> str:
        """How sentences call the key."""
        return repr(self.object) if self.object else self.id.hex()

    def __str__(self) -> str:
        """The URI: what ``parse`` reads back as the same."""
        path = [
            f"{name}={quote(value, safe=_PLAIN)}"
            for name in ("token", "manufacturer", "model", "serial", "object")
            if (value := str(getattr(self, name)))
        ]
        if self.id:
            path.append(f"id={''.join(f'%{byte:02X}' for byte in self.id)}")
        query = []
        if self.module_path:
            query.append(f"module-path={quote(self.module_path, safe=_PLAIN_IN_QUERY)}")
        if self.pin_source:
            query.append(f"pin-source=file:{quote_from_bytes(self.pin_source.encode(), safe=_PLAIN_IN_QUERY)}")
        return _SCHEME + ";".join(path) + ("?" + "&".join(query) if query else "")


def _file(source: str) -> str:
    """The path of a pin-source: ``file:/path``, ``file:///path`` or ``/path``.

    Raises:
        InvalidError: it is something else.
    """
    path = source.removeprefix("file:")
    if path.startswith("///"):
        path = path[2:]
    if not path.startswith("/") or path.startswith("//"):
        raise InvalidError("pin-source is a file: file:/run/secrets/pin")
    return path
