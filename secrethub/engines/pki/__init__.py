"""The certificate engine, and the cluster's authorities as rows."""

from secrethub.engines.pki.engine import PkiEngine

__all__ = ["PkiEngine"]
