"""The environment check behind `make check`: it runs before anything is installed."""
