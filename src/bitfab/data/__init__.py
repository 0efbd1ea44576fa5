"""Datasets of the shipped applications, each behind an optional extra and imported by name: `bitfab.data.qubit`."""
