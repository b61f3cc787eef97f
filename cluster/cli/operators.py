"""``secrethub operator``: the table of what is done to the cluster as a whole."""

from __future__ import annotations

import click

from cluster.cli.lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    lazy={
        "init": ("cluster.cli.seal:init", "Initialise the cluster: make its keys and the root token."),
        "unseal": ("cluster.cli.seal:unseal", "Give unseal shares."),
        "seal": ("cluster.cli.seal:seal", "Seal the cluster."),
        "accept-restore": (
            "cluster.cli.accept_restore:accept_restore",
            "Go on with a database that was put back.",
        ),
        "rekey": ("cluster.cli.rekey:rekey", "Make other shares, with enough of the present ones."),
        "generate-root": (
            "cluster.cli.generate_root:generate_root",
            "Make a root token, with enough shares.",
        ),
        "rotate": ("cluster.cli.data_keys:rotate", "Make a new data key."),
        "reencrypt": ("cluster.cli.data_keys:reencrypt", "Show what older data keys still seal."),
        "key-status": ("cluster.cli.data_keys:key_status", "Show the newest data key."),
        "slot": ("cluster.cli.slots:slot", "What opens the cluster: shares and keys of clouds."),
    },
)
def operator() -> None:
    """Initialise, unseal and seal, and what is decided with shares."""
