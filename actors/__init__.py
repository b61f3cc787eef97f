"""The supervision tree: plain classes that decide when and who, and one file that makes them Ray actors."""
