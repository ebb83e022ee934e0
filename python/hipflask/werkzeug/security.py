"""Hash passwords and keep paths inside a directory.

The hashes have Werkzeug's format, `method$salt$hex`, so that a database of users can be taken along in either
direction. Does not encrypt anything, and does not look at the file system.

Implements: werkzeug.security (3.1); RFC 7914 scrypt; RFC 8018 §5.2 PBKDF2.
"""

from __future__ import annotations

import os
import posixpath

SALT_CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
DEFAULT_PBKDF2_ITERATIONS = 1_000_000

#: Separators other than the slash, which a URL may contain but the file system would obey.
_os_alt_seps: list[str] = [sep for sep in (os.sep, os.altsep) if sep is not None and sep != "/"]

#: Names that Windows takes for a device in every directory and with every extension.
_windows_device_files = {
    "AUX",
    "CON",
    "CONIN$",
    "CONOUT$",
    "NUL",
    "PRN",
    *(device + digit for device in ("COM", "LPT") for digit in "123456789¹²³"),
}


def gen_salt(length: int) -> str:
    """A random string of letters and digits.

    Raises:
        ValueError: If the length is not positive.
    """
    import secrets

    if length <= 0:
        raise ValueError("Salt length must be at least 1.")
    return "".join(secrets.choice(SALT_CHARS) for _ in range(length))


def generate_password_hash(password: str, method: str = "scrypt", salt_length: int = 16) -> str:
    """Hash a password for storage.

    Args:
        password: The password as the user typed it.
        method: `scrypt[:n:r:p]` or `pbkdf2[:hash[:iterations]]`; what is left out takes its default.
        salt_length: How many characters of salt to draw.

    Returns:
        Method with all parameters, salt and digest, separated by `$`.

    Raises:
        ValueError: If the method is unknown or has wrong parameters.
    """
    salt = gen_salt(salt_length)
    digest, full_method = _hash_internal(method, salt, password)
    return f"{full_method}${salt}${digest}"


def check_password_hash(pwhash: str, password: str) -> bool:
    """Whether a password is the one that was hashed, compared in constant time.

    Args:
        pwhash: A hash from `generate_password_hash`. Anything without two `$` never matches.
        password: The password to check.

    Raises:
        ValueError: If the hash names an unknown method.
    """
    import hmac

    parts = pwhash.split("$", 2)
    if len(parts) != 3:
        return False
    method, salt, expected = parts
    return hmac.compare_digest(_hash_internal(method, salt, password)[0], expected)


def safe_join(directory: str, *untrusted: str) -> str | None:
    """Join path parts from a URL to a trusted directory without leaving it.

    Looks at the text only: a symbolic link below the directory may still lead out of it.

    Args:
        directory: The trusted directory; empty means the current one.
        untrusted: Parts with `/` as their only separator.

    Returns:
        The joined path, or None if it would leave the directory.
    """
    # An empty directory would let the first untrusted part decide where the path begins.
    joined = [directory or "."]
    for part in untrusted:
        if part:
            part = posixpath.normpath(part)
            if _escapes(part):
                return None
            joined.append(part)
    return posixpath.join(*joined)


def _escapes(part: str) -> bool:
    """Whether a normalised part is absolute, climbs, or means something special to the operating system."""
    if part == ".." or part.startswith(("/", "../")) or os.path.isabs(part):
        return True
    if any(sep in part for sep in _os_alt_seps):
        return True
    return os.name == "nt" and any(
        name.partition(".")[0].strip().upper() in _windows_device_files for name in part.split("/")
    )


def _hash_internal(method: str, salt: str, password: str) -> tuple[str, str]:
    """The hex digest, and the method with its defaults filled in."""
    import hashlib

    name, *args = method.split(":")
    if name == "scrypt":
        try:
            n, r, p = map(int, args) if args else (2**15, 8, 1)
        except ValueError:
            raise ValueError("'scrypt' takes 3 arguments.") from None
        # RFC 7914 needs 128 bytes per block; OpenSSL counts some of its own on top.
        digest = hashlib.scrypt(password.encode(), salt=salt.encode(), n=n, r=r, p=p, maxmem=132 * n * r * p)
        return digest.hex(), f"scrypt:{n}:{r}:{p}"

    if name == "pbkdf2":
        if len(args) > 2:
            raise ValueError("'pbkdf2' takes 2 arguments.")
        hash_name = args[0] if args else "sha256"
        iterations = int(args[1]) if len(args) == 2 else DEFAULT_PBKDF2_ITERATIONS
        digest = hashlib.pbkdf2_hmac(hash_name, password.encode(), salt.encode(), iterations)
        return digest.hex(), f"pbkdf2:{hash_name}:{iterations}"

    raise ValueError(f"Invalid hash method '{name}'.")
