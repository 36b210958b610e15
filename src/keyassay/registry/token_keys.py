"""Private keys that stay in a token (PKCS#11): the library that reaches it, sessions, and signatures by them.

Of the digest of what is signed, a token makes a signature, which leaves this module only if it holds for the public key
that was expected. ``TokenRsaKey`` and ``TokenEcKey`` stand where cryptography's builders want a private key.

A library is called by one thread of a process, since python-pkcs11 tells libraries that no other one will. So a call
that never comes back blocks no thread of a server: who waits gives up after ``ANSWER_SECONDS``, and while it lasts
others are told at once. A session that fails is opened again, and so is the library, which forgets tokens that went
away and came back; what failed is left in peace for ``PAUSE`` seconds. A PIN that was refused is not tried again:
tokens lock themselves after a few, and anybody may ask for an OCSP answer.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keyassay.certificates.der import OCTET_STRING, SEQUENCE, element, oid_element
from keyassay.registry.errors import InvalidError, SigningUnavailableError
from keyassay.registry.token_uri import TokenUri

if TYPE_CHECKING:
    from pkcs11 import Session
    from pkcs11._pkcs11 import lib

T = TypeVar("T")

#: seconds that a caller waits for a token
ANSWER_SECONDS = 10.0
#: seconds for which what has just failed is not tried again
PAUSE = 2.0
#: seconds before each fresh start of a library, and between two rounds of them; several, since SoftHSM overlooks its
#: tokens if another process logs in just then
AGAIN, RESTART = (0.0, 0.1, 0.3, 0.9), 10.0

_LONGEST_PIN = 4_096
_SHA256 = element(SEQUENCE, oid_element("2.16.840.1.101.3.4.2.1"), b"\x05\x00")
#: PINs that were refused are remembered by a digest under this
_SALT = secrets.token_bytes(32)


class WrongKeyError(SigningUnavailableError):
    """The key in the token is not the one that was expected: its signatures do not hold."""


PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class _Library:
    """A PKCS#11 library in this process, and the one thread that calls it.

    Args:
        path: of the library.
        inherited: what a fork copied of it from the parent process.
    """

    def __init__(self, path: str, inherited: lib | None = None) -> None:
        self._path = path
        self._inherited = inherited
        self._lib: lib | None = None
        self._began: float | None = None
        self._restarted = -RESTART
        self._sessions: dict[TokenUri, Session] = {}
        self._keys: dict[TokenUri, Any] = {}
        self._paused: dict[TokenUri, tuple[float, str]] = {}
        self._refused: set[tuple[TokenUri, bytes]] = set()
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="token", daemon=True).start()

    @property
    def copied(self) -> lib | None:
        """What a child process gets of it by a fork."""
        return self._lib or self._inherited

    # On any thread

    def call(self, uri: TokenUri, work: Callable[[Session], T], *, writes: bool = False) -> T:
        """Do something in a session, on the library's thread.

        Args:
            uri: of the token, or of a key in it.
            work: what; it may be called again, with another session.
            writes: the session has to be one for changes.

        Raises:
            SigningUnavailableError: the token cannot be used.
        """
        silent = f"the token {uri.token_name} does not answer"
        began = self._began
        if began is not None and time.monotonic() - began > ANSWER_SECONDS:
            raise SigningUnavailableError(silent)
        future: Future[T] = Future()
        self._jobs.put((future, lambda: self._perform(uri, work, writes=writes)))
        try:
            return future.result(ANSWER_SECONDS)
        except TimeoutError:
            future.cancel()
            raise SigningUnavailableError(silent) from None

    def key(self, session: Session, uri: TokenUri) -> Any:
        """The private key of a URI; for ``work``."""
        found = self._keys.get(uri)
        if found is None or found.session is not session:
            found = self._keys[uri] = _find(session, uri, "PRIVATE_KEY")
        return found

    # On its own thread

    def _work(self) -> None:
        while True:
            future, job = self._jobs.get()
            if not future.set_running_or_notify_cancel():
                continue
            self._began = time.monotonic()
            try:
                future.set_result(job())
            except BaseException as error:  # noqa: BLE001  it belongs to who waits, and the thread goes on
                future.set_exception(error)
            self._began = None
            del future, job

    def _perform(self, uri: TokenUri, work: Callable[[Session], T], *, writes: bool) -> T:
        until, problem = self._paused.get(uri, (0.0, ""))
        if time.monotonic() < until:
            raise SigningUnavailableError(problem)
        pkcs11 = _pkcs11()
        place = uri.place
        session = self._sessions.get(place)
        if session is not None and (session.rw or not writes):
            with suppress(pkcs11.PKCS11Error):
                return work(session)
        pauses: tuple[float, ...] = ()
        if self._lib is None or time.monotonic() - self._restarted >= RESTART:
            pauses = AGAIN
        try:
            for pause in (None, *pauses):
                self._drop(place)
                try:
                    if pause is not None:
                        time.sleep(pause)
                        self._restart()
                    return work(self._open(place, writes=writes))
                except pkcs11.PKCS11Error as error:
                    problem = self._problem(uri, error)
                    if isinstance(error, _lasting()):
                        break
        except SigningUnavailableError as error:
            problem = error.message
        self._drop(place)
        self._paused[uri] = time.monotonic() + PAUSE, problem
        raise SigningUnavailableError(problem)

    def _open(self, place: TokenUri, *, writes: bool) -> Session:
        """A session in which the user is logged in."""
        pkcs11 = _pkcs11()
        found = [
            one
            for one in self._loaded().get_tokens(token_label=place.token or None)
            if (not place.serial or one.serial.decode("ascii", "replace").strip() == place.serial)
            and (not place.model or one.model == place.model)
            and (not place.manufacturer or one.manufacturer_id == place.manufacturer)
        ]
        if len(found) != 1:
            raise pkcs11.NoSuchToken if not found else pkcs11.MultipleTokensReturned
        pin = _pin(place)
        digest = hmac.digest(_SALT, pin.encode(), "sha256")
        if (place, digest) in self._refused:
            raise SigningUnavailableError(_refusal(place))
        try:
            session = found[0].open(rw=writes, user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:  # by another session of this process
            session = found[0].open(rw=writes)
        except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange):
            self._refused.add((place, digest))
            raise
        self._sessions[place] = session
        return session

    def _loaded(self) -> lib:
        from pkcs11 import PKCS11Error, _pkcs11  # noqa: PLC0415  an extra

        if self._lib is None:
            try:
                self._lib = _pkcs11.lib(self._path)
            except PKCS11Error as error:
                if self._inherited is None and type(error) is PKCS11Error:  # what PKCS#11 itself answers has a class
                    raise SigningUnavailableError(
                        f"the PKCS#11 library {Path(self._path).name!r} cannot be loaded"
                    ) from None
                if self._inherited is None:
                    raise
                self._lib = self._inherited
                self._start()
        self._lib.initialize()  # does nothing where it runs
        return self._lib

    def _restart(self) -> None:
        """Let the library look for its tokens anew."""
        self._restarted = time.monotonic()
        self._sessions.clear()
        self._keys.clear()
        if self._lib is not None:
            self._start()

    def _start(self) -> None:
        assert self._lib is not None
        with suppress(_pkcs11().PKCS11Error):  # it may not run, or not in this process
            self._lib.finalize()
        self._lib.initialize()

    def _drop(self, place: TokenUri) -> None:
        session = self._sessions.pop(place, None)
        if session is not None:
            self._keys = {uri: key for uri, key in self._keys.items() if key.session is not session}
            with suppress(_pkcs11().PKCS11Error):
                session.close()

    def _problem(self, uri: TokenUri, error: Exception) -> str:
        """A sentence about what a token answered, without secrets and paths."""
        name = type(error).__name__
        token = f"the token {uri.token_name}"
        if name in ("NoSuchToken", "TokenNotPresent", "TokenNotRecognised", "DeviceRemoved", "SlotIDInvalid"):
            return f"{token} is not there"
        if name == "MultipleTokensReturned":
            return f"there are several tokens {uri.token_name}: serial= tells them apart"
        if name == "NoSuchKey":
            return f"{token} has no private key {uri.key_name}"
        if name == "MultipleObjectsReturned":
            return f"{token} has several private keys {uri.key_name}: id= tells them apart"
        if name in ("PinIncorrect", "PinInvalid", "PinLenRange"):
            return _refusal(uri)
        if name in ("PinLocked", "PinExpired", "UserPinNotInitialized"):
            return f"{token} lets nobody in ({name})"
        return f"{token} answers with an error ({name})"


def _refusal(uri: TokenUri) -> str:
    return f"the token {uri.token_name} refuses the PIN, which is not tried again before it is another one"


def _lasting() -> tuple[type[Exception], ...]:
    """What a fresh start of the library does not change."""
    pkcs11 = _pkcs11()
    return (
        pkcs11.PinIncorrect,
        pkcs11.PinInvalid,
        pkcs11.PinLenRange,
        pkcs11.PinLocked,
        pkcs11.PinExpired,
        pkcs11.UserPinNotInitialized,
        pkcs11.MultipleTokensReturned,
        pkcs11.MultipleObjectsReturned,
    )


def _pkcs11() -> Any:
    """The library python-pkcs11.

    Raises:
        SigningUnavailableError: it is not installed.
    """
    try:
        import pkcs11  # noqa: PLC0415  an extra
    except ModuleNotFoundError:
        raise SigningUnavailableError(
            "the key is in a token, and what speaks to tokens is missing: install keyassay[pkcs11]"
        ) from None
    return pkcs11


def _pin(uri: TokenUri) -> str:
    """The PIN of a token, read anew each time.

    Raises:
        SigningUnavailableError: there is none, or others may read its file.
    """
    source = uri.pin_source or os.environ.get("KEYASSAY_PKCS11_PIN_FILE", "")
    if not source:
        pin = os.environ.get("KEYASSAY_PKCS11_PIN", "")
        if not pin:
            raise SigningUnavailableError(
                f"there is no PIN for the token {uri.token_name}: pin-source= in its URI, KEYASSAY_PKCS11_PIN_FILE or "
                "KEYASSAY_PKCS11_PIN gives it"
            )
        if any("\ud800" <= character <= "\udfff" for character in pin):
            raise SigningUnavailableError("KEYASSAY_PKCS11_PIN holds something that is no text")
        return pin
    try:
        with Path(source).open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            pin = stream.read(_LONGEST_PIN).split(b"\n")[0].rstrip(b"\r").decode()
    except OSError as error:
        raise SigningUnavailableError(f"the PIN's file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SigningUnavailableError("the PIN's file holds something that is no text") from None
    if mode & 0o027:  # service managers give a secret to a group of one
        raise SigningUnavailableError("others may read the PIN's file: chmod 600")
    if not pin:
        raise SigningUnavailableError("the PIN's file is empty")
    return pin


_lock = threading.Lock()
_libraries: dict[str, _Library] = {}
#: kept, so that nobody finalizes them in a child process, whose parent goes on with them
_inherited: dict[str, lib] = {}


def _library(uri: TokenUri) -> _Library:
    """The library that reaches a token, loaded at the first asking.

    Raises:
        SigningUnavailableError: nobody says which it is.
    """
    path = uri.module_path or os.environ.get("KEYASSAY_PKCS11_MODULE", "")
    if not path:
        raise SigningUnavailableError(
            f"nothing says which library reaches the token {uri.token_name}: module-path= in its URI or "
            "KEYASSAY_PKCS11_MODULE does"
        )
    _pkcs11()
    with _lock:
        if path not in _libraries:
            _libraries[path] = _Library(path, _inherited.get(path))
        return _libraries[path]


def _forked() -> None:
    """A child process has neither the threads nor the sessions of its parent: it begins anew."""
    global _lock, _libraries
    _inherited.update({path: one.copied for path, one in _libraries.items() if one.copied is not None})
    _lock, _libraries = threading.Lock(), {}


os.register_at_fork(after_in_child=_forked)


def _find(session: Session, uri: TokenUri, kind: str) -> Any:
    """A key object.

    Raises:
        NoSuchKey, MultipleObjectsReturned: of the library.
    """
    pkcs11 = _pkcs11()
    wanted: dict[Any, Any] = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass[kind]}
    if uri.object:
        wanted[pkcs11.Attribute.LABEL] = uri.object
    if uri.id:
        wanted[pkcs11.Attribute.ID] = uri.id
    found = list(session.get_objects(wanted))  # to the end: a search that is left open would end on another thread
    if len(found) != 1:
        raise pkcs11.NoSuchKey if not found else pkcs11.MultipleObjectsReturned
    return found[0]


# Keys as cryptography knows them


class _TokenKey:
    """A private key in a token.

    Args:
        uri: which.
        public_key: its public half, for which its signatures have to hold.
    """

    def __init__(self, uri: TokenUri, public_key: Any) -> None:
        self._uri = uri
        self._public_key = public_key

    def public_key(self) -> Any:
        """Its public half."""
        return self._public_key

    @property
    def key_size(self) -> int:
        """Bits."""
        return int(self._public_key.key_size)

    def _raw(self, mechanism: str, data: bytes) -> bytes:
        library, mechanisms = _library(self._uri), _pkcs11().Mechanism

        def work(session: Session) -> bytes:
            return bytes(library.key(session, self._uri).sign(data, mechanism=mechanisms[mechanism]))

        return library.call(self._uri, work)

    def _refuse(self) -> NoReturn:
        raise WrongKeyError(f"the token {self._uri.token_name} signs with a key that is not the expected one") from None

    def private_numbers(self) -> NoReturn:
        """Stay in the token.

        Raises:
            UnsupportedAlgorithm: always.
        """
        raise UnsupportedAlgorithm("the private key does not leave its token")

    def private_bytes(self, *_: object) -> NoReturn:
        """Stay in the token.

        Raises:
            UnsupportedAlgorithm: always.
        """
        raise UnsupportedAlgorithm("the private key does not leave its token")


class TokenRsaKey(_TokenKey):
    """An RSA key in a token; signs by PKCS #1 v1.5 with SHA-256."""

    def sign(self, data: bytes, scheme: object, algorithm: object) -> bytes:
        """A signature that holds.

        Raises:
            UnsupportedAlgorithm: another padding or hash.
            SigningUnavailableError: the token cannot be used, or signs wrongly.
        """
        if not isinstance(scheme, padding.PKCS1v15) or not isinstance(algorithm, hashes.SHA256):
            raise UnsupportedAlgorithm("keys in tokens sign by PKCS #1 v1.5 with SHA-256")
        digest = element(SEQUENCE, _SHA256, element(OCTET_STRING, hashlib.sha256(data).digest()))
        signature = self._raw("RSA_PKCS", digest)
        try:
            self._public_key.verify(signature, data, scheme, algorithm)
        except InvalidSignature:
            self._refuse()
        return signature


class TokenEcKey(_TokenKey):
    """A key on a curve in a token; signs by ECDSA with SHA-256."""

    @property
    def curve(self) -> ec.EllipticCurve:
        """Its curve."""
        found: ec.EllipticCurve = self._public_key.curve
        return found

    def sign(self, data: bytes, scheme: object) -> bytes:
        """A signature that holds, in DER.

        Raises:
            UnsupportedAlgorithm: another hash.
            SigningUnavailableError: the token cannot be used, or signs wrongly.
        """
        if not isinstance(scheme, ec.ECDSA) or not isinstance(scheme.algorithm, hashes.SHA256):
            raise UnsupportedAlgorithm("keys in tokens sign by ECDSA with SHA-256")
        raw = self._raw("ECDSA", hashlib.sha256(data).digest())
        half = len(raw) // 2
        signature = encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
        try:
            self._public_key.verify(signature, data, scheme)
        except InvalidSignature:
            self._refuse()
        return signature


# by name: subclasses would have to follow whatever later versions of the library declare abstract
rsa.RSAPrivateKey.register(TokenRsaKey)
ec.EllipticCurvePrivateKey.register(TokenEcKey)


def key_of(uri: TokenUri, public_key: object) -> Any:
    """A private key in a token, for whoever takes cryptography's RSAPrivateKey or EllipticCurvePrivateKey.

    The token is asked at the first signature.

    Args:
        uri: which key.
        public_key: its public half.

    Raises:
        InvalidError: it is neither RSA nor on a curve.
    """
    if isinstance(public_key, rsa.RSAPublicKey):
        return TokenRsaKey(uri, public_key)
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return TokenEcKey(uri, public_key)
    raise InvalidError("the private key of an authority is RSA or on a curve")


def identify(uri: TokenUri) -> TokenUri | None:
    """The URI of a private key in a token with both its label and its id; None if there is no such key.

    Raises:
        SigningUnavailableError: the token cannot be used, or has several such keys.
    """
    library, pkcs11 = _library(uri), _pkcs11()

    def work(session: Session) -> TokenUri | None:
        try:
            private = _find(session, uri, "PRIVATE_KEY")
        except pkcs11.NoSuchKey:
            return None
        return replace(uri, object=private.label, id=private.id)

    return library.call(uri, work)


def public_half(uri: TokenUri) -> PublicKey:
    """The public half of a private key in a token.

    Raises:
        InvalidError: the token does not tell it, or it is neither RSA nor on a curve that is known.
        SigningUnavailableError: the token cannot be used.
    """
    library, pkcs11 = _library(uri), _pkcs11()

    def work(session: Session) -> bytes | rsa.RSAPublicNumbers:
        private = library.key(session, uri)
        if private.key_type is pkcs11.KeyType.RSA:
            exponent, modulus = private[pkcs11.Attribute.PUBLIC_EXPONENT], private[pkcs11.Attribute.MODULUS]
            return rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big"))
        try:
            return bytes(pkcs11.util.ec.encode_ec_public_key(_find(session, uri, "PUBLIC_KEY")))
        except (pkcs11.PKCS11Error, ValueError):
            return b""

    found = library.call(uri, work)
    try:
        key = found.public_key() if isinstance(found, rsa.RSAPublicNumbers) else load_der_public_key(found)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
        raise InvalidError(
            f"the token {uri.token_name} does not tell the public half of its key {uri.key_name}, or it is neither RSA "
            "nor on a curve that is known"
        )
    return key


def make_pair(uri: TokenUri, label: str) -> tuple[TokenUri, ec.EllipticCurvePublicKey]:
    """Make a pair of keys on P-256 in a token; the private one cannot leave it.

    Args:
        uri: which token, and the label and id of the keys if it names them.
        label: of the keys if the URI names none.

    Returns:
        The URI of the key, with label and id; and its public half.

    Raises:
        InvalidError: the token keeps private keys so that they can be read.
        SigningUnavailableError: the token cannot be used.
    """
    library, pkcs11 = _library(uri), _pkcs11()
    attribute, capability = pkcs11.Attribute, pkcs11.MechanismFlag
    named = replace(uri, object=uri.object or label, id=uri.id or secrets.token_bytes(16))

    def work(session: Session) -> tuple[bytes, bool]:
        curve = {attribute.EC_PARAMS: pkcs11.util.ec.encode_named_curve_parameters("secp256r1")}
        parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
        public, private = parameters.generate_keypair(
            id=named.id,
            label=named.object,
            store=True,
            capabilities=capability.SIGN | capability.VERIFY,
            private_template={attribute.SENSITIVE: True, attribute.EXTRACTABLE: False},
        )
        is_kept = bool(private[attribute.SENSITIVE] and not private[attribute.EXTRACTABLE])
        return pkcs11.util.ec.encode_ec_public_key(public), is_kept

    spki, is_kept = library.call(uri, work, writes=True)
    if not is_kept:
        raise InvalidError(f"the token {uri.token_name} keeps private keys so that they can be read")
    key = load_der_public_key(spki)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return named, key


def can_leave(uri: TokenUri) -> bool:
    """Whether the token would hand a private key out, wrapped or in the clear.

    Raises:
        SigningUnavailableError: the token cannot be used.
    """
    library, attribute = _library(uri), _pkcs11().Attribute

    def work(session: Session) -> bool:
        key = library.key(session, uri)
        return bool(key[attribute.EXTRACTABLE] or not key[attribute.SENSITIVE])

    return library.call(uri, work)
