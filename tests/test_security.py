"""Password hashes, salts and safe paths."""

from __future__ import annotations

import os
import posixpath

import pytest

from hipflask.werkzeug.security import check_password_hash, gen_salt, generate_password_hash, safe_join


@pytest.mark.parametrize(
    ("method", "prefix"),
    [
        ("scrypt:16384:8:1", "scrypt:16384:8:1$"),
        ("pbkdf2:sha256:10", "pbkdf2:sha256:10$"),
        ("pbkdf2:sha512:3", "pbkdf2:sha512:3$"),
    ],
)
def test_a_hash_names_its_method_and_matches_its_password_alone(method, prefix):
    hashed = generate_password_hash("secret ünïcode", method, salt_length=5)
    assert hashed.startswith(prefix)
    assert len(hashed.split("$")[1]) == 5
    assert check_password_hash(hashed, "secret ünïcode")
    assert not check_password_hash(hashed, "other")


def test_the_default_is_scrypt_with_its_usual_cost():
    hashed = generate_password_hash("x")
    assert hashed.startswith("scrypt:32768:8:1$")
    assert check_password_hash(hashed, "x")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("md5", "Invalid hash method 'md5'"),
        ("scrypt:1:2", "'scrypt' takes 3 arguments"),
        ("scrypt:a:b:c", "'scrypt' takes 3 arguments"),
        ("pbkdf2:sha256:1:2", "'pbkdf2' takes 2 arguments"),
    ],
)
def test_a_wrong_method_is_refused(method, message):
    with pytest.raises(ValueError, match=message):
        generate_password_hash("x", method)


@pytest.mark.parametrize("hashed", ["", "plain", "a$b"])
def test_what_is_no_hash_matches_nothing(hashed):
    assert not check_password_hash(hashed, "")


def test_a_salt_has_its_length_and_no_separator():
    assert len(gen_salt(30)) == 30
    assert gen_salt(50).isalnum()
    assert gen_salt(20) != gen_salt(20)
    with pytest.raises(ValueError, match="at least 1"):
        gen_salt(0)


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        (("base", "a", "b"), "base/a/b"),
        (("base", "a/../b"), "base/b"),
        (("base", ""), "base"),
        (("base", "", "x"), "base/x"),
        (("", "x"), "./x"),
        (("base", "a//b"), "base/a/b"),
        (("base", ".hidden"), "base/.hidden"),
        (("base", "..hidden"), "base/..hidden"),
        (("base", "~x"), "base/~x"),
        (("base", "..\\x"), "base/..\\x" if os.name != "nt" else None),
        (
            (
                "base",
                "..",
            ),
            None,
        ),
        (("base", "../x"), None),
        (("base", "a/../../x"), None),
        (("base", "a", "../../x"), None),
        (("base", "/etc/passwd"), None),
        (("base", "//etc/passwd"), None),
        (("", "/etc/passwd"), None),
    ],
)
def test_a_path_stays_below_its_directory(parts, joined):
    assert safe_join(*parts) == joined


@pytest.mark.parametrize("name", ["NUL", "con.txt", "a/COM1", "lpt¹.log", "b/aux .x"])
def test_device_names_are_refused_on_windows(monkeypatch, name):
    monkeypatch.setattr("os.name", "nt")
    monkeypatch.setattr("os.path", posixpath)
    assert safe_join("base", name) is None
