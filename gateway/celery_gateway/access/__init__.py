"""Who may read what: tokens, scopes, quotas, and the redaction of secrets.

- ``scope``: which events and tasks a token may read, without which fields, and which endpoints. Pure
- ``principal``: who makes a request: a name, a scope, and the end of the token. Pure
- ``access_file``, ``access_table``: the TOML file of ``--auth``, and one of its tables
- ``static_tokens``: random tokens, of which the file has the hashes. Pure
- ``jwt_verifier``, ``jwt_keys``, ``jwks``: JSON Web Tokens of issuers, their keys, and keys behind URLs
- ``authenticator``: from a token to a principal; reads the file again when it has changed
- ``actions``: what clients may do beside reading. Pure
- ``quota``: what each principal may use. Pure
- ``failures``: failed authentications by address. Pure
- ``redaction``: secrets and hidden fields of events, removed on arrival. Pure
- ``proxies``: the addresses of proxies whose headers are trusted, and what these headers say. Pure
"""
