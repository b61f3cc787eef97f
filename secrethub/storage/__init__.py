"""PostgreSQL: tables, the one boundary where driver errors become ours, one module per aggregate."""
