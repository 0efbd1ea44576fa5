"""Projects for the tools of vendors, which place what nextpnr cannot."""

from bitfab.hw.project.render import project_files

__all__ = ["project_files"]
