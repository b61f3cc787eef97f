"""SecretHub: the product's rules and data. Knows neither Ray nor a web framework."""

__version__ = "0.1.0"
