"""Credentials: TLS with an own authority, basic and token authentication, config files, helpers, login and logout."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from firkin.errors import InvalidInputError, RegistryError
from firkin.oci import ImageStore
from firkin.oci.registry.auth import Authenticator, TokenRequest, parse_challenges
from firkin.oci.registry.client import RegistryClient
from firkin.oci.registry.credentials import Credentials, find_credentials, forget_credentials, store_credentials
from firkin.oci.registry.pull import pull
from firkin.oci.registry.push import push
from firkin.oci.registry.settings import RegistrySettings
from tests.oci.builders import Layout
from tests.oci.registry.conftest import push_layout, run
from tests.oci.registry.servers import Registry, docker_registry, token_registry

USER = Credentials("someone", "pass:word")


def layout() -> Layout:
    one = Layout()
    return one.name("x", one.image({"a": b"a"}, {"b": b"b"}))


def make_certificates(folder: Path, *, names: str = "IP:127.0.0.1") -> None:
    """An authority, a server certificate for `names`, and a client certificate."""
    folder.mkdir()
    (folder / "ext").write_text(f"subjectAltName={names}\n")
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    calls = [[*new, "-x509", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test authority", "-days", "2"]]
    for name in ("server", "client"):
        calls.append([*new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"])
        sign = ["openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "2"]
        calls.append([*sign, "-CAcreateserial", "-extfile", "ext", "-out", f"{name}.crt"])
    for call in calls:
        subprocess.run(call, cwd=folder, check=True, capture_output=True)


async def test_tls_with_an_own_authority_client_certificate_and_password(
    store: ImageStore, settings: RegistrySettings, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    make_certificates(keys)
    (tmp_path / "htpasswd").write_text(run("htpasswd", "-nbB", USER.username, USER.password))
    tls = f"  tls: {{certificate: {keys}/server.crt, key: {keys}/server.key, clientcas: [{keys}/ca.crt]}}"
    auth = f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/htpasswd}}}}"
    with docker_registry(tmp_path / "registry", tls=tls, auth=auth) as registry:
        async with RegistryClient(settings, credentials=USER) as client:
            with pytest.raises(RegistryError, match="not trusted"):
                await pull(store, f"{registry.host}/a:1", client=client)
        certificates = settings.certificates[0] / registry.host
        certificates.mkdir(parents=True)
        (certificates / "ca.crt").write_bytes((keys / "ca.crt").read_bytes())
        (certificates / "client.cert").write_bytes((keys / "client.crt").read_bytes())
        (certificates / "client.key").write_bytes((keys / "client.key").read_bytes())
        store.load(layout().write(tmp_path / "l"), name="loaded")
        async with RegistryClient(settings) as client:
            with pytest.raises(RegistryError, match="firkin image login") as caught:
                await push(store, "loaded:x", f"{registry.host}/a:1", client=client)
            assert caught.value.status == 401
            with pytest.raises(RegistryError, match="refused the login"):
                await client.check_login(registry.host, Credentials("someone", "wrong"))
            await client.check_login(registry.host, USER)
        store_credentials(settings, registry.host, USER)
        async with RegistryClient(settings) as client:
            pushed = await push(store, "loaded:x", f"{registry.host}/a:1", client=client)
            pulled = await pull(store, f"{registry.host}/a:1", client=client)
        assert pulled.image.digest == pushed.digest
        login = ["--src-cert-dir", certificates, "--src-creds", f"{USER.username}:{USER.password}"]
        run("skopeo", "copy", *login, f"docker://{registry.host}/a:1", f"oci:{tmp_path / 'copy'}:x")


async def test_tokens_are_asked_for_by_scope_and_renewed(
    registry: Registry, store: ImageStore, settings: RegistrySettings, tmp_path: Path
) -> None:
    push_layout(registry, layout(), tmp_path / "l", "secret/image:1")
    with token_registry(registry.host, USER.username, USER.password, refresh="long lived") as server:
        name = f"{server.host}/secret/image:1"
        async with RegistryClient(settings) as client:
            with pytest.raises(RegistryError, match="wrong password") as caught:
                await pull(store, name, client=client)
            assert caught.value.status == 401
        async with RegistryClient(settings, credentials=USER) as client:
            await pull(store, name, client=client)
            assert server.requests[-1]["scope"] == ["repository:secret/image:pull"]
            assert server.requests[-1]["service"] == ["test"]
            asked = len(server.requests)
            server.valid.clear()  # Revoked before its time: the next request is answered 401.
            assert not (await pull(store, name, client=client)).changed
            assert len(server.requests) == asked + 1
            await push(store, name, f"{server.host}/secret/other:1", client=client)
            assert server.requests[-1]["scope"] == ["repository:secret/other:pull,push"]
        async with RegistryClient(settings, credentials=Credentials(identity_token="long lived")) as client:
            assert (await pull(store, name, client=client)).image.digest
            assert server.requests[-1]["grant_type"] == ["refresh_token"]


async def test_a_password_is_not_sent_to_a_token_server_without_tls() -> None:
    async def fetch(request: TokenRequest) -> dict[str, str]:
        raise AssertionError("nothing may be sent")

    login = Authenticator("registry.example", USER, fetch, secure=True)
    for realm in ("http://token.example/", "http://127.0.0.1:1/", "ftp://x/"):
        with pytest.raises(RegistryError, match="without TLS"):
            await login.answer(f'Bearer realm="{realm}"', "repository:a:pull", "")


async def test_a_token_lives_as_long_as_it_says() -> None:
    now, given = [0.0], iter("abcdef")

    async def fetch(request: TokenRequest) -> dict[str, object]:
        return {"access_token": next(given), "expires_in": 100}

    login = Authenticator("r", None, fetch, secure=True, clock=lambda: now[0])
    assert login.header("s") == ""
    assert await login.answer('Bearer realm="https://t/"', "s", "")
    assert login.header("s") == "Bearer a"
    assert login.header("other") == ""
    now[0] = 96.0
    assert login.header("s") == ""
    assert await login.answer('Bearer realm="https://t/"', "s", "Bearer a")
    assert login.header("s") == "Bearer b"
    assert not await login.answer("Basic realm=x", "s", "Bearer b")


def test_challenges() -> None:
    header = 'Basic realm="a, b", Bearer realm="https://t/\\"x",service=s,scope="repository:a:pull,push", Negotiate'
    found = parse_challenges(header)
    assert [challenge.scheme for challenge in found] == ["basic", "bearer", "negotiate"]
    assert found[0].parameters == {"realm": "a, b"}
    assert found[1].parameters == {"realm": 'https://t/"x', "service": "s", "scope": "repository:a:pull,push"}


@hypothesis_settings(deadline=None)
@given(st.text(max_size=200))
def test_any_challenge_is_read_without_a_crash(header: str) -> None:
    assert all(challenge.scheme for challenge in parse_challenges(header))


def auth(credentials: Credentials) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()}


def test_files_are_read_in_order_and_the_narrowest_entry_wins(settings: RegistrySettings, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    one, two, three, four = (Credentials(name, name) for name in ("one", "two", "three", "four"))
    first.write_text(json.dumps({"auths": {"r:1/team": auth(one), "https://index.docker.io/v1/": auth(four)}}))
    second.write_text(json.dumps({"auths": {"r:1": auth(two), "r:1/team/x": auth(three), "t": {"identitytoken": "i"}}}))
    settings = replace(settings, auth_files=(tmp_path / "absent", first, second))
    assert find_credentials(settings, "r:1", "team/x") == one
    assert find_credentials(settings, "r:1", "other") == two
    assert find_credentials(settings, "docker.io", "library/a") == four
    assert find_credentials(settings, "t") == Credentials(identity_token="i")
    assert find_credentials(settings, "unknown") is None
    first.write_text(json.dumps({"auths": {"r:1": {"auth": "*"}}}))
    with pytest.raises(RegistryError, match="can't be decoded"):
        find_credentials(settings, "r:1")
    first.write_text("[]")
    with pytest.raises(RegistryError, match="not a JSON object"):
        find_credentials(settings, "r:1")


def test_login_and_logout_keep_the_rest_of_the_file(settings: RegistrySettings) -> None:
    assert settings.login_file is not None
    settings.login_file.write_text(json.dumps({"auths": {"other": {"auth": "eDp5"}}, "HttpHeaders": {"A": "b"}}))
    store_credentials(settings, "docker.io", USER)
    document = json.loads(settings.login_file.read_text())
    assert set(document["auths"]) == {"other", "https://index.docker.io/v1/"}
    assert document["HttpHeaders"] == {"A": "b"}
    assert stat.S_IMODE(settings.login_file.stat().st_mode) == 0o600
    assert find_credentials(settings, "docker.io") == USER
    assert forget_credentials(settings, "docker.io")
    assert not forget_credentials(settings, "docker.io")
    assert [path.name for path in settings.login_file.parent.iterdir()] == ["auth.json"]


HELPER = """#!/bin/sh
echo "$1 $(cat)" >> "{log}"
case "$1" in
get) [ -e "{folder}/has" ] && cat "{folder}/has" || {{ echo "credentials not found in native keychain"; exit 1; }} ;;
esac
"""


def test_credential_helpers(settings: RegistrySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.login_file is not None
    program, log = tmp_path / "docker-credential-mine", tmp_path / "log"
    program.write_text(HELPER.format(log=log, folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    settings.login_file.write_text(json.dumps({"credsStore": "mine", "credHelpers": {"r": "../evil", "s": "absent"}}))
    assert find_credentials(settings, "other:5000") is None
    store_credentials(settings, "other:5000", USER)
    (tmp_path / "has").write_text(json.dumps({"ServerURL": "x", "Username": USER.username, "Secret": USER.password}))
    assert find_credentials(settings, "other:5000") == USER
    assert forget_credentials(settings, "other:5000")
    (tmp_path / "has").write_text(json.dumps({"Username": "<token>", "Secret": "t"}))
    assert find_credentials(settings, "docker.io") == Credentials(identity_token="t")
    said = log.read_text()
    stored = {"ServerURL": "other:5000", "Username": USER.username, "Secret": USER.password}
    assert f"store {json.dumps(stored)}\n" in said
    assert "erase other:5000\n" in said
    assert said.endswith("get https://index.docker.io/v1/\n")
    with pytest.raises(RegistryError, match="not a credential helper's name"):
        find_credentials(settings, "r")
    with pytest.raises(RegistryError, match="can't be run"):
        find_credentials(settings, "s")
    (tmp_path / "has").write_text("{}")
    with pytest.raises(RegistryError, match="no credential"):
        find_credentials(settings, "other:5000")


def test_settings_come_from_the_file_then_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[registries."docker.io"]\nmirrors = ["m:1"]\n[registries."plain:80"]\ninsecure = true\n')
    environ = {
        "HOME": str(tmp_path),
        "FIRKIN_CONFIG": str(file),
        "FIRKIN_MIRRORS": "docker.io=n:2",
        "DOCKER_CONFIG": "/d",
    }
    settings = RegistrySettings.default({**environ, "FIRKIN_INSECURE_REGISTRIES": "other:80"})
    assert settings.hosts("docker.io") == ("m:1", "n:2", "registry-1.docker.io")
    assert settings.plain_http("plain:80")
    assert settings.plain_http("other:80")
    assert settings.plain_http("127.0.0.1:5000")
    assert settings.plain_http("localhost")
    assert not settings.plain_http("registry.example")
    assert settings.auth_files[-1] == settings.login_file == Path("/d/config.json")
    for text in ("[registries]\na = 1", "nonsense", '[registries.a]\nmirrors = "x"'):
        file.write_text(text)
        with pytest.raises(InvalidInputError):
            RegistrySettings.default(environ)
