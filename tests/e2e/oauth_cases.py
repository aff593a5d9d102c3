"""SASL OAUTHBEARER with libpq 18: psycopg's own, with a hook of ours where an application gets its token."""

import base64
import ctypes
import glob
import json
import os
import urllib.parse
import urllib.request

import psycopg
from support import Tap, case, main

OAUTH_BEARER_TOKEN = 1
ISSUER = os.environ.get("OIDC_ISSUER", "")
DISCOVERY = f"{ISSUER}/.well-known/openid-configuration"
CLIENT = "nightly"
ROOT = os.environ.get("GATEWAY_ROOT", "")


class Connection(ctypes.Structure):
    pass


class BearerRequest(ctypes.Structure):
    """PGoauthBearerRequest of libpq-fe.h."""

    _fields_ = [
        ("openid_configuration", ctypes.c_char_p),
        ("scope", ctypes.c_char_p),
        ("async_", ctypes.c_void_p),
        ("cleanup", ctypes.c_void_p),
        ("token", ctypes.c_void_p),
        ("user", ctypes.c_void_p),
    ]


Hook = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.POINTER(Connection), ctypes.c_void_p)


def libpq():
    place = os.path.join(os.path.dirname(os.path.dirname(psycopg.__file__)), "psycopg_binary.libs")
    [path] = glob.glob(os.path.join(place, "libpq-*"))
    return ctypes.CDLL(path)


class Giver:
    """Gives libpq a token when it asks for one, and keeps what it asked for."""

    # libpq calls it for as long as the process lives.
    installed = []

    def __init__(self, token):
        self.installed.append(self)
        self.token = token
        self.asked = []
        self.kept = []
        self.hook = Hook(self.give)
        libpq().PQsetAuthDataHook(self.hook)

    def give(self, kind, _connection, data):
        if kind != OAUTH_BEARER_TOKEN:
            return 0
        request = ctypes.cast(data, ctypes.POINTER(BearerRequest)).contents
        where, scope = (text and text.decode() for text in (request.openid_configuration, request.scope))
        self.asked.append((where, scope))
        self.kept.append(ctypes.create_string_buffer(self.token(where, scope).encode()))
        request.token = ctypes.addressof(self.kept[-1])
        return 1


def from_provider(where, scope):
    """What an application does: reads the discovery document that the gateway named, and asks that issuer for a token."""
    with urllib.request.urlopen(where) as answer:
        document = json.load(answer)
    assert document["issuer"] == ISSUER, document
    login = base64.b64encode(f"{CLIENT}:{os.environ['OIDC_SECRET']}".encode()).decode()
    form = {"grant_type": "client_credentials", "resource": "urn:wireward", "scope": scope}
    asked = urllib.request.Request(
        document["token_endpoint"], urllib.parse.urlencode(form).encode(), {"authorization": f"Basic {login}"}
    )
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)["access_token"]


def connect(port=None, issuer=ISSUER, **options):
    wanted = {
        "host": "127.0.0.1",
        "port": port or os.environ["GATEWAY_PORT"],
        "dbname": "shop",
        "user": CLIENT,
        "sslmode": "verify-full",
        "sslrootcert": ROOT,
        "oauth_issuer": issuer,
        "oauth_client_id": CLIENT,
        "autocommit": True,
    }
    return psycopg.connect(**{**wanted, **options})


def refused(**options):
    try:
        connect(**options).close()
    except psycopg.OperationalError as error:
        return str(error)
    raise AssertionError("nothing was refused")


@case
def a_client_without_a_token_is_told_the_issuer_and_comes_back_with_one():
    giver = Giver(from_provider)
    with connect() as connection:
        assert connection.pgconn.ssl_in_use
        assert giver.asked == [(DISCOVERY, "shop.read")], giver.asked
        assert connection.execute("select ssn from customers where id = 1").fetchone()[0].startswith("***-**-")
        assert connection.execute("select count(*) from orders").fetchone()[0] == 30000


@case
def a_client_that_knows_the_issuer_logs_in_without_asking():
    tap = Tap()
    giver = Giver(from_provider)
    scope = {"oauth_scope": "mine"}
    with connect(port=tap.port, issuer=DISCOVERY, sslmode="disable", sslrootcert="", **scope) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    assert giver.asked == [(DISCOVERY, "mine")], giver.asked
    assert b"OAUTHBEARER" in tap.received and b"invalid_token" not in tap.received


@case
def many_sessions_log_in_and_work():
    Giver(from_provider)
    sessions = [connect() for _ in range(20)]
    for number, connection in enumerate(sessions):
        assert connection.execute("select %s::int", (number,)).fetchone() == (number,)
        connection.close()


@case
def a_forged_token_is_refused_with_the_reason():
    def forged(where, scope):
        head, claims, signature = from_provider(where, scope).split(".")
        spoiled = "A" if signature[0] != "A" else "B"
        return f"{head}.{claims}.{spoiled}{signature[1:]}"

    Giver(forged)
    error = refused(issuer=DISCOVERY)
    assert "wireward: the token's signature is wrong" in error, error


@case
def what_is_no_jwt_is_refused():
    for token in ["x", "a.b.c", "a" * 60_000]:
        Giver(lambda where, scope, token=token: token)
        error = refused(issuer=DISCOVERY)
        assert "FATAL:  wireward: the token" in error, error


@case
def a_token_above_the_limit_is_refused():
    Giver(lambda where, scope: "a" * 70_000)
    error = refused(issuer=DISCOVERY)
    assert "the token is longer than token_bytes_max" in error, error


@case
def a_token_of_another_user_or_for_no_such_database_is_refused():
    Giver(from_provider)
    assert "neither the token's name nor one of its roles" in refused(user="root")
    assert "no role of the token may reach this database" in refused(dbname="payroll")


@case
def an_application_without_a_token_gets_nothing():
    libpq().PQsetAuthDataHook(None)
    error = refused()
    assert "no OAuth flows are available" in error, error


@case
def channel_binding_cannot_be_required():
    Giver(from_provider)
    error = refused(channel_binding="require")
    assert "channel binding" in error, error


@case
def a_client_that_insists_on_oauth_gets_it_and_one_that_forbids_it_does_not():
    Giver(from_provider)
    with connect(require_auth="oauth") as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    error = refused(require_auth="password")
    assert 'authentication method requirement "password" failed' in error, error


@case
def the_startup_option_chooses_and_does_not_reach_the_server():
    giver = Giver(from_provider)
    token = from_provider(DISCOVERY, "any")
    option = "-c wireward.auth=password -c lock_timeout=7s"
    with connect(options=option, password=token) as connection:
        assert connection.execute("show lock_timeout").fetchone() == ("7s",)
    assert not giver.asked, giver.asked
    port = os.environ["PASSWORD_PORT"]
    by_option = {"options": "-c wireward.auth=oauth", "sslmode": "require", "sslrootcert": ""}
    with connect(port=port, issuer=DISCOVERY, **by_option) as connection:
        assert connection.execute("select current_setting('wireward.auth', true)").fetchone()[0] in (None, "")
    assert giver.asked == [(DISCOVERY, None)], giver.asked
    error = refused(options="-c wireward.auth=kerberos")
    assert 'wireward.auth = "kerberos" is unknown' in error, error


main()
